"""Commands about this installation: `perimetry doctor`, `bench`, `schema`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import typer

from ..execution.settings import BENCH_IMAGES
from .groups import option_groups
from .options import MachineOptions, names_of, report_errors, width

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..speed.report import BenchmarkPlan


app = typer.Typer()


@app.command()
def doctor() -> None:
    """Check this installation: versions, devices, conflicts, known answers. 0: good, 1: broken."""
    from ..doctor import examine, health_to_text

    checks = examine()
    typer.echo(health_to_text(checks, width()), nl=False)
    raise typer.Exit(int(any(check.status == "broken" for check in checks)))


@dataclass(frozen=True)
class BenchOptions:
    """What to measure, and how often."""

    PANEL: ClassVar[str] = "Measurement"
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="Comma-separated suites. Repeatable.", show_default="those of `run`, and more"
        ),
    ] = None
    count: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="Number of images.",
            show_default=f"{BENCH_IMAGES['cpu']} on the CPU, {BENCH_IMAGES['cuda']} on a GPU",
        ),
    ] = None
    rounds: Annotated[
        int, typer.Option(min=1, help="Repetitions per job; the fastest is reported.")
    ] = 2
    quick: Annotated[
        bool,
        typer.Option("--quick", help="Measure one small model, three suites and four images only."),
    ] = False

    def plan(self, references: Sequence[str] | None, machine: MachineOptions) -> BenchmarkPlan:
        """What to measure where. Raises `InputError` and `UnknownNameError`."""
        from ...suites.registry import SUITES
        from ..execution.plan import parse_suites
        from ..execution.settings import default_batch, devices
        from ..speed import report

        models, suites, images = (
            report.QUICK if self.quick else (report.MODELS, report.SUITES, None)
        )
        place = devices(machine.device)[0]
        names = parse_suites(names_of(self.suite, suites), SUITES)
        return report.BenchmarkPlan(
            references or models,
            [name for name, _ in names],
            place,
            self.count or images or BENCH_IMAGES[place.partition(":")[0]],
            machine.batch or default_batch(place),
            self.rounds,
        )


@app.command("bench")
@option_groups
def bench_(
    machine: MachineOptions,
    options: BenchOptions,
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="Models to measure.", show_default="three of timm's"),
    ] = None,
    markdown: Annotated[
        Path | None,
        typer.Option(help="Markdown file to update between its markers (created if missing)."),
    ] = None,
) -> None:
    """Measure time and memory of the suites on this machine, and compare with its roofline."""
    from ..execution.engines.process import call_bounded
    from ..execution.identities import check_references
    from ..output.text import clean
    from ..speed import report
    from ..speed.tables import render_speed

    with report_errors():
        plan = options.plan(references, machine)
        limit = machine.time_limit * len(plan.references)
        run = replace(machine.run_options(), device=plan.device, time_limit_s=limit or None)
        for fault in check_references(plan.references, run):
            typer.echo(f"perimetry: {clean(fault, 2000)}", err=True)
        work = partial(report.measure, plan, log=partial(typer.echo, err=True))
        found = call_bounded(work, run, log=False)
        text = render_speed(found)
        typer.echo(text, nl=False)
        if markdown is not None:
            report.write_report(markdown, plan.device, text)
            typer.echo(f"Written: {markdown}", err=True)


@app.command()
def schema(
    out: Annotated[
        Path | None, typer.Option(help="File to write.", show_default="print it")
    ] = None,
) -> None:
    """Print the JSON schema of a record, as published in docs/record.schema.json."""
    from ..output.files import write_text
    from ..records.record import schema_text

    if out is None:
        typer.echo(schema_text(), nl=False)
        return
    with report_errors():
        write_text(out, schema_text())
        typer.echo(f"Written: {out}")
