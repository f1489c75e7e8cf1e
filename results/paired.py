"""What the sets of trained networks share: seeds with kernel padding against the same without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from perimetry.bench.records.record import Record

MICRO, ORDINARY = "micro_object", "classification"
KIM = {
    (MICRO, "epochs_to_90"): ("fewer epochs to 90 % on micro-object", (10.2 - 28.2) / 28.2, True),
    (ORDINARY, "accuracy"): ("lower ordinary accuracy", (94.07 - 95.28) / 100, False),
}
"""What Kim et al. found of kernel padding (ResNet-101): in words, how much, and whether that is a
share of the value without padding."""


SAME = 1e-9


def change(treated: Record, plain: Record, metric: str) -> tuple[float, float, float]:
    """Mean of the seeds' differences with its 95 % interval (Student).

    A seed that never got there counts as if it had in the first epoch that was not trained.
    """
    own, other = (
        np.array([row[metric] or len(r.tables["curve"]) + 1 for row in r.tables["seeds"]])
        for r in (treated, plain)
    )
    each = own - other
    half = student.ppf(0.975, len(each) - 1) * each.std(ddof=1) / len(each) ** 0.5
    return each.mean(), each.mean() - half, each.mean() + half


def with_star(found: tuple[float, float, float]) -> str:
    """A difference with its interval, and a star where that leaves out 0.

    Without an interval where it is one number for all seeds, as before any training.
    """
    value, low, high = found
    if high - low < SAME:
        return f"{value:+.3f}"
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}]{' *' if low * high > 0 else ''}"


def verdict(found: tuple[float, float, float], kim: float) -> str:
    """What an interval says of a difference like `kim`."""
    value, low, high = found
    if low * high > 0:
        return "**reproduced**" if value * kim > 0 else "**the opposite**"
    return "**not shown**" + ("" if low <= kim <= high else ", and not as large")


def number(value: float | None) -> str:
    """A count of epochs, or that there is none."""
    return "never" if value is None else f"{value:.0f}"
