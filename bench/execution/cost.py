"""How long measuring takes: an estimate for forecasts and the order, and the progress of a run.

The cost of `structure` is the time it took when all of timm was measured, that of image suites is
proportional to the operations of a forward pass; both are in `timm_costs.csv`, which
`results/timm-structure/costs.py` writes. Seconds are those of one CPU core. For a single model the
estimate may be wrong by a factor of three; what matters is that expensive models are recognised as
expensive.

Progress is a bar on a terminal, a line for each variant elsewhere. Both say how many of all records
are made, the time spent, and about how much is left: the time that the records so far took, times
what is left by the costs.
"""

from __future__ import annotations

import csv
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ...adapters.reference import Reference
from ..output.text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.progress import ProgressColumn

    from ..records.record import Record
    from .engines.base import Event
    from .plan import Job


TABLE = Path(__file__).parent / "timm_costs.csv"

S_PER_GFLOP = {
    "erf": 0.1,
    "deadpixel": 0.1,
    "fidelity": 0.25,
    "padding": 1.4,
    "perturbation": 2.0,
    "halo": 0.25,
    "output": 0.25,
    "shift": 6.0,
    "frequency": 0.1,
    "position": 0.5,
    "objects": 4.0,
}
"""Seconds an image and GFLOP of a forward pass: medians of `results/timm-init` and `trained`."""


class Cost(NamedTuple):
    """GFLOP of one forward pass; seconds of `structure` without and with kernel padding."""

    gflop: float
    structure_s: float
    padded_s: float


@cache
def cost_table() -> dict[str, Cost]:
    """Costs by timm architecture."""
    with TABLE.open(newline="", encoding="utf-8") as stream:
        rows = csv.reader(stream)
        next(rows)
        return {name: Cost(*map(float, numbers)) for name, *numbers in rows}


@cache
def typical() -> Cost:
    """The median of all architectures, for models that are not in the table."""
    columns = zip(*cost_table().values(), strict=True)
    return Cost(*(sorted(column)[len(cost_table()) // 2] for column in columns))


def cost_of(reference: str) -> Cost:
    """What is known of a model, by its reference."""
    parsed = Reference.parse_any(reference)
    return cost_table().get(parsed.name, typical()) if parsed.runtime == "timm" else typical()


def seconds(reference: str, fill: str, suites: Iterable[str], count: int) -> float:
    """Core seconds that `suites` take on one variant of a model, with `count` images."""
    cost = cost_of(reference)
    exact = cost.structure_s if fill == "none" else cost.padded_s
    return sum(
        exact if suite == "structure" else S_PER_GFLOP.get(suite, 0.1) * cost.gflop * count
        for suite in suites
    )


def job_seconds(job: Job, count: int) -> float:
    """Core seconds of a job."""
    return seconds(job.reference, job.fill, [cell.suite for cell in job.cells], count)


def most_expensive_first(jobs: Sequence[Job], count: int) -> list[Job]:
    """The same jobs, the models that take longest first; the variants of a model stay together.

    The last model is then a short one, and no worker waits long for another.
    """
    total: dict[str, float] = {}
    for job in jobs:
        total[job.reference] = total.get(job.reference, 0.0) + job_seconds(job, count)
    place = {reference: n for n, reference in enumerate(total)}
    return sorted(jobs, key=lambda job: (-total[job.reference], place[job.reference]))


def pace(records: Iterable[Record]) -> tuple[float, int]:
    """How many times slower this machine is, and from how many variants; (1, 0) without records."""
    spent: dict[tuple[str, str], float] = {}
    expected = 0.0
    for record in records:
        timing, variant = record.timing, (record.model.reference, record.fill)
        shared = timing.load_s + timing.gradients_s  # stands in each record of the variant
        spent[variant] = spent.get(variant, shared) + timing.measure_s
        count = record.images.count if record.images else 0
        expected += seconds(*variant, [record.suite], count)
    return (sum(spent.values()) / expected, len(spent)) if expected else (1.0, 0)


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


def record_costs(jobs: Iterable[Job], count: int) -> dict[str, float]:
    """Core seconds that each record of `jobs` takes with `count` images, by its key."""
    return {
        cell.key: FIXED_S + seconds(job.reference, job.fill, [cell.suite], count)
        for job in jobs
        for cell in job.cells
    }


class Progress(ProgressBar):
    """Counts the records with these `costs`, each of which is made `repetitions` times.

    `report` takes events. A command with several runs enters one bar for each of them.
    """

    def __init__(self, costs: Mapping[str, float], repetitions: int = 1) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        text = TextColumn("{task.description}", markup=False)
        self._total = len(costs) * repetitions
        super().__init__(self._total, (BarColumn(bar_width=24), MofNCompleteColumn(), text))
        self._costs, self._whole = costs, sum(costs.values()) * repetitions
        self._done, self._made = 0.0, 0

    def report(self, event: Event) -> None:
        """Show one event."""
        variant = f"{clean(event.job.reference, NAME_WIDTH)} ({event.job.fill})"
        times = self.times(self._done / self._whole)
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
