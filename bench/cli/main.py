"""The command line: `perimetry`, with the commands of the files beside this one."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from . import compare, installation, run, train, view

app = typer.Typer(
    help="Visual-field tests for vision models: receptive fields and dead pixels, ranked.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _version(wanted: bool) -> None:
    if wanted:
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
    "Look at records": (view.app,),
    "Compare": (compare.app,),
    "This installation": (installation.app,),
}


for panel, parts in PANELS.items():
    for part in parts:
        for command in part.registered_commands:
            command.rich_help_panel = panel
        app.add_typer(part)


def main() -> None:
    """Run the command line.

    OpenMP threads sleep while they wait, here and in the workers, unless the environment says
    otherwise: spinning threads would take the cores of a shared machine from one another.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
