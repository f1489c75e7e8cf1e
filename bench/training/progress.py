"""The progress of `perimetry train`: a bar with the remaining time, or plain lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .experiment import TrainingRun


class TrainingProgress:
    """Shows `total` runs on standard error. Use as a context manager; `report` takes shares."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        columns = (
            BarColumn(bar_width=24),
            TextColumn("{task.completed:.1f}/{task.total:.0f} runs,"),
            TimeRemainingColumn(),
            TextColumn("left; {task.description}", markup=False),
        )
        self._bars = Progress(
            *columns, console=self._console, disable=not self._console.is_terminal
        )
        self._total = total
        self._task = self._bars.add_task("starting", total=total)
        self._begun = time.monotonic()
        self._seen: list[TrainingRun] = []
        self._gained = 0.0
        self._at = 0.0

    def __enter__(self) -> TrainingProgress:
        """Show the bar."""
        self._bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Remove the bar."""
        self._bars.stop()

    def report(self, run: TrainingRun, share: float) -> None:
        """Show that `share` of a run is done."""
        begins = run not in self._seen
        if begins:
            self._seen.append(run)
        done = len(self._seen) - 1 + share
        self._bars.update(self._task, completed=done, description=run.label)
        if begins and not self._console.is_terminal:
            self._console.print(f"{self._left(done)}  {run.label}", soft_wrap=True)

    def _left(self, done: float) -> str:
        """The time since the beginning, and the remaining time at this pace."""
        spent = time.monotonic() - self._begun
        if done < 1:
            return f"{spent:7.0f} s"
        return f"{spent:7.0f} s, about {spent / done * (self._total - done):.0f} s left"
