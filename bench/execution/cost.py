"""Estimates of how long measuring a model takes, before it is opened: for forecasts and the order.

The cost of `structure` is the time it took when all of timm was measured, that of image suites is
proportional to the operations of a forward pass; both are in `timm_costs.csv`, which
`results/timm-structure/costs.py` writes. Seconds are those of one CPU core. For a single model the
estimate may be wrong by a factor of three; what matters is that expensive models are recognised as
expensive.
"""

from __future__ import annotations

import csv
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ...adapters.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..records.record import Record
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
