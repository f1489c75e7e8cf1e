"""Intervals: a bootstrap over samples, with common random numbers.

A *sample* is one image, or, for a model averaged over seeds, one seed. Samples are split into two
halves (even and odd places), and resampled within each, so that estimators that play one half
against the other stay unbiased. The same number of samples and the same seed give the same
resamples, so that replicates of two models on the same images can be subtracted pair by pair.

The interval is value +- t * se: se is the standard deviation of the replicates, times
sqrt(m / (m - 1)) because resampling m samples understates their spread; t is Student's quantile
with n - 2 degrees of freedom, two means having been estimated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import t as student

from .suite import Estimate, missing

if TYPE_CHECKING:
    from .suite import Array

CONFIDENCE = 0.95
MIN_SAMPLES = 4
"""Fewer samples leave a half with a single one, and no interval."""


@dataclass(frozen=True)
class Bootstrap:
    """Resamples of `samples` in two halves.

    `first` and `second` are (replicates, samples): weights that sum to 1 on their own half and are
    0 on the other. Row 0 is the sample itself; the others are resamples.
    """

    first: Array
    second: Array

    @property
    def whole(self) -> Array:
        """Weights (replicates, samples) of the mean of both halves."""
        return (self.first + self.second) / 2

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return int(self.first.shape[1])

    def estimate(
        self, values: Any, *, low: float | None = None, high: float | None = None
    ) -> Estimate:
        """Turn `values` (replicates,) into an estimate, clipped to the metric's range.

        A value that is not finite is missing, with the reason.
        """
        values = np.asarray(values, dtype=np.float64)
        if not np.isfinite(values).all():
            return missing("not finite on these samples: something it divides by is 0")
        value = float(values[0])
        error = self.standard_error(values)
        if error is None:
            return Estimate(_clip(value, low, high))
        return Estimate(
            _clip(value, low, high),
            _clip(value - error * self._quantile(), low, high),
            _clip(value + error * self._quantile(), low, high),
            draws=values[1:],
        )

    def standard_error(self, values: Array) -> float | None:
        """Standard error of row 0 of `values` (replicates,), or None with too few samples."""
        if len(values) < 3 or self.samples < MIN_SAMPLES:
            return None
        half = self.samples // 2
        return float(np.std(values[1:], ddof=1) * np.sqrt(half / (half - 1)))

    def _quantile(self) -> float:
        return float(student.ppf((1 + CONFIDENCE) / 2, self.samples - 2))


def _clip(value: float, low: float | None, high: float | None) -> float:
    return float(np.clip(value, low if low is not None else -np.inf, high))


def bootstrap(samples: int, draws: int, seed: int) -> Bootstrap:
    """Draw the weights; see `Bootstrap`. One sample stands for both halves."""
    halves = [np.arange(samples)[i::2] for i in (0, 1)]
    if samples == 1:
        halves[1] = halves[0]
    rng = np.random.default_rng([seed, samples])
    weights = [_half_weights(half, samples, draws, rng) for half in halves]
    return Bootstrap(weights[0], weights[1])


def linear(value: Array, change: Array, weights: Array) -> Array:
    """Replicates (replicates, ...) of a smooth statistic, to first order in the samples.

    `value` (...) is the statistic of the mean, `change` (samples, ...) its derivative in the
    direction of each sample, `weights` (replicates, samples) the resamples, row 0 the sample
    itself. The cost grows with the samples, not with the replicates; and unlike a plain resample,
    which repeats samples and is therefore rougher than they are, it does not inflate statistics
    that measure roughness (infinitesimal jackknife, Efron 1982).
    """
    replicates: Array = value + np.tensordot(weights - weights[:1], change, 1)
    return replicates


def _half_weights(
    half: np.ndarray[Any, Any], samples: int, draws: int, rng: np.random.Generator
) -> Array:
    weights = np.zeros((draws + 1, samples))
    weights[0, half] = 1 / len(half)
    weights[1:, half] = rng.multinomial(len(half), [1 / len(half)] * len(half), draws) / len(half)
    return weights
