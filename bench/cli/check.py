"""Commands that pass or fail: `perimetry check`, `verify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ...adapters.errors import InputError
from .groups import option_groups
from .options import (
    UNMEASURED,
    MachineOptions,
    MeasuredInputs,
    StoredOptions,
    Workers,
    report_errors,
    width,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..regression.result import RegressionCheck
    from ..regression.tolerances import Tolerances


app = typer.Typer()


@dataclass(frozen=True)
class ReportOptions:
    """What may change, and the forms of the report."""

    tolerances: Annotated[
        Path | None, typer.Option(help="TOML file with tolerances; see docs/regression.md.")
    ] = None
    form: Annotated[
        Literal["text", "md", "json"], typer.Option("--format", help="Output format.")
    ] = "text"
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.")] = None

    def allowed(self) -> Tolerances:
        """The tolerances in the file, or the defaults."""
        from ..regression.tolerances import Tolerances, read_tolerances

        return read_tolerances(self.tolerances) if self.tolerances else Tolerances()

    def write(self, found: RegressionCheck) -> None:
        """Write the report; a form that cannot be written does not stop the others."""
        from ..output.files import write_text
        from ..regression import report

        try:
            if self.junit is not None:
                write_text(self.junit, report.to_junit(found))
        finally:
            for line in report.on_github(found):
                typer.echo(line, err=self.form != "text")
            if self.form == "text":
                typer.echo(report.check_to_text(found, width()), nl=False)
            else:
                is_json = self.form == "json"
                write = report.check_to_json if is_json else report.check_to_markdown
                typer.echo(write(found), nl=False)


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
    report: ReportOptions,
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
            help="Accept the models as they are now: replace their records, fingerprints and noise "
            "floors in the baseline in one step, and report what changed.",
        ),
    ] = False,
    drop: Annotated[
        bool, typer.Option("--drop", help="Remove the named models from the baseline.")
    ] = False,
) -> None:
    """Check models for regressions. 0: none significant, 1: regression, 2: not measured."""
    with report_errors(UNMEASURED):
        action = _action(measure_noise=measure_noise, accept=accept, drop=drop)
        fields = stored.rerun_fields(machine, workers, inputs)

        def measure() -> RegressionCheck:
            from ..regression.check import check as measured

            chosen = report.allowed()
            return measured(
                baseline, *(references or ()), tolerances=chosen, name=as_, action=action, **fields
            )

        found = _tried(measure, baseline, "check", "baseline")
        report.write(found)
    raise typer.Exit(found.verdict.value)


def _action(**asked: bool) -> Any:
    """The one action that is asked for. Raises `InputError` for several."""
    names = [name for name, wanted in asked.items() if wanted]
    if len(names) > 1:
        options = " and ".join(f"--{name.replace('_', '-')}" for name in names)
        raise InputError(f"{options} were given; expected at most one of them")
    return names[0] if names else "check"


def _tried(
    measure: Callable[[], RegressionCheck], place: Path, command: str, kind: str
) -> RegressionCheck:
    """What `measure` finds; an error of any kind is a finding too, and not a verdict on a model."""
    try:
        return measure()
    except (Exception, KeyboardInterrupt) as error:
        from ..regression.result import Words, failed_check

        return failed_check(place, error, Words(command, kind))


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
    imported: Annotated[
        Path | None,
        typer.Option(help="Folder with the files that imported records were read from."),
    ] = None,
    report: ReportOptions,
) -> None:
    """Reproduce a published result set. 0: reproduced, 1: not reproduced, 2: not measured."""
    with report_errors(UNMEASURED):
        fields = stored.rerun_fields(machine, workers)

        def measure() -> RegressionCheck:
            from ..regression.reproduce import reproduce

            chosen = report.allowed()
            return reproduce(
                folder,
                sample=sample,
                seed=seed,
                tolerances=chosen,
                imported=imported,
                **fields,
            )

        found = _tried(measure, folder, "verify", "set")
        report.write(found)
    raise typer.Exit(found.verdict.value)
