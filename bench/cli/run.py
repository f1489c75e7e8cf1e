"""Commands that measure: `perimetry run`, `demo`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from ...adapters.errors import InputError
from ...adapters.reference import FORMS
from ..execution.settings import FIT_DEFAULT
from .board import print_board, ranked_board
from .groups import option_groups
from .options import (
    FAILED,
    INTERRUPTED,
    Device,
    ImageOptions,
    InputOptions,
    MachineOptions,
    Seed,
    WorkerOptions,
    names_of,
    report_errors,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..execution.settings import Settings
    from ..execution.sweep import Sweep


app = typer.Typer()


@dataclass(frozen=True)
class SelectionOptions:
    """Which of the models named to measure, and how they are opened."""

    PANEL: ClassVar[str] = "Models"
    family: Annotated[
        str | None, typer.Option(help="Measure only models of this timm family, such as regnet.")
    ] = None
    exclude: Annotated[
        list[str] | None,
        typer.Option(help="Leave out models whose names match this pattern. Repeatable."),
    ] = None
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of models.", show_default="all")
    ] = None
    shard: Annotated[
        str, typer.Option(help="Measure one share of the models: I/N for the I-th of N.")
    ] = "1/1"
    members: Annotated[
        int | None,
        typer.Option(
            min=1, help="Number of seeds over which an @init model is averaged.", show_default="8"
        ),
    ] = None
    size: Annotated[
        str | None,
        typer.Option(help="Input size: SIDE or HEIGHTxWIDTH.", show_default="the model's own"),
    ] = None

    def select(self, references: Sequence[str]) -> list[str]:
        """Expand wildcards in `references` and select. Raises `InputError` when none is left."""
        from ..execution.plan import Choice, expand_references, parse_shard

        choice = Choice(tuple(self.exclude or ()), self.family, parse_shard(self.shard), self.limit)
        names = expand_references(references, choice)
        if not names:
            raise InputError(
                "no models selected: --exclude, --family or --shard removed all of them; expected "
                "at least one"
            )
        return names


@dataclass(frozen=True)
class MeasurementOptions:
    """Suites, kernel paddings and their settings."""

    PANEL: ClassVar[str] = "Measurement"
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Comma-separated suites; SUITE:PROTOCOL or SUITE:all for protocols. Repeatable.",
            show_default="structure,erf,deadpixel",
        ),
    ] = None
    kernel_padding: Annotated[
        str,
        typer.Option(help="Comma-separated kernel paddings: none, zero, box, fresh, fit, kim2023."),
    ] = "none,box"
    fit_images: Annotated[
        str,
        typer.Option(
            help="Images for fitting the padding: dead-leaves or an image folder (not the audited "
            "images)."
        ),
    ] = FIT_DEFAULT
    setting: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SUITE.FIELD=VALUE",
            help="Change a setting of a suite (see `perimetry list suites`). Repeatable.",
        ),
    ] = None
    precision_goal: Annotated[
        float | None,
        typer.Option(
            metavar="HALF_WIDTH",
            help="Take more than --count images until the half width of deadpixel's `weakest` (the "
            "wider half, where the interval ends at 1) is at most this, such as 0.05.",
            show_default="none",
        ),
    ] = None
    most_images: Annotated[
        int, typer.Option(min=1, help="Maximum number of images for --precision-goal.")
    ] = 256
    precision: Annotated[
        Literal["float32", "float64", "bfloat16"],
        typer.Option(help="Float type of gradients; bfloat16 is faster and less precise."),
    ] = "float32"
    recalibrate: Annotated[
        bool,
        typer.Option(
            "--recalibrate", help="Re-estimate norm statistics of padded models on the images."
        ),
    ] = False


@app.command()
@option_groups
def run(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REF",
            help=f"Models: {FORMS}; NAME may contain wildcards.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Output folder. An interrupted run resumes from it.")],
    measurement: MeasurementOptions,
    images: ImageOptions,
    selection: SelectionOptions,
    inputs: InputOptions,
    machine: MachineOptions,
    workers: WorkerOptions,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would be measured and how long it takes.")
    ] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not measure failed records again.")
    ] = False,
) -> None:
    """Audit models, with and without kernel padding, and print the leaderboard."""
    from ..execution.identities import check_references
    from ..execution.plan import DEFAULT_SUITES, parse_fills
    from ..execution.sweep import Sweep
    from ..output.text import clean

    with report_errors():
        settings = _settings(measurement, images, selection, inputs)
        options = machine.run_options(retry_failed=not keep_failed, **vars(workers))
        fills = parse_fills(measurement.kernel_padding.split(","))
        _check_fit(fills, measurement.fit_images)
        names = selection.select(references)
        suites = names_of(measurement.suite, DEFAULT_SUITES)
        sweep = Sweep(names, suites, fills, settings, options, out)
        sweep.plan.jobs()  # raises for every other wrong word
        for text in check_references(references, options):
            typer.echo(f"perimetry: {clean(text, 2000)}", err=True)
        if dry_run:
            typer.echo(sweep.forecast())
            return
        failed = _carry_out(sweep)
    if failed:
        raise typer.Exit(FAILED)


def _settings(
    measurement: MeasurementOptions,
    images: ImageOptions,
    selection: SelectionOptions,
    inputs: InputOptions,
) -> Settings:
    """Everything that can change a number. Raises `InputError`."""
    from ...adapters.input_spec import parse_size
    from ...adapters.load import parse_inputs
    from ...suites.settings import parse_options
    from ..execution.settings import Settings

    return Settings(
        **vars(images),
        target=inputs.target,
        size=parse_size(selection.size) if selection.size else None,
        members=selection.members,
        precision=measurement.precision,
        precision_goal=measurement.precision_goal,
        most_images=measurement.most_images,
        recalibrate=measurement.recalibrate,
        options=parse_options(measurement.setting or ()),
        inputs=parse_inputs(inputs.inputs or (), inputs.output),
        fit_images=measurement.fit_images,
    )


def _check_fit(fills: Sequence[str], fit_images: str) -> None:
    """Raise `InputError` for images to fit on when no kernel padding is fitted."""
    if fit_images != FIT_DEFAULT and "fit" not in fills:
        raise InputError(
            f"--fit-images {fit_images!r} was given with --kernel-padding {','.join(fills)}; "
            "expected fit among the kernel paddings, such as --kernel-padding none,fit"
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for records, leaderboard and pictures.")] = Path(
        "perimetry-demo"
    ),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Audit nine architectures from their initial state; needs no network and no data."""
    from .. import demo as one
    from ..execution.settings import RunOptions
    from ..execution.sweep import Sweep
    from ..records.store import Store

    with report_errors():
        typer.echo(f"perimetry: {one.forecast()}", err=True)
        references = one.references(out, seed=seed)
        options = RunOptions(device, time_limit_s=one.TIME_LIMIT_S)
        sweep = Sweep(references, one.SUITES, one.FILLS, one.settings(seed), options, out)
        failed = _carry_out(sweep)
        typer.echo(f"Written: {', '.join(map(str, one.write_board(Store(out))))}")
    if failed:
        raise typer.Exit(FAILED)


def _carry_out(sweep: Sweep) -> bool:
    """Measure what is missing and print the leaderboard; whether a record failed.

    A folder with records of other settings too has no single leaderboard; then that is reported,
    and what failed with its reason, which would have been below the leaderboard.
    """
    from ..output.text import clean
    from ..records.selection import MixedRecordsError

    try:
        store, failed = sweep.carry_out(partial(typer.echo, err=True))
    except KeyboardInterrupt:
        typer.echo(f"\nperimetry: interrupted; {sweep.kept()}", err=True)
        raise typer.Exit(INTERRUPTED) from None
    try:
        print_board(ranked_board(store, first=sweep.suites))
    except MixedRecordsError as error:
        text = clean(str(error), 2000)
        typer.echo(
            f"perimetry: measurements saved, but the leaderboard could not be built: {text}",
            err=True,
        )
        for line in dict.fromkeys(
            f"failed: {record.model.reference} ({record.fill}): {record.why}" for record in failed
        ):
            typer.echo(f"perimetry: {clean(line, 2000)}", err=True)
    return bool(failed)
