"""Estimators that do not reward noise: nothing is chosen on a sample that is then read.

The smallest of many noisy means is too small, and the variance of noisy means too large. Here a
place is chosen on one half of the samples and read on the other, both ways; and a square is the
mean product of unlike samples (a U-statistic, Hoeffding 1948). What is not linear in
the samples is brought to pseudo-values first, whose mean is free of the first-order bias
(jackknife, Quenouille 1956).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Estimate, missing
from .bootstrap import Bootstrap

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..base import Array

MEANS_PER_CHUNK = 8
"""Means whose statistic is taken together: few enough maps to stay in a processor's cache."""


def pseudo_values(samples: Array, statistic: Callable[[Array], Array]) -> Array:
    """Pseudo-values (n, ...) of a statistic of the mean of `samples` (n, ...).

    n s(all) - (n - 1) s(all but i). `statistic` takes means (k, ...) and gives (k, ...). One sample
    is its own.
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
    """The smallest or largest mean of `values` (n, places) over samples: (replicates,).

    `choose` is `np.argmin` or `np.argmax`. Where the two halves choose two places, the gap between
    these is added to the standard error: which of the two is meant is not known.
    """
    read, gap = read_other_half(values, choose)
    replicates: Array = resamples.weights @ read + resamples.normal * gap
    return replicates


def read_other_half(values: Array, choose: Callable[..., Any]) -> tuple[Array, float]:
    """Read `values` (n, places) where `choose` points on the other half of the samples: (n,).

    The halves are the even and the odd samples. Beside it, the gap between the places that the two
    halves choose. One sample is read where it points itself.
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
    """Square of the mean deviation, without the noise's share: replicates (replicates,).

    `pairs` (n, n) are those of `products`; the value, row 0, is their mean off the diagonal. The
    replicates follow its Hoeffding decomposition, a part that is linear in the samples and a part
    of pairs, each with the resamples' weights, so that they are right also where the square is 0
    and the linear part vanishes.
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
    """Root of `mean_square` of `deviations` (n, places), signed: replicates (replicates,).

    Below 0 the samples have nothing in common but noise.
    """
    return signed_root(mean_square(pair_products(deviations), resamples))


def estimate_square(pairs: Array, resamples: Bootstrap) -> Estimate:
    """Estimate `mean_square` with the interval of its signed root, squared.

    The error of a square grows with it, that of its root hardly does.
    """
    root = resamples.estimate(signed_root(mean_square(pairs, resamples)))
    if root.value is None:
        return root
    value, low, high = (
        None if end is None else end * abs(end) for end in (root.value, root.low, root.high)
    )
    draws = None if root.draws is None else root.draws * np.abs(root.draws)
    return Estimate(value, low, high, draws=draws)


def signed_root(square: Array) -> Array:
    """Square root that keeps the sign."""
    root: Array = np.sign(square) * np.sqrt(np.abs(square))
    return root


def _signal(share: Array, rest: Array) -> float:
    """What is left of the spread of `share` (n,) without the noise of its pairs, as a factor."""
    n = len(share)
    if n < 3 or not share.any():
        return 1.0
    noise = (rest**2).sum() / (n * (n - 1)) / (n - 1)
    spread = float(share.var(ddof=1))
    own = (n - 1) / (n - 2)  # each sample also takes its part from the others' mean
    return own * float(np.sqrt(max(0.0, 1 - noise / spread))) if spread > 0 else 0.0


def phase_estimates(profiles: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """`weakest`, `imbalance` and `ratio` of the samples' profiles (samples, P, P)."""
    flat = profiles.reshape(len(profiles), -1)
    low, high = (extreme_mean(flat, choose, resamples) for choose in (np.argmin, np.argmax))
    unbounded = missing("the weakest phase gets nothing: the ratio is unbounded")
    return {
        "weakest": resamples.estimate(low, low=0.0, positive=True),
        "imbalance": resamples.estimate(root_mean_square(flat - 1, resamples), low=0.0),
        "ratio": resamples.estimate(high / low, low=1.0, positive=True)
        if (low > 0).all()
        else unbounded,
    }
