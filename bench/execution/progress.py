"""The progress of a run: a bar on a terminal, a line for each variant elsewhere.

Both say how many of all records are made, the time spent, and about how much is left: the time that
the records so far took, times what is left by the costs of `cost`.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING

from ..output.progress_bar import ProgressBar
from ..output.text import clean
from .cost import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .engines.base import Event
    from .plan import Job


NAME_WIDTH = 40

FIXED_S = 0.5
"""Seconds of a record that do not grow with its model: opening it, compiling, writing."""

ENOUGH = 0.02
"""The share of the costs that must be done before the rest is estimated."""


class Progress(ProgressBar):
    """Counts the records of `jobs` on standard error. Use as a context manager.

    `report` takes events; `count` is the number of images.
    """

    def __init__(self, jobs: Sequence[Job], count: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        text = TextColumn("{task.description}", markup=False)
        self._total = sum(len(job.cells) for job in jobs)
        super().__init__(self._total, (BarColumn(bar_width=24), MofNCompleteColumn(), text))
        self._costs = {
            cell.key: FIXED_S + seconds(job.reference, job.fill, [cell.suite], count)
            for job in jobs
            for cell in job.cells
        }
        self._done, self._made = 0.0, 0
        self._started = time.monotonic()
        _begun()

    def report(self, event: Event) -> None:
        """Show one event."""
        variant = f"{clean(event.job.reference, NAME_WIDTH)} ({event.job.fill})"
        if event.cell is not None:
            self._made += 1
            self._done += self._costs.get(event.cell.key, 0.0)
            self.bars.advance(self.task)
            if event.what == "failed":
                self.console.print(f"failed: {variant} {event.cell.suite}:{event.cell.protocol}")
        elif event.what == "stage":
            self.bars.update(self.task, description=f"{self.times()}  {variant} {event.stage}")
        elif event.what == "begin":
            self.line(f"{self._made:5} of {self._total} records  {self.times()}  {variant}")

    def times(self) -> str:
        """The time since the beginning, and about the time that is left of this round."""
        spent = time.monotonic() - self._started
        text = duration(time.monotonic() - _begun())
        whole = sum(self._costs.values())
        if self._done < ENOUGH * whole:
            return text
        return f"{text}, about {duration(spent * (whole / self._done - 1))} left"


def duration(spent: float) -> str:
    """Seconds as `40 s`, `12 min` or `3 h 05 min`."""
    if spent < 100:
        return f"{spent:.0f} s"
    minutes = round(spent / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02d} min"


@cache
def _begun() -> float:
    """When the first bar of the command began: a command may show several, one after another."""
    return time.monotonic()
