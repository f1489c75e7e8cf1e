"""Commands that compare: `perimetry compare`, `check`, `verify`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import typer

from ...adapters.errors import InputError
from .options import (
    UNMEASURED,
    MachineOptions,
    MeasuredInputs,
    StoredOptions,
    Workers,
    names_of,
    option_groups,
    report_errors,
    warn_unreadable,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..comparison.compare import Comparison
    from ..comparison.result import Pair
    from ..execution.settings import Settings
    from ..regression.check import RegressionCheck
    from ..regression.tolerances import Tolerances


app = typer.Typer()


class ReportFormat(StrEnum):
    """Formats of the report of a check."""

    text = "text"
    md = "md"
    json = "json"


class ComparisonFormat(StrEnum):
    """Formats of a comparison."""

    table = "table"
    md = "md"
    json = "json"


ReportForm = Annotated[ReportFormat, typer.Option("--format", help="Output format.")]


JUnitFile = Annotated[Path | None, typer.Option(help="JUnit XML file to write.")]


TolerancesFile = Annotated[
    Path | None, typer.Option(help="TOML file with tolerances; see docs/regression.md.")
]


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
        typer.Option(metavar="A B", help="Also show all metrics of this pair, by the names shown."),
    ] = None
    pairs: Annotated[bool, typer.Option("--pairs", help="Also show every pair.")] = False
    form: Annotated[ComparisonFormat, typer.Option("--format", help="Output format.")] = (
        ComparisonFormat.table
    )
    every: Annotated[
        bool, typer.Option("--all", help="Show all metrics, also those that do not differ.")
    ] = False
    maps: Annotated[
        Path | None, typer.Option(help="Folder to draw difference maps into, as PNG.")
    ] = None
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
            help="With the nodes, what each layer of the first model, a float ONNX file, costs if "
            "it alone is in eight bits.",
        ),
    ] = False
    node_data: Annotated[
        Path | None,
        typer.Option(help="Folder to write the nodes into, as node data of Model Explorer."),
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
        typer.echo(
            json.dumps(placement_to_json(found), indent=1)
            if as_json
            else placement_to_text(found, width()),
            nl=as_json,
        )


@app.command()
@option_groups
def check(
    baseline: Annotated[
        Path, typer.Option(help="Folder or packed file with the records to compare with.")
    ],
    stored: StoredOptions,
    machine: MachineOptions,
    *,
    workers: Workers = 1,
    inputs: MeasuredInputs = None,
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="Models to check.", show_default="all of the baseline"),
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="Name of the model in the baseline, if it differs.")
    ] = None,
    tolerances: TolerancesFile = None,
    form: ReportForm = ReportFormat.text,
    junit: JUnitFile = None,
    measure_noise: Annotated[
        bool,
        typer.Option(
            "--measure-noise", help="Also store noise floor and fingerprint in the baseline."
        ),
    ] = False,
    accept: Annotated[
        bool,
        typer.Option(
            "--accept",
            help="Make what the models are now the baseline: replace their records, fingerprints "
            "and noise floors in one step, and say what changed.",
        ),
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove the named models from the baseline.")
    ] = False,
) -> None:
    """Check models for regressions. 0: none significant, 1: regression, 2: not measured."""
    with report_errors(UNMEASURED):
        found = _checked(
            baseline,
            references or (),
            tolerances=tolerances,
            name=as_,
            action=_action(measure_noise=measure_noise, accept=accept, drop=drop),
            **stored.rerun_fields(machine, workers, inputs),
        )
        _report(found, junit, form)
    raise typer.Exit(found.verdict.value)


def _action(**asked: bool) -> str:
    """The one action that is asked for. Raises `InputError` for several."""
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        raise InputError(f"{options} were given; expected at most one of them")
    return names[0] if names else "check"


def _checked(
    baseline: Path, references: Sequence[str], *, tolerances: Path | None, **options: Any
) -> RegressionCheck:
    """What the check found; an error of any kind is a finding too, and not a verdict on a model."""
    try:
        from ..regression.check import check

        return check(baseline, *references, tolerances=_tolerances(tolerances), **options)
    except (Exception, KeyboardInterrupt) as error:
        from ..regression.check import failed_check

        return failed_check(baseline, error)


def _verified(folder: Path, *, tolerances: Path | None, **options: Any) -> RegressionCheck:
    """What `verify` found, as a check; an error of any kind is a finding too."""
    try:
        from ..regression.reproduce import reproduce

        return reproduce(folder, tolerances=_tolerances(tolerances), **options).report()
    except (Exception, KeyboardInterrupt) as error:
        from ..regression.check import Words, failed_check

        return failed_check(folder, error, Words("verify", "set"))


def _report(found: RegressionCheck, junit: Path | None, form: ReportFormat) -> None:
    """Write the report in all its forms; one that cannot be written does not stop the others."""
    from ..output.files import write_text
    from ..regression.report import (
        check_to_json,
        check_to_markdown,
        check_to_text,
        on_github,
        to_junit,
    )

    try:
        if junit is not None:
            write_text(junit, to_junit(found))
    finally:
        for line in on_github(found):
            typer.echo(line, err=form is not ReportFormat.text)
        if form is ReportFormat.text:
            typer.echo(check_to_text(found, width()), nl=False)
        else:
            write = check_to_json if form is ReportFormat.json else check_to_markdown
            typer.echo(write(found), nl=False)


@app.command()
@option_groups
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="Folder or packed file with published records.")
    ],
    stored: StoredOptions,
    machine: MachineOptions,
    *,
    workers: Workers = 1,
    sample: Annotated[
        int | None,
        typer.Option(min=1, help="Number of model variants to measure.", show_default="all"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed that selects the sample.")] = 0,
    tolerances: TolerancesFile = None,
    form: ReportForm = ReportFormat.text,
    junit: JUnitFile = None,
) -> None:
    """Reproduce a published result set. 0: reproduced, 1: not reproduced, 2: not measured."""
    with report_errors(UNMEASURED):
        found = _verified(
            folder,
            sample=sample,
            seed=seed,
            tolerances=tolerances,
            **stored.rerun_fields(machine, workers),
        )
        _report(found, junit, form)
    raise typer.Exit(found.verdict.value)


def _tolerances(path: Path | None) -> Tolerances:
    """The tolerances in the file at `path`, or the defaults."""
    from ..regression.tolerances import Tolerances, read_tolerances

    return read_tolerances(path) if path else Tolerances()


def _shown(found: Comparison, shown: ShownOptions) -> str:
    """A comparison in one of its formats."""
    if shown.form is ComparisonFormat.json:
        return json.dumps(found.data(), indent=1, allow_nan=False) + "\n"
    pairs: tuple[Pair, ...] | None = None
    if shown.pairs:
        pairs = found.pairs
    elif shown.pair is not None:
        pairs = (found.pair(*shown.pair),)
    elif shown.nodes or shown.one_at_a_time:
        pairs = tuple(pair for pair in found.pairs if pair.nodes is not None)
    if shown.form is ComparisonFormat.md:
        return found.markdown(every=shown.every, pairs=pairs)
    return found.text(width=width(), every=shown.every, pairs=pairs)


def _write(found: Comparison, shown: ShownOptions) -> None:
    """Write pictures and the page, if asked for."""
    from ..output.text import clean

    if shown.maps is not None:
        from ..comparison.maps import draw_differences

        drawn = draw_differences(found, shown.maps)
        typer.echo(f"Written: {len(drawn)} pictures in {clean(str(shown.maps))}", err=True)
    if shown.node_data is not None:
        from ..comparison.node_report import write_node_data

        paths = write_node_data(found, shown.node_data)
        typer.echo(f"Written: {len(paths)} files in {clean(str(shown.node_data))}", err=True)
    if shown.page is not None:
        from ..comparison.html import write_comparison

        write_comparison(found, shown.page)
        typer.echo(f"Written: {clean(str(shown.page))}", err=True)
