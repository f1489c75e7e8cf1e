"""What `perimetry train` shows meanwhile: a bar with the time left; plain lines off a terminal."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .experiment import TrainingRun


class TrainingProgress:
    """Follows `total` runs on standard error. Use as a context manager; `report` takes shares."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        columns = (
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.1f}/{task.total:.0f} twins,"),
            TimeRemainingColumn(),
            TextColumn("left; {task.description}", markup=False),
        )
        self._bars = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal
        )
        self._total = total
        self._task = self._bars.add_task("starting", total=total)
        self._begun = time.monotonic()
        self._order: list[TrainingRun] = []
        self._gained = 0.0
        self._at = 0.0

    def __enter__(self) -> TrainingProgress:
        """Show the bar."""
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Take the bar away."""
        self._bars.stop()

    def report(self, twin: TrainingRun, share: float) -> None:
        """Show that `share` of a run is done."""
        begins = twin not in self._order
        if begins:
            self._order.append(twin)
        done = len(self._order) - 1 + share
        self._bars.update(self._task, completed=done, description=twin.label)
        if begins and not self._console.is_terminal:
            self._console.print(f"{self._left(done)}  {twin.label}", soft_wrap=True)

    def _left(self, done: float) -> str:
        """Time since the beginning, and what is left at this pace."""
        spent = time.monotonic() - self._begun
        if done < 1:
            return f"{spent:7.0f} s"
        return f"{spent:7.0f} s, about {spent / done * (self._total - done):.0f} s left"
