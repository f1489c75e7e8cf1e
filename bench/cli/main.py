"""The command line: `perimetry`, with the commands of the files `cli_*`."""

from __future__ import annotations

import os
import sys
from importlib import metadata
from typing import Annotated

import typer

from .compare import app as trust
from .installation import app as itself
from .run import app as runs
from .train import app as training
from .view import app as views

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
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
) -> None:
    """Take the options that stand before a command."""
    del version


PANELS = {
    "Measure": (runs, training),
    "Look at records": (views,),
    "Compare": (trust,),
    "This installation": (itself,),
}


for panel, parts in PANELS.items():
    for part in parts:
        for command in part.registered_commands:
            command.rich_help_panel = panel
        app.add_typer(part)


def main() -> None:
    """Run the command line.

    OpenMP's threads are told to sleep while they wait, here and in the workers, unless the user
    says otherwise: spinning, they take a shared machine's cores from one another.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    app()
