"""The progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from ..output.progress_bar import ProgressBar
from ..output.text import clean

if TYPE_CHECKING:
    from .engines.base import Event


NAME_WIDTH = 40


class Progress(ProgressBar):
    """Counts `total` records on standard error. Use as a context manager; `report` takes events."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

        text = TextColumn("{task.description}", markup=False)
        columns = (BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn(), text)
        super().__init__(total, columns)
        _begun()

    def report(self, event: Event) -> None:
        """Show one event."""
        variant = f"{clean(event.job.reference, NAME_WIDTH)} ({event.job.fill})"
        if event.what == "stage":
            self.bars.update(self.task, description=f"{variant} {event.stage}")
        elif event.what == "begin":
            self.line(f"{time.monotonic() - _begun():7.1f} s  {variant}")
        elif event.cell is not None:
            self.bars.advance(self.task)
            if event.what == "failed":
                self.console.print(f"failed: {variant} {event.cell.suite}:{event.cell.protocol}")


@cache
def _begun() -> float:
    """When the first bar of the command began: a command may show several, one after another."""
    return time.monotonic()
