"""Commands that measure: `perimetry run`, `demo`, `pad`."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ...adapters.errors import InputError
from ..execution.run_options import BATCH
from ..execution.settings import FIT_DEFAULT
from .options import (
    FAILED,
    Count,
    Device,
    FitImages,
    Grouped,
    Images,
    Inputs,
    Output,
    Seed,
    report_errors,
)
from .view import Format, show_board

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..execution.run_options import RunOptions
    from ..execution.sweep import Sweep


app = typer.Typer()


class Float(StrEnum):
    """Float types of a pass."""

    float32 = "float32"
    float64 = "float64"
    bfloat16 = "bfloat16"


class EngineName(StrEnum):
    """Engines."""

    local = "local"
    ray = "ray"


class NewFill(StrEnum):
    """Fills for a file that is written."""

    box = "box"
    zero = "zero"


@app.command(cls=Grouped)
def run(
    references: Annotated[
        list[str],
        typer.Argument(
            metavar="REF",
            help="timm:NAME[.TAG], timm:NAME@init, timm:NAME@FILE, PATH.onnx; wildcards in NAME.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the records; a rerun goes on in it.")],
    suite: Annotated[
        str, typer.Option(help="Comma-separated; SUITE:PROTOCOL or SUITE:all for others.")
    ] = "structure,erf,deadpixel",
    kernel_padding: Annotated[
        str, typer.Option(help="Comma-separated fills: none, zero, box, fresh, fit.")
    ] = "none,box",
    fit_images: FitImages = FIT_DEFAULT,
    images: Images = "dead-leaves",
    count: Count = 16,
    seed: Seed = 0,
    members: Annotated[
        int | None, typer.Option(min=1, help="Seeds behind an @init model.", show_default="8")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Layer to audit.", show_default="last spatial feature map")
    ] = None,
    size: Annotated[
        str | None, typer.Option(help="Input SIDE or HEIGHTxWIDTH.", show_default="the model's own")
    ] = None,
    inputs: Inputs = None,
    output: Output = None,
    device: Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images a pass; halves out of memory.",
            show_default=f"{BATCH['cpu']} on the CPU, {BATCH['cuda']} on a GPU",
        ),
    ] = None,
    time_limit: Annotated[
        float, typer.Option(min=0, help="Seconds a model variant may take; 0 for no limit.")
    ] = 1800,
    memory_limit: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="GiB a worker may take, of a GPU where it has one.",
            show_default="90 % of the machine's; all of a GPU",
        ),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=0, help="How often to try again what died or took too long.")
    ] = 0,
    precision: Annotated[
        Float, typer.Option(help="Float type of gradients; bfloat16 is faster and coarser.")
    ] = Float.float32,
    recalibrate: Annotated[
        bool,
        typer.Option("--recalibrate", help="Re-estimate norms of treated models on the images."),
    ] = False,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SUITE.FIELD=VALUE", help="See `perimetry list suites`."),
    ] = None,
    workers: Annotated[
        int, typer.Option(min=1, help="Worker processes a device; on the CPU they share cores.")
    ] = 1,
    engine: Annotated[
        EngineName, typer.Option(help="Where to measure: on this machine, or on a Ray cluster.")
    ] = EngineName.local,
    address: Annotated[
        str | None,
        typer.Option(help="Of the Ray cluster.", show_default="RAY_ADDRESS, else a new local one"),
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Leave out models that match this pattern.")
    ] = None,
    family: Annotated[
        str | None, typer.Option(help="Only models of this timm family, such as regnet.")
    ] = None,
    shard: Annotated[str, typer.Option(help="I/N: the I-th of N shares of the models.")] = "1/1",
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many models.", show_default="all")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be measured, and how long.")
    ] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not try failed records again.")
    ] = False,
) -> None:
    """Audit models, with and without kernel padding, and print the board."""
    from ...adapters.load import parse_inputs
    from ...suites.settings import parse_options
    from ..execution.plan import Choice, expand_references, parse_fills, parse_shard
    from ..execution.settings import Settings
    from ..execution.sweep import Sweep

    with report_errors():
        settings = Settings(
            images=images,
            count=count,
            seed=seed,
            target=target,
            size=_size(size),
            members=members,
            precision=precision.value,
            recalibrate=recalibrate,
            options=parse_options(setting or ()),
            inputs=parse_inputs(inputs or (), output),
            fit_images=fit_images,
        )
        options = replace(
            _options(device, batch, time_limit, retry_failed=not keep_failed),
            workers=workers,
            memory_limit_mib=memory_limit * 1024 if memory_limit else None,
            retries=retries,
            engine=engine.value,
            address=address,
        )
        choice = Choice(tuple(exclude or ()), family, parse_shard(shard), limit)
        names = expand_references(references, choice)
        if not names:
            raise InputError("no model is left: --exclude, --family or --shard took them all")
        fills = parse_fills(kernel_padding.split(","))
        _check_fit(fills, fit_images)
        sweep = Sweep(names, suite.split(","), fills, settings, options, out)
        if dry_run:
            typer.echo(sweep.forecast())
            return
        failed = _carry_out(sweep)
    if failed:
        raise typer.Exit(FAILED)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for records, board and pictures.")] = Path(
        "perimetry-demo"
    ),
    seed: Seed = 0,
    device: Device = "auto",
) -> None:
    """Audit nine real architectures from their initial state; needs no network and no data."""
    from .. import demo as one
    from ..execution.sweep import Sweep
    from ..records.store import Store

    with report_errors():
        references = one.references(out, seed=seed)
        options = _options(device, None, one.TIME_LIMIT_S, retry_failed=True)
        sweep = Sweep(references, one.SUITES, one.FILLS, one.settings(seed), options, out)
        failed = _carry_out(sweep)
        typer.echo(f"Written: {', '.join(map(str, one.publish(Store(out))))}")
    if failed:
        raise typer.Exit(FAILED)


@app.command(cls=Grouped)
def pad(
    path: Annotated[Path, typer.Argument(metavar="PATH.onnx", help="The file to treat.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The file to write.")],
    fill: Annotated[NewFill, typer.Option(help="What the new taps hold.")] = NewFill.box,
    images: Images = "dead-leaves",
    count: Count = 16,
    seed: Seed = 0,
    inputs: Inputs = None,
    output: Output = None,
    target: Annotated[
        str | None, typer.Option(help="Layer to audit.", show_default="last spatial feature map")
    ] = None,
    forward_only: Annotated[
        bool, typer.Option("--forward-only", help="Measure without gradients.")
    ] = False,
    recalibrate: Annotated[
        bool, typer.Option("--recalibrate", help="Rescale the layers that grew, on the images.")
    ] = False,
    device: Device = "auto",
) -> None:
    """Write the kernel-padded twin of an ONNX file, and say what that did to it."""
    from ...adapters.load import parse_inputs

    with report_errors():
        from ..pad_file import pad_file

        report = pad_file(
            path,
            out,
            fill.value,
            images=images,
            count=count,
            seed=seed,
            inputs=parse_inputs(inputs or (), output),
            target=target,
            forward_only=forward_only,
            recalibrate=recalibrate,
            device=device,
        )
        typer.echo(report.text())


def _check_fit(fills: Sequence[str], fit_images: str) -> None:
    """Raise `InputError` for images to fit on that nothing would be fitted on."""
    if fit_images != FIT_DEFAULT and "fit" not in fills:
        raise InputError(
            f"--fit-images {fit_images!r} was given, and --kernel-padding {','.join(fills)}; add "
            "the padding that is fitted: --kernel-padding none,fit"
        )


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    from ...adapters.input_spec import parse_size

    return parse_size(text)


def _options(device: str, batch: int | None, limit_s: float, *, retry_failed: bool) -> RunOptions:
    from ..execution.run_options import RunOptions

    return RunOptions(
        device,
        batch,
        time_limit_s=limit_s or None,
        retry_failed=retry_failed,
    )


def _carry_out(sweep: Sweep) -> int:
    """Measure what is missing and print the board; how many of the records failed.

    A folder that holds other settings too has no one board; what was measured is there even so.
    """
    from ..output.text import clean
    from ..records.selection import MixedRecordsError

    store, failed = sweep.carry_out(partial(typer.echo, err=True))
    try:
        show_board(store, None, Format.table, ())
    except MixedRecordsError as error:
        typer.echo(f"perimetry: measured; no board, since {clean(str(error), 2000)}", err=True)
    return failed
