"""Commands that compare: `perimetry compare`, `check`, `verify`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import report_errors, warn_unreadable, width

if TYPE_CHECKING:
    from ..comparison.compare import Comparison
    from ..execution.run_options import RunOptions
    from ..regression.tolerances import Tolerances


UNMEASURED = 2
"""Exit code when there is nothing to judge by."""


app = typer.Typer()


class Form(StrEnum):
    """Forms of a comparison."""

    table = "table"
    md = "md"
    json = "json"


Device = Annotated[str, typer.Option(help="auto, cpu, cuda, or a name such as cuda:0.")]


Batch = Annotated[int | None, typer.Option(min=1, help="Images a pass.", show_default="by device")]


Limit = Annotated[float, typer.Option(min=0, help="Seconds a model may take; 0 for no limit.")]


Where = Annotated[
    list[str] | None,
    typer.Option(help="Only stored records with KEY=VALUE, such as seed=0 or model=PATTERN."),
]


Bounds = Annotated[Path | None, typer.Option(help="TOML file with bounds; see docs/regression.md.")]


Photographs = Annotated[
    str | None,
    typer.Option("--images", help="Where the folder is that stored records were made on."),
]


Fitted = Annotated[
    str | None,
    typer.Option("--fit-images", help="Where the folder is that kernel padding fit saw."),
]


@app.command()
def compare(
    sides: Annotated[
        list[str],
        typer.Argument(metavar="A B", help="DIR, DIR:MODEL or REF; ...+FILL for kernel padding."),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            help="Suites for models that are audited now.", show_default="those of stored ones"
        ),
    ] = None,
    form: Annotated[Form, typer.Option("--format", help="How to print it.")] = Form.table,
    every: Annotated[
        bool, typer.Option("--all", help="All metrics, also where none differ.")
    ] = False,
    maps: Annotated[
        Path | None, typer.Option(help="Folder to draw difference maps into, as PNG.")
    ] = None,
    page: Annotated[Path | None, typer.Option("--html", help="HTML page to write too.")] = None,
    stages: Annotated[
        bool, typer.Option(help="Open the models to see at which stage twins part.")
    ] = True,
    force: Annotated[
        bool, typer.Option("--force", help="Compare unlike settings, images or preprocessing too.")
    ] = False,
    images: Photographs = None,
    fit_images: Fitted = None,
    count: Annotated[
        int, typer.Option(min=1, help="Images, where nothing stored says how many.")
    ] = 16,
    seed: Annotated[int, typer.Option(help="Seed, where nothing stored says which.")] = 0,
    where: Where = None,
    device: Device = "auto",
    batch: Batch = None,
    time_limit: Limit = 1800,
) -> None:
    """Set models side by side: every one against the first, paired image by image."""
    with report_errors():
        from ..comparison.compare import compare as make
        from ..execution.settings import FIT_DEFAULT, Settings

        found = make(
            *sides,
            suites=suite.split(",") if suite else None,
            settings=Settings(
                images=images or "dead-leaves",
                count=count,
                seed=seed,
                fit_images=fit_images or FIT_DEFAULT,
            ),
            where=where or (),
            images=images,
            fit_images=fit_images,
            force=force,
            stages=stages,
            run=tools(device, batch, time_limit),
        )
        warn_unreadable(found.problems)
        typer.echo(_shown(found, form, every=every), nl=False)
        if maps is not None:
            _draw(found, maps)
        if page is not None:
            from ..comparison.html import write_comparison

            write_comparison(found, page)
            typer.echo(f"Written: {page}", err=True)


@app.command()
def check(
    baseline: Annotated[Path, typer.Option(help="Folder or packed file to hold models against.")],
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="Models to check.", show_default="all of the baseline"),
    ] = None,
    as_: Annotated[
        str | None, typer.Option("--as", help="What the one model given is called in the baseline.")
    ] = None,
    tolerances: Bounds = None,
    junit: Annotated[Path | None, typer.Option(help="JUnit XML file to write.")] = None,
    measure_noise: Annotated[
        bool,
        typer.Option("--measure-noise", help="Store noise floor and fingerprint in the baseline."),
    ] = False,
    images: Photographs = None,
    fit_images: Fitted = None,
    where: Where = None,
    device: Device = "auto",
    batch: Batch = None,
    time_limit: Limit = 1800,
) -> None:
    """Regression gate: exit code 0 not shown to differ, 1 regressed, 2 could not measure."""
    with report_errors(UNMEASURED):
        from ..output.files import write_text
        from ..regression import check as gate
        from ..regression.report import check_to_text, on_github, to_junit

        found = gate.check(
            baseline,
            *(references or ()),
            tolerances=_bounds(tolerances),
            name=as_,
            where=where or (),
            images=images,
            fit_images=fit_images,
            run=tools(device, batch, time_limit),
            measure_noise=measure_noise,
        )
        warn_unreadable(found.problems)
        typer.echo(check_to_text(found, width()), nl=False)
        if junit is not None:
            write_text(junit, to_junit(found))
        for line in on_github(found):
            typer.echo(line)
    raise typer.Exit(found.verdict.value)


@app.command()
def verify(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder or packed file.")],
    sample: Annotated[
        int | None, typer.Option(min=1, help="Measure so many variants.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(help="Which ones are taken.")] = 0,
    tolerances: Bounds = None,
    images: Photographs = None,
    fit_images: Fitted = None,
    where: Where = None,
    device: Device = "auto",
    batch: Batch = None,
    time_limit: Limit = 1800,
) -> None:
    """Measure a published set again: exit code 0 it reproduces, 1 it does not, 2 not measurable."""
    with report_errors(UNMEASURED):
        from ..regression.reproduce import reproduce as again

        found = again(
            folder,
            sample=sample,
            seed=seed,
            where=where or (),
            images=images,
            fit_images=fit_images,
            tolerances=_bounds(tolerances),
            run=tools(device, batch, time_limit),
        )
        typer.echo(found.text(width()), nl=False)
    raise typer.Exit(found.exit_code)


def _bounds(path: Path | None) -> Tolerances:
    """The tolerances in the file at `path`, or the defaults."""
    from ..regression.tolerances import Tolerances, read_tolerances

    return read_tolerances(path) if path else Tolerances()


def tools(device: str, batch: int | None, limit_s: float) -> RunOptions:
    """Worker processes on the device asked for."""
    from ..execution.run_options import RunOptions

    return RunOptions(device, batch, time_limit_s=limit_s or None, isolated=True, progress=True)


def _shown(found: Comparison, form: Form, *, every: bool) -> str:
    """A comparison in one of its forms."""
    if form is Form.json:
        import json

        return json.dumps(found.cells(), indent=1, allow_nan=False) + "\n"
    if form is Form.md:
        return found.markdown(every=every)
    return found.text(width=width(), every=every)


def _draw(found: Comparison, folder: Path) -> None:
    from ..comparison.maps import draw_differences
    from ..output.text import clean

    drawn = draw_differences(found, folder)
    typer.echo(f"Drawn: {len(drawn)} pictures in {clean(str(folder))}", err=True)
