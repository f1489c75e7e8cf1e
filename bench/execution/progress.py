"""The progress of a run: a bar on a terminal, a line for each variant elsewhere.

Both say how many of all records are made, the time spent, and about how much is left: the time that
the records so far took, times what is left by the costs of `cost`.
"""

from __future__ import annotations

import time
from functools import cache
from typing import TYPE_CHECKING, Self

from ..output.text import clean
from .cost import seconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import ProgressColumn

    from .engines.base import Event
    from .plan import Job


class ProgressBar:
    """A bar with `columns` of rich that counts to `total`. Use as a context manager.

    It is on standard error; off a terminal only its lines are shown.
    """

    def __init__(self, total: int, columns: Sequence[ProgressColumn]) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        hidden = not self.console.is_terminal
        self.bars = Progress(*columns, console=self.console, disable=hidden)
        self.task = self.bars.add_task("starting", total=total)
        self._started = time.monotonic()
        _begun()

    def __enter__(self) -> Self:
        """Show the bar."""
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self.bars.stop()

    def line(self, text: str) -> None:
        """Print a line, if there is no terminal for a bar."""
        if not self.console.is_terminal:
            self.console.print(text, soft_wrap=True)

    def times(self, share: float) -> str:
        """The time since the beginning, and about the time left where `share` of all is done."""
        text = duration(time.monotonic() - _begun())
        if share < ENOUGH:
            return text
        spent = time.monotonic() - self._started
        return f"{text}, about {duration(spent * (1 / share - 1))} left"


NAME_WIDTH = 40

FIXED_S = 0.5
"""Seconds of a record that do not grow with its model: opening it, compiling, writing."""

ENOUGH = 0.02
"""The share of the costs that must be done before the rest is estimated."""


class Progress(ProgressBar):
    """Counts the records of `jobs`; `report` takes events; `count` is the number of images."""

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

    def report(self, event: Event) -> None:
        """Show one event."""
        variant = f"{clean(event.job.reference, NAME_WIDTH)} ({event.job.fill})"
        times = self.times(self._done / sum(self._costs.values()))
        if event.cell is not None:
            self._made += 1
            self._done += self._costs.get(event.cell.key, 0.0)
            self.bars.advance(self.task)
            if event.what == "failed":
                self.console.print(f"failed: {variant} {event.cell.suite}:{event.cell.protocol}")
        elif event.what == "stage":
            self.bars.update(self.task, description=f"{times}  {variant} {event.stage}")
        elif event.what == "begin":
            self.line(f"{self._made:5} of {self._total} records  {times}  {variant}")


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
