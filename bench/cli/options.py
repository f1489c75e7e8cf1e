"""What the command line's parts share: options, and how errors and problems are told."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from ...adapters.errors import PerimetryError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


FAILED = 1
"""Exit code when some record failed, or the command could not be carried out."""


WIDTH = 96
"""Columns where there is no terminal to ask."""


Inputs = Annotated[
    list[str] | None,
    typer.Option(
        "--input",
        metavar="KEY=VALUE",
        help="What an ONNX file leaves to guess: size, layout, range, dtype, channel_order, mean, "
        "std, image (which input), fixed.NAME (value of another one).",
    ),
]


Output = Annotated[
    str | None,
    typer.Option(help="Output of ONNX files to audit.", show_default="the first like logits"),
]


Images = Annotated[str, typer.Option(help="dead-leaves, noise, or a folder.")]


FitImages = Annotated[
    str,
    typer.Option(help="What kernel padding fit sees: dead-leaves, or a folder of other images."),
]


Count = Annotated[int, typer.Option(min=1, help="How many images.")]


Seed = Annotated[int, typer.Option(help="Seed of everything random.")]


Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda (every GPU), or names such as cuda:0,cuda:1.")
]


PANELS = {
    "Models": "family exclude limit shard members target size inputs output",
    "Measurement": "suite kernel_padding fill fit_images images count seed setting precision "
    "recalibrate forward_only",
    "Machine": "device batch workers time_limit memory_limit retries engine address",
    "Output": "out dry_run keep_failed",
}
"""Where the options of a command that has many stand in its help, by parameter."""


class Grouped(TyperCommand):
    """A command whose help has its options in `PANELS`."""

    def __init__(self, name: str | None, **given: Any) -> None:
        super().__init__(name, **given)
        panels = {name: panel for panel, names in PANELS.items() for name in names.split()}
        order = list(panels)
        self.params.sort(key=lambda p: order.index(p.name) if p.name in panels else -1)
        for parameter in self.params:
            if parameter.name in panels:
                parameter.rich_help_panel = panels[parameter.name]  # type: ignore[attr-defined]


@contextmanager
def report_errors(code: int = FAILED) -> Iterator[None]:
    """Turn an expected error into one line on standard error and an exit code."""
    from ..output.text import clean

    try:
        yield
    except (PerimetryError, OSError) as error:
        typer.echo(f"perimetry: {clean(str(error), 2000)}", err=True)
        raise typer.Exit(code) from error


def warn_unreadable(problems: Iterable[str]) -> None:
    """Say on standard error which files were left out, and why."""
    from ..output.text import clean

    for problem in problems:
        typer.echo(f"perimetry: left out: {clean(problem)}", err=True)


def width() -> int:
    """Columns of the terminal."""
    return shutil.get_terminal_size((WIDTH, 24)).columns
