"""Estimators that noise does not bias.

The smallest of many noisy means is biased downwards, and the variance of noisy means upwards.
Here a position is chosen on one half of the samples and read on the other half, in both directions,
and a square is the mean product of different samples (a U-statistic, Hoeffding 1948). Statistics
that are not linear in the samples are first converted to pseudo-values, whose mean is free of the
first-order bias (jackknife, Quenouille 1956).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..base import Array
    from .bootstrap import Bootstrap

MEANS_PER_CHUNK = 8
"""Number of means whose statistic is computed at once; so few maps fit into a CPU cache."""


def pseudo_values(samples: Array, statistic: Callable[[Array], Array]) -> Array:
    """Pseudo-values (n, ...) of a statistic of the mean of `samples` (n, ...).

    The i-th is n s(all) - (n - 1) s(all but i). `statistic` maps means (k, ...) to (k, ...). For a
    single sample it is the statistic itself.
    """
    n = len(samples)
    if n == 1:
        return statistic(samples)
    total = samples.sum(0, keepdims=True)
    parts = np.array_split(samples, -(-n // MEANS_PER_CHUNK))
    others = np.concatenate([statistic((total - part) / (n - 1)) for part in parts])
    values: Array = n * statistic(total / n) - (n - 1) * others
    return values


def extreme_mean(values: Array, choose: Callable[..., Any], resamples: Bootstrap) -> Array:
    """The smallest or largest mean over samples of `values` (n, places): (replicates,).

    `choose` is `np.argmin` or `np.argmax`. If the two halves choose different places, the
    difference between these is added to the standard error.
    """
    read, gap = read_other_half(values, choose)
    replicates: Array = resamples.weights @ read + resamples.normal * gap
    return replicates


def read_other_half(values: Array, choose: Callable[..., Any]) -> tuple[Array, float]:
    """Read each sample of `values` (n, places) at the place chosen on the other half: (n,).

    The halves are the even and the odd samples. The second value is the difference between the two
    chosen places. A single sample is read at the place chosen on itself.
    """
    if len(values) == 1:
        return values[:, choose(values[0])], 0.0
    first, second = (int(choose(half.mean(0))) for half in (values[::2], values[1::2]))
    read = values[:, second].copy()
    read[1::2] = values[1::2, first]
    return read, float(values[:, first].mean() - values[:, second].mean())


def pair_products(deviations: Array) -> Array:
    """Mean product over the last axis of each pair of `deviations` (n, places): (n, n)."""
    found: Array = deviations @ deviations.T / deviations.shape[1]
    return found


def mean_square(pairs: Array, resamples: Bootstrap) -> Array:
    """Unbiased square of the mean deviation: (replicates,).

    `pairs` (n, n) come from `pair_products`; the value, row 0, is their mean off the diagonal. The
    replicates follow the Hoeffding decomposition into a part that is linear in the samples and a
    part of pairs, each with the weights of the resamples. They are therefore also correct if the
    square is 0 and the linear part vanishes.
    """
    n = len(pairs)
    if n == 1:
        return np.full(len(resamples.weights), pairs[0, 0])
    off = pairs - np.diag(np.diag(pairs))
    share = off.sum(1) / (n - 1)
    value = share.mean()
    rest = off - share[:, None] - share[None] + value
    np.fill_diagonal(rest, 0.0)
    moves = n * (resamples.weights - resamples.weights[:1])
    linear = 2 / n * (moves @ (share - value)) * _signal(share, rest)
    paired = np.einsum("ri,ij,rj->r", moves, rest, moves) / (n * (n - 1))
    replicates: Array = value + linear + paired
    return replicates


def root_mean_square(deviations: Array, resamples: Bootstrap) -> Array:
    """Signed root of the unbiased `mean_square` of `deviations` (n, places): (replicates,).

    A negative value means that the samples share nothing but noise.
    """
    return signed_root(mean_square(pair_products(deviations), resamples))


def signed_root(square: Array) -> Array:
    """Square root that keeps the sign."""
    root: Array = np.sign(square) * np.sqrt(np.abs(square))
    return root


def _signal(share: Array, rest: Array) -> float:
    """Factor that removes the noise of the pairs from the spread of `share` (n,)."""
    n = len(share)
    if n < 3 or not share.any():
        return 1.0
    noise = (rest**2).sum() / (n * (n - 1)) / (n - 1)
    spread = float(share.var(ddof=1))
    own = (n - 1) / (n - 2)  # each sample also enters the mean of the others
    return own * float(np.sqrt(max(0.0, 1 - noise / spread))) if spread > 0 else 0.0
