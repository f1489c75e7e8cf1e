"""Commands that compare: `perimetry compare`, `rank`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import typer

from ...adapters.errors import InputError
from .groups import option_groups
from .options import (
    MachineOptions,
    MeasuredInputs,
    StoredOptions,
    names_of,
    report_errors,
    warn_unreadable,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..comparison.compare import Comparison
    from ..comparison.result import Pair
    from ..execution.settings import Settings


app = typer.Typer()


@dataclass(frozen=True)
class MissingOptions:
    """How models are measured that are not stored."""

    PANEL: ClassVar[str] = "Models that are measured now"
    inputs: MeasuredInputs = None
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Comma-separated suites for models that are audited now. Repeatable.",
            show_default="those of stored ones, else structure, erf, deadpixel and padding",
        ),
    ] = None
    count: Annotated[
        int, typer.Option(min=1, help="Number of images, if no stored record sets it.")
    ] = 16
    seed: Annotated[int, typer.Option(help="Seed, if no stored record sets it.")] = 0
    stages: Annotated[
        bool, typer.Option(help="Open the models to find the stage at which they diverge.")
    ] = True
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Compare even if settings, images or preprocessing are different."
        ),
    ] = False

    def settings(self, stored: StoredOptions) -> Settings:
        """The settings where no stored record has others."""
        from ..execution.settings import FIT_DEFAULT, Settings

        return Settings(
            images=stored.images or "dead-leaves",
            count=self.count,
            seed=self.seed,
            fit_images=stored.fit_images or FIT_DEFAULT,
        )


@dataclass(frozen=True)
class ShownOptions:
    """What a comparison shows, and where."""

    PANEL: ClassVar[str] = "Report"
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B", help="Also show all metrics of this pair, by the names in the report."
        ),
    ] = None
    pairs: Annotated[bool, typer.Option("--pairs", help="Also show every pair.")] = False
    form: Annotated[
        Literal["table", "md", "json"], typer.Option("--format", help="Output format.")
    ] = "table"
    every: Annotated[
        bool, typer.Option("--all", help="Show all metrics, also those that do not differ.")
    ] = False
    maps: Annotated[Path | None, typer.Option(help="Folder for difference maps as PNG.")] = None
    page: Annotated[Path | None, typer.Option("--html", help="Also write an HTML page.")] = None
    nodes: Annotated[
        bool,
        typer.Option(
            "--nodes", help="Compare variants of one graph node by node with the first model."
        ),
    ] = False
    one_at_a_time: Annotated[
        bool,
        typer.Option(
            "--quantise-one-at-a-time",
            help="Show with the nodes how much the output changes if a single layer of the first "
            "model, a float ONNX file, is quantised to eight bits.",
        ),
    ] = False
    node_data: Annotated[
        Path | None,
        typer.Option(help="Folder for the nodes, as node data of Model Explorer."),
    ] = None


@app.command()
@option_groups
def compare(
    stored: StoredOptions,
    machine: MachineOptions,
    missing: MissingOptions,
    shown: ShownOptions,
    sides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B ...",
            help="What to compare: DIR, DIR:MODEL or REF; add +FILL for a kernel padding.",
        ),
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A", help="Name for a model in the report. Repeatable."),
    ] = None,
) -> None:
    """Compare models side by side, paired image by image."""
    with report_errors():
        from ..comparison import compare as comparison

        found = comparison.compare(
            *(sides or ()),
            suites=names_of(missing.suite, ()) or None,
            settings=missing.settings(stored),
            force=missing.force,
            stages=missing.stages,
            nodes=shown.nodes or shown.node_data is not None,
            quantise_one_at_a_time=shown.one_at_a_time,
            names=_names(name or ()),
            **stored.rerun_fields(machine, inputs=missing.inputs),
        )
        warn_unreadable(found.problems)
        typer.echo(_shown(found, shown), nl=False)
        _write(found, shown)


def _names(texts: Sequence[str]) -> dict[str, str]:
    """`NAME=A` texts as a mapping. Raises `InputError`."""
    found: dict[str, str] = {}
    for text in texts:
        name, equals, thing = text.partition("=")
        if not (name and equals and thing) or name in found:
            raise InputError(
                f"--name {text!r} was given; expected NAME=A with another NAME each time, such as "
                "--name vendor=path/model.onnx"
            )
        found[name] = thing
    return found


@app.command()
@option_groups
def rank(
    model: Annotated[
        str,
        typer.Argument(
            metavar="REF", help="Model to place: a reference, DIR:MODEL, or either with +FILL."
        ),
    ],
    within: Annotated[
        Path, typer.Option(help="Folder or packed file with the records to rank it among.")
    ],
    stored: StoredOptions,
    machine: MachineOptions,
    sort: Annotated[
        str | None, typer.Option(help="Rank by this metric.", show_default="that of the board")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Place one model among a published set: its rank there, and its neighbours."""
    with report_errors():
        from ..comparison.placement import place, placement_to_json, placement_to_text

        found = place(model, within, sort=sort, **stored.rerun_fields(machine))
        warn_unreadable(found.problems)
        typer.echo(
            json.dumps(placement_to_json(found), indent=1)
            if as_json
            else placement_to_text(found, width()),
            nl=as_json,
        )


def _shown(found: Comparison, shown: ShownOptions) -> str:
    """A comparison in one of its formats."""
    if shown.form == "json":
        return json.dumps(found.data(), indent=1, allow_nan=False) + "\n"
    pairs: tuple[Pair, ...] | None = None
    if shown.pairs:
        pairs = found.pairs
    elif shown.pair is not None:
        pairs = (found.pair(*shown.pair),)
    elif shown.nodes or shown.one_at_a_time:
        pairs = tuple(pair for pair in found.pairs if pair.nodes is not None)
    if shown.form == "md":
        return found.markdown(every=shown.every, pairs=pairs)
    return found.text(width=width(), every=shown.every, pairs=pairs)


def _write(found: Comparison, shown: ShownOptions) -> None:
    """Write pictures and the page, if asked for."""
    from ..output.text import clean, counted

    if shown.maps is not None:
        from ..comparison.html import draw_differences

        drawn = draw_differences(found, shown.maps)
        typer.echo(
            f"Written: {counted(len(drawn), 'picture')} in {clean(str(shown.maps))}", err=True
        )
    if shown.node_data is not None:
        from ..comparison.node_report import write_node_data

        paths = write_node_data(found, shown.node_data)
        typer.echo(
            f"Written: {counted(len(paths), 'file')} in {clean(str(shown.node_data))}", err=True
        )
    if shown.page is not None:
        from ..comparison.html import write_comparison

        write_comparison(found, shown.page)
        typer.echo(f"Written: {clean(str(shown.page))}", err=True)
