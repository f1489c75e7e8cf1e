"""A progress bar on standard error; off a terminal only its lines are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.progress import ProgressColumn


class ProgressBar:
    """A bar with `columns` of rich that counts to `total`. Use as a context manager."""

    def __init__(self, total: int, columns: Sequence[ProgressColumn]) -> None:
        from rich.console import Console
        from rich.progress import Progress

        self.console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        hidden = not self.console.is_terminal
        self.bars = Progress(*columns, console=self.console, disable=hidden)
        self.task = self.bars.add_task("starting", total=total)

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
