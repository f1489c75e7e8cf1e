"""The progress of `perimetry train`: a bar with the remaining time, or plain lines."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..output.progress_bar import ProgressBar

if TYPE_CHECKING:
    from .experiment import TrainingRun


class TrainingProgress(ProgressBar):
    """Shows `total` runs on standard error. Use as a context manager; `report` takes shares."""

    def __init__(self, total: int) -> None:
        from rich.progress import BarColumn, TextColumn, TimeRemainingColumn

        count = TextColumn("{task.completed:.1f}/{task.total:.0f} runs,")
        text = TextColumn("left; {task.description}", markup=False)
        super().__init__(total, (BarColumn(bar_width=24), count, TimeRemainingColumn(), text))
        self._total = total
        self._begun = time.monotonic()
        self._seen: list[TrainingRun] = []

    def report(self, run: TrainingRun, share: float) -> None:
        """Show that `share` of a run is done."""
        begins = run not in self._seen
        if begins:
            self._seen.append(run)
        done = len(self._seen) - 1 + share
        self.bars.update(self.task, completed=done, description=run.label)
        if begins:
            self.line(f"{self._left(done)}  {run.label}")

    def _left(self, done: float) -> str:
        """The time since the beginning, and the remaining time at this pace."""
        spent = time.monotonic() - self._begun
        if done < 1:
            return f"{spent:7.0f} s"
        return f"{spent:7.0f} s, about {spent / done * (self._total - done):.0f} s left"
