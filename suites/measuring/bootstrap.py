"""Intervals: a bootstrap over samples, with common random numbers.

A *sample* is one image, or, for a model averaged over seeds, one seed. The same number of samples
and the same seed give the same resamples, so the replicates of two models on the same images can be
subtracted pair by pair.

The interval is value +- t * se: se is the standard deviation of the replicates, times
sqrt(n / (n - 1)) because resampling n samples underestimates their spread; t is Student's quantile
with n - 1 degrees of freedom. Samples that are all alike have no such interval: that they vary is
not shown, and ±0 would claim that they do not.

A share has the exact interval of Clopper and Pearson (1934) from its counts: 4 of 4 is 0.40 to 1.
Where a sample is itself a share, k is the sum of the samples: among samples in [0, 1] of one mean
none varies more than 0 and 1, so the interval is then too wide rather than too narrow.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import betaincinv, stdtrit

from ..base import Estimate, missing

if TYPE_CHECKING:
    from ..base import Array

CONFIDENCE = 0.95

MIN_SAMPLES = 4
"""Minimum number of samples for a confidence interval."""

ROUNDING = 1e-12
"""A smaller spread of replicates, relative to their value, is rounding of equal samples."""


@dataclass(frozen=True)
class Bootstrap:
    """Resamples: weights `weights` (replicates, samples) that sum to 1.

    Row 0 is the sample itself; the others are resamples. `normal` (replicates,) are standard normal
    numbers, 0 in row 0, for sources of uncertainty other than the samples.
    """

    weights: Array
    normal: Array

    @property
    def samples(self) -> int:
        """Number of samples."""
        return int(self.weights.shape[1])

    @property
    def deviations(self) -> Array:
        """Deviations (replicates - 1, samples) of the resamples' weights, of a mean's spread."""
        unbiased = np.sqrt(self.samples / max(self.samples - 1, 1))
        found: Array = (self.weights[1:] - self.weights[:1]) * unbiased
        return found

    def from_draws(
        self,
        value: float,
        draws: Array,
        *,
        low: float | None = None,
        high: float | None = None,
        positive: bool = False,
    ) -> Estimate:
        """Give `value` the interval of draws (draws,) from its posterior.

        An extreme of noisy draws lies beyond that of their centre, as the centre's lies beyond the
        truth; so the interval is the smallest that holds both the draws' quantiles and these
        mirrored at `value`, which are free of that bias (percentile and basic intervals; Davison
        and Hinkley 1997, 5.2). Those of a `positive` quantity are mirrored in its logarithm.
        Where the quantiles agree it is the range of all draws. With fewer than `MIN_SAMPLES`
        samples there is no interval; nor has a value that is the same in every draw one. An end
        that is not finite is left open.
        """
        if not np.isfinite(value):
            return missing("not finite on these samples: something it divides by is 0")
        value = _clip(value, low, high)
        if self.samples < MIN_SAMPLES or np.ptp(draws) == 0:
            return Estimate(value)
        tail = (1 - CONFIDENCE) / 2
        with np.errstate(invalid="ignore"):  # between two infinite draws lies NaN: an open end
            found = np.quantile(draws, [tail, 1 - tail])
        first, last = np.where(np.isnan(found), np.inf, found)
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = value / np.array([last, first])
        mirrored = value * ratios if positive else 2 * value - np.array([last, first])
        ends = float(min(first, mirrored[0])), float(max(last, mirrored[1]))
        whole = float(draws.min()), float(draws.max())
        return Estimate(value, *_interval(ends, whole, low=low, high=high), draws=draws)

    def estimate(
        self,
        values: Any,
        *,
        low: float | None = None,
        high: float | None = None,
        positive: bool = False,
    ) -> Estimate:
        """Turn `values` (replicates,) into an estimate, clipped to the metric's range.

        The interval of a `positive` quantity, whose error is proportional to it, is symmetric in
        the logarithm. One that lies beyond the range altogether is moved to begin at its end. If a
        value is not finite, the estimate is missing, with the reason. An end that is not finite is
        left open.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            return missing("not finite on these samples: a quantity that it divides by is 0")
        value = float(values[0])
        error = self.standard_error(values)
        if error is None:
            return Estimate(_clip(value, low, high))
        if error <= ROUNDING * abs(value):
            return Estimate(_clip(value, low, high), draws=values[1:])
        half = error * self._quantile()
        ends = (value - half, value + half)
        if positive and value > 0:
            with np.errstate(over="ignore"):
                ends = (value * np.exp(-half / value), value * np.exp(half / value))
        value = _clip(value, low, high)
        moved = (value - half, value + half)
        return Estimate(value, *_interval(ends, moved, low=low, high=high), draws=values[1:])

    def share(self, samples: Any) -> Estimate:
        """The mean of `samples` (samples,) in [0, 1], with the interval of Clopper and Pearson.

        It needs no minimum number of samples.
        """
        values = np.asarray(samples, dtype=np.float64)
        draws = self.weights @ values
        low, high = share_interval(float(values.sum()), len(values))
        return Estimate(float(values.mean()), low, high, draws=draws[1:])

    def standard_error(self, values: Array) -> float | None:
        """Standard error of row 0 of `values` (replicates,), or None with too few samples."""
        if len(values) < 3 or self.samples < MIN_SAMPLES:
            return None
        return float(np.std(values[1:], ddof=1) * np.sqrt(self.samples / (self.samples - 1)))

    def _quantile(self) -> float:
        return float(stdtrit(self.samples - 1, (1 + CONFIDENCE) / 2))


def _interval(
    *pairs: tuple[float, float], low: float | None, high: float | None
) -> tuple[float | None, float | None]:
    """The first of `pairs` whose ends differ within the range; no end if all agree.

    An estimate is never certain. An end that is not finite is left open.
    """
    for pair in pairs:
        below, above = (_clip(end, low, high) if np.isfinite(end) else None for end in pair)
        if below is None or below != above:
            return below, above
    return None, None


def _clip(value: float, low: float | None, high: float | None) -> float:
    return float(np.clip(value, low if low is not None else -np.inf, high))


def share_interval(hits: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share, `hits` of `count`, by Clopper and Pearson (1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, count - hits + 1, tail)) if hits > 0 else 0.0
    high = float(betaincinv(hits + 1, count - hits, 1 - tail)) if hits < count else 1.0
    return low, high


def bootstrap(samples: int, draws: int, seed: int) -> Bootstrap:
    """Draw the weights of `draws` resamples of `samples` samples; see `Bootstrap`."""
    rng = np.random.default_rng([seed, samples])
    weights = np.full((draws + 1, samples), 1 / samples)
    weights[1:] = rng.multinomial(samples, weights[0], draws) / samples
    normal = np.concatenate([[0.0], rng.standard_normal(draws)])
    return Bootstrap(weights, normal)


def linear(value: Array, change: Array, weights: Array) -> Array:
    """Replicates (replicates, ...) of a smooth statistic, to first order in the samples.

    `value` (...) is the statistic of the mean, `change` (samples, ...) its derivative in the
    direction of each sample, `weights` (replicates, samples) the resamples, row 0 the sample
    itself. The cost depends on the number of samples, not of replicates. A plain resample repeats
    samples and is therefore rougher than they are; the linearisation does not inflate statistics
    that measure roughness (infinitesimal jackknife, Efron 1982).
    """
    replicates: Array = value + np.tensordot(weights - weights[:1], change, 1)
    return replicates
