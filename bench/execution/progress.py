"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from ..output.text import clean

if TYPE_CHECKING:
    from .engines.base import Event


NAME_WIDTH = 40


class Progress:
    """Counts `total` records on standard error. Use as a context manager; `report` takes events."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        columns = (
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._bars = Bars(*columns, console=self._console, disable=not self._console.is_terminal)
        self._task = self._bars.add_task("starting", total=total)
        _begun()

    def __enter__(self) -> Progress:
        """Show the bar."""
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._bars.stop()

    def report(self, event: Event) -> None:
        """Show one event."""
        variant = f"{clean(event.job.reference, NAME_WIDTH)} ({event.job.fill})"
        if event.what == "stage":
            self._bars.update(self._task, description=f"{variant} {event.stage}")
        elif event.what == "begin":
            self._line(variant)
        elif event.cell is not None:
            self._bars.advance(self._task)
            if event.what == "failed":
                self._console.print(f"failed: {variant} {event.cell.suite}:{event.cell.protocol}")

    def _line(self, text: str) -> None:
        """Print which variant begins, if there is no bar."""
        if not self._console.is_terminal:
            self._console.print(f"{time.monotonic() - _begun():7.1f} s  {text}", soft_wrap=True)


@cache
def _begun() -> float:
    """When the command's first bar began: a command may show several, one after another."""
    return time.monotonic()
