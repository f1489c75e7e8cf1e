"""Significance and size of differences, and Holm's correction for how many there are.

t = difference / se, se being read off the 95 % interval of `paired.difference`; p is two-sided,
Student's t with n - 1 degrees of freedom, n the samples (images, or weight sets). So p < 0.05 says
exactly that the interval leaves out 0. The effect size of paired estimates is d = t / sqrt(n), the
difference in standard deviations of what a single sample contributes to it (Cohen's d_z); of
independent ones d = t sqrt(2 / n).

Holm (1979): of m p-values in rising order, the i-th is multiplied by m - i + 1 and is at least the
one before it. Whatever the dependence between metrics, the chance of one false difference among
all m stays at 5 %. Exact differences are no tests and are not counted.

Common random numbers make rounding itself significant: two exports of one network differ by 1e-7 in
the same direction on every image. So what differs by less than `NEGLIGIBLE` of the larger value is
never shown to differ.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .difference import Difference, metric_difference, sample_count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.record import Record


ALPHA = 0.05


ROUNDING = 1e-9
"""A spread that is a smaller share of the difference is rounding, not spread."""


NEGLIGIBLE = 1e-5
"""A difference that is a smaller share of the values is what float32 rounds, not a difference."""


SMALLEST = 1e-9
"""And so is one that is smaller, whatever the values."""


@dataclass(frozen=True)
class Evidence:
    """A difference with what it shows: p-value, corrected p-value and effect size.

    The last three are None where there is no interval: exact values, or too few samples.
    `negligible` says that the difference is no larger than rounding.
    """

    difference: Difference
    p: float | None = None
    adjusted: float | None = None
    effect: float | None = None
    negligible: bool = False

    @property
    def shown(self) -> bool:
        """Whether the two differ: exactly, or beyond 5 % after the correction."""
        if self.negligible:
            return False
        if self.difference.method == "exact":
            return self.difference.value != 0
        return self.adjusted is not None and self.adjusted < ALPHA


def evidence(first: Record, second: Record, metric: str) -> Evidence | None:
    """`second` less `first`; None when either has no value. Not yet corrected."""
    found = metric_difference(second, first, metric)
    if found is None:
        return None
    small = abs(found.value) <= max(SMALLEST, NEGLIGIBLE * _size(first, second, metric))
    if found.low is None or found.high is None:
        return Evidence(found, negligible=small)
    count = min(sample_count(first), sample_count(second))
    t = _t(found, count)
    p = _two_sided(t, count)
    scale = 1 / count if found.method == "paired" else 2 / count
    effect = t * math.sqrt(scale) if math.isfinite(t) else None
    return Evidence(found, p, p, effect, small)


def _size(first: Record, second: Record, metric: str) -> float:
    """The larger of two values, without its sign."""
    return max(abs(record.metrics[metric].value or 0.0) for record in (first, second))


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values, in the order of `values`."""
    order = np.argsort(values, kind="stable")
    adjusted = [0.0] * len(values)
    least = 0.0
    for place, index in enumerate(order):
        least = max(least, min(1.0, (len(values) - place) * values[index]))
        adjusted[index] = least
    return adjusted


def _t(found: Difference, count: int) -> float:
    """Student's t; infinite where a difference has no spread at all."""
    from scipy.special import stdtrit

    from ...suites.measuring.bootstrap import CONFIDENCE

    if found.low is None or found.high is None:
        raise ValueError("there is no interval")
    error = (found.high - found.low) / 2 / stdtrit(count - 1, (1 + CONFIDENCE) / 2)
    if error <= ROUNDING * abs(found.value):
        return math.copysign(math.inf, found.value) if found.value else 0.0
    return float(found.value / error)


def _two_sided(t: float, count: int) -> float:
    from scipy.special import stdtr

    return float(2 * stdtr(count - 1, -abs(t)))
