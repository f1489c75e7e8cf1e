"""The command that measures speed: `perimetry bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .cli_common import Device, told
from .devices import BATCH, BENCH_IMAGES

app = typer.Typer()


@app.command("bench")
def bench_(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REF]...", help="Models.", show_default="three of timm's"),
    ] = None,
    suite: Annotated[
        str | None, typer.Option(help="Comma-separated.", show_default="those of `run`, and more")
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            min=2,
            help="How many images.",
            show_default=f"{BENCH_IMAGES['cpu']} on the CPU, {BENCH_IMAGES['cuda']} on a GPU",
        ),
    ] = None,
    device: Device = "auto",
    batch: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Images a pass.",
            show_default=f"{BATCH['cpu']} on the CPU, {BATCH['cuda']} on a GPU",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns each job takes; the best counts.")] = 2,
    quick: Annotated[
        bool, typer.Option("--quick", help="One small model, three suites, four images.")
    ] = False,
    markdown: Annotated[
        Path | None, typer.Option(help="File to write between its marks too, or anew.")
    ] = None,
) -> None:
    """Measure this machine: time and memory of the suites, overhead, rivals, physical floor."""
    from . import speed_report as report
    from .devices import default_batch, devices
    from .plan import parse_suites
    from .speed_page import write

    models, suites, images = report.QUICK if quick else (report.MODELS, report.SUITES, None)
    with told():
        from ..suites.registry import SUITES

        place = devices(device)[0]
        images = count or images or BENCH_IMAGES[place.partition(":")[0]]
        names = suite.split(",") if suite else suites
        found = report.measure(
            references or models,
            [name for name, _ in parse_suites(names, SUITES)],
            device=place,
            count=images,
            batch=batch or default_batch(place),
            rounds=rounds,
            say=lambda text: typer.echo(text, err=True),
        )
        text = report.render(found)
        typer.echo(text, nl=False)
        if markdown is not None:
            write(markdown, place, text)
            typer.echo(f"Written: {markdown}", err=True)
