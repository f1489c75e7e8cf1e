"""Significance and size of differences, and simultaneous intervals for all that is compared.

t = difference / se, se being read off the 95 % interval of `metric_difference`; p is two-sided,
Student's t with n - 1 degrees of freedom, n the samples (images, or weight sets). The effect size
of paired estimates is d = t / sqrt(n), the difference in standard deviations of what a single
sample contributes to it (Cohen's d_z); of independent ones d = t sqrt(2 / n).

Of m differences that are compared together each has the interval at 1 - 0.05 / m (Bonferroni 1936):
whatever the dependence between metrics, the chance that any of the m intervals misses its
difference is at most 5 %. Two models are shown to differ just where this interval leaves out 0.

Rounding widens the interval: common random numbers make even rounding significant (two exports of
one network differ by 1e-7 in the same direction on every image), and two runtimes round exact
numbers in different ways. It is `NEGLIGIBLE` of the larger value for estimates, `PRINTED` for exact
numbers that are not whole, and the whole difference of those that print alike.

The half width of an interval falls with the root of n. So n (half / |difference|)^2 samples would
show a difference of the size that was measured, if that is its true size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from ..output.numbers import format_number
from .difference import Difference, is_exact, metric_difference, sample_count

if TYPE_CHECKING:
    from ..records.record import Record


ALPHA = 0.05

ROUNDING = 1e-9
"""A spread that is a smaller share of the difference is rounding, not spread."""

NEGLIGIBLE = 1e-5
"""The share of an estimate that float32 rounds."""

PRINTED = 1e-3
"""The share of an exact number that is not whole below the three digits that are shown of it."""

SMALLEST = 1e-9
"""Differences below this are rounding too, for values of any size."""


@dataclass(frozen=True)
class Evidence:
    """A difference with what it shows, as one of `tests` differences that are compared together.

    `samples` are behind an estimate, `rounding` widens its interval. p-values and effect size are
    None where there is no interval: exact values, or too few samples.
    """

    difference: Difference
    samples: int = 0
    rounding: float = 0.0
    tests: int = 1

    @property
    def is_test(self) -> bool:
        """Whether it counts as one of those that are compared together."""
        return self.difference.low is not None

    @property
    def half(self) -> float | None:
        """Half the simultaneous interval without rounding; None where there is no interval."""
        if self.difference.method == "exact":
            return 0.0
        error = self._error
        return None if error is None else error * _quantile(1 - ALPHA / self.tests, self.samples)

    @property
    def low(self) -> float | None:
        """Lower end of the simultaneous interval."""
        return None if self.half is None else self.difference.value - self.half - self.rounding

    @property
    def high(self) -> float | None:
        """Upper end of the simultaneous interval."""
        return None if self.half is None else self.difference.value + self.half + self.rounding

    @property
    def shown(self) -> bool:
        """Whether the two differ: the simultaneous interval leaves out 0."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    def within(self, margin: float) -> bool:
        """Whether the simultaneous interval lies within `margin` of 0."""
        return (
            self.low is not None
            and self.high is not None
            and (max(abs(self.low), abs(self.high)) <= margin + self.rounding)
        )

    @property
    def p(self) -> float | None:
        """Two-sided p-value of this difference alone."""
        from scipy.special import stdtr

        t = self._t
        return None if t is None else float(2 * stdtr(max(self.samples - 1, 1), -abs(t)))

    @property
    def adjusted(self) -> float | None:
        """p-value of this difference among all that are compared together."""
        p = self.p
        return None if p is None else min(1.0, self.tests * p)

    @property
    def effect(self) -> float | None:
        """Effect size; None where it is infinite too."""
        t = self._t
        if t is None or not math.isfinite(t):
            return None
        share = (1 if self.difference.method == "paired" else 2) / self.samples
        return t * math.sqrt(share)

    @property
    def _error(self) -> float | None:
        """Standard error, read off the 95 % interval; 0 where a difference has no spread."""
        found = self.difference
        if found.low is None or found.high is None:
            return None
        error = (found.high - found.low) / 2 / _quantile(1 - ALPHA, self.samples)
        return 0.0 if error <= ROUNDING * abs(found.value) else error

    @property
    def _t(self) -> float | None:
        error, value = self._error, self.difference.value
        if error is None:
            return None
        if error == 0:
            return math.copysign(math.inf, value) if value else 0.0
        return value / error

    def samples_to_show(self) -> float:
        """How many samples would show a difference of the size that was measured."""
        if not self.half:
            return float(self.samples)
        size = abs(self.difference.value)
        return self.samples * (self.half / size) ** 2 if size > 0 else math.inf


def evidence(first: Record, second: Record, metric: str) -> Evidence | None:
    """`second` less `first`; None when either has no value. Not yet one of several."""
    found = metric_difference(second, first, metric)
    if found is None:
        return None
    count = min(sample_count(first), sample_count(second))
    if found.method == "paired" and found.low == found.high:
        found = _without_spread(first, second, metric, found)
    return Evidence(found, count, _rounding(first, second, metric))


def _without_spread(first: Record, second: Record, metric: str, found: Difference) -> Difference:
    """A difference that is the same in every draw: certain, unless no sample varies in either.

    All of 4 images in both models do not show that the two agree on every image: the intervals of
    the shares say how much is known.
    """
    if any(np.ptp(record.draws[metric]) > 0 for record in (first, second)):
        return found
    halves = [record.metrics[metric].half_width for record in (first, second)]
    if None in halves:
        return Difference(found.value, None, None, "none")
    half = math.hypot(*(half for half in halves if half is not None))
    return Difference(found.value, found.value - half, found.value + half, "independent")


def _rounding(first: Record, second: Record, metric: str) -> float:
    """How far apart two runtimes may compute the same number."""
    values = [record.metrics[metric].value or 0.0 for record in (first, second)]
    size = max(map(abs, values))
    if is_exact(first, metric) and is_exact(second, metric):
        if all(float(value).is_integer() for value in values):
            return 0.0
        alike = len({float(format_number(value)) for value in values}) == 1
        return max(SMALLEST, PRINTED * size, abs(values[0] - values[1]) if alike else 0.0)
    return max(SMALLEST, NEGLIGIBLE * size)


@cache
def _quantile(confidence: float, samples: int) -> float:
    """Student's quantile for a two-sided interval."""
    from scipy.special import stdtrit

    return float(stdtrit(max(samples - 1, 1), (1 + confidence) / 2))
