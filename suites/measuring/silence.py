"""What few samples show for certain: pixels that are silent, and pixels that are dead.

Where few units read a pixel, its sensitivity may be 0 in one sample and not in the next, as in
front of a max-pool. So a sample of a pixel counts as 0 with the probability z, which is that of the
other pixels of its phase, and otherwise as a gamma variable of one shape: the mean of n of them may
be small because few are not 0, and is exactly 0 with the probability z^n. Without zeros the mean is
a gamma variable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.special import comb, gammainc, gammaincinv

if TYPE_CHECKING:
    from ..base import Array
    from .phases import Pair

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

FALSE_ALARM = 0.01
"""Probability that an ordinary map of independent pixels has any dead one."""
WINDOWS = (1, 3, 5, 9, 15)
"""A single pixel that is merely weak is lost in the noise of few samples; a region is not."""
LEAST_ALIVE = 0.03
"""Relative sensitivity below which a pixel does not belong to the spread of the ordinary ones."""
RATES = 64
"""Steps of z, rounded up."""


@dataclass(frozen=True)
class Silence:
    """Which places are 0 in every one of so many samples, and how often others are in one.

    Both masks are (height, width). `rate` is the share of the places of the same phase which are 0
    in a sample, of those that are not 0 in all: in the row, the column or the map, whichever is
    largest; 0 where there are no others.
    """

    samples: int
    everywhere: Mask
    rate: Array

    @classmethod
    def of(cls, zero: Mask, period: Pair) -> Silence:
        """Of samples that are 0 in `zero` (samples, height, width)."""
        everywhere: Mask = np.asarray(zero.all(0))
        return cls(len(zero), everywhere, _zero_rate(zero, ~everywhere, period))

    @property
    def certain(self) -> Mask:
        """Where it is not by chance; nowhere in a single sample, which shows no rate of others."""
        if self.samples < 2:
            return np.zeros_like(self.everywhere)
        chance = self.rate**self.samples * self.everywhere.size
        return self.everywhere & (chance < FALSE_ALARM)


@dataclass(frozen=True)
class Zeros:
    """Where samples are 0 (samples, height, width), of a map with phases of `period`."""

    pixels: Mask
    period: Pair
    _found: dict[int, Silence] = field(default_factory=dict, init=False, repr=False)

    def windows(self, side: int) -> Silence:
        """Of all windows of `side` x `side` pixels, which are 0 as a whole."""
        if side not in self._found:
            empty = np.array([window_means(one, side) == 1 for one in self.pixels.astype(float)])
            self._found[side] = Silence.of(empty, self.period if side == 1 else (1, 1))
        return self._found[side]

    def surely_silent(self) -> Mask:
        """Which pixels are 0 in every sample, but not by chance (height, width)."""
        silent = self.pixels.all(0)
        found: Mask = np.zeros_like(silent)
        if not silent.any():
            return found
        for axis in (1, 2):
            lines = np.asarray(self.pixels.all(axis, keepdims=True))
            found = found | Silence.of(lines, (1, 1)).certain
        for side in (n for n in WINDOWS if n <= min(silent.shape)):
            found = found | within_windows(self.windows(side).certain, side)
        return found


def _zero_rate(zero: Mask, others: Mask, period: Pair) -> Array:
    """The share of `others` that are 0 in a sample, as `Silence` has it."""
    rows, columns = (np.arange(n) for n in others.shape)
    row_phase, column_phase = rows % period[0], columns % period[1]
    found: Array = np.zeros(others.shape)
    for group in (
        np.add.outer(rows * period[1], column_phase),
        np.add.outer(row_phase, columns * period[0]),
        np.add.outer(row_phase * period[1], column_phase),
    ):
        zeros = np.bincount(group[others], np.sum(zero, axis=0)[others], group.max() + 1)
        trials = np.bincount(group[others], minlength=group.max() + 1) * len(zero)
        found = np.maximum(found, (zeros / np.maximum(trials, 1))[group])
    return found


def least_surely(means: Array, side: int, zeros: Zeros) -> Array:
    """By how much a dead window must lie below a threshold (window rows, columns).

    `means` are the windows' relative sensitivities (NaN where left out). The shape k comes from the
    quartiles of log q, whose standard deviation is about 1 / sqrt(k), of all windows or of those
    that are alive: where many are dead, their distance is no spread.
    """
    values = means[np.isfinite(means)]
    shape, tail = 0.0, FALSE_ALARM * side**2 / max(values.size, 1)
    for positive in (values[values > 0], values[values > LEAST_ALIVE]):
        if positive.size >= 8 and tail < 1:
            low, high = np.quantile(np.log(positive), (0.25, 0.75))
            shape = max(shape, min(1e4, (1.349 / max(float(high - low), 1e-3)) ** 2))
    found: Array = np.zeros_like(means)
    if shape == 0:
        return found
    if not zeros.pixels.any():
        found[:] = float(gammaincinv(shape, tail) / shape)
        return found
    silence = zeros.windows(side)
    levels = np.ceil(silence.rate * RATES) / RATES
    count, usual = silence.samples, float(silence.rate.mean())
    own = 1 / max(count * (1 - usual) / shape - usual, 1e-4)
    for level in np.unique(levels):
        found[levels == level] = _quantile(own, count, float(level), tail)
    return found


def _quantile(shape: float, count: int, rate: float, tail: float) -> float:
    """The `tail` quantile, over its mean, of a sum of `count` samples, 0 if that is none.

    Each is 0 with the probability `rate`, else a gamma variable of `shape`.
    """
    if rate == 0:
        return float(gammaincinv(shape * count, tail) / (shape * count))
    answers = np.arange(1, count + 1)
    share = np.geomspace(1e-9, 1.0, 400)
    below = gammainc(shape * answers, shape * count * (1 - rate) * share[:, None])
    chance = comb(count, answers) * (1 - rate) ** answers * rate ** (count - answers)
    certain = rate**count + below @ chance <= tail
    return float(share[certain].max(initial=0.0))


def window_means(relative: Array, side: int) -> Array:
    """Means over all windows of `side` x `side` pixels (window rows, columns); NaN spreads."""
    rows: Array = sliding_window_view(relative, side, axis=0).mean(-1)
    means: Array = sliding_window_view(rows, side, axis=1).mean(-1)
    return means


def within_windows(flagged: Mask, side: int) -> Mask:
    """All pixels of the flagged windows."""
    padded = np.pad(flagged, side // 2)
    if not flagged.any():
        return padded
    from scipy import ndimage

    found: Mask = ndimage.binary_dilation(padded, np.ones((side, side)))
    return found
