"""The command line: `perimetry`, with the commands of the files beside this one.

`start.main` runs it.
"""

from __future__ import annotations

from typing import Annotated

import typer

from . import board, check, compare, installation, listing, report, run, train
from .start import main

__all__ = ["app", "main"]

app = typer.Typer(
    help="Visual-field tests for vision models: receptive fields and dead pixels, ranked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        typer.echo(f"perimetry {metadata.version('perimetry')}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Accept the options before a command."""
    del version


PANELS = {
    "Measure": (run.app, train.app),
    "Look at records": (board.app, report.app, listing.app),
    "Compare": (compare.app, check.app),
    "This installation": (installation.app,),
}


for panel, parts in PANELS.items():
    for part in parts:
        for command in part.registered_commands:
            command.rich_help_panel = panel
        app.add_typer(part)
