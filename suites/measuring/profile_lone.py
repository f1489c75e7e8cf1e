"""Lone phases: those that no rows, columns and periods explain; see `profile_posterior`.

What few samples cannot show: a single phase is found where its departure exceeds what chance gives
among so many phases, and a roughness that all phases share where it exceeds the error of the noise.
What is not found is taken for even, and the interval of `weakest` does not allow for it: with few
samples that is said.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import digamma, expit, ndtri, polygamma

from .phases import fold, nested_periods

if TYPE_CHECKING:
    from ..base import Array

LONE, LONE_SIZE, LONE_SURE = 0.05, 0.5, 1e-3
"""Prior probability over the number of phases, standard deviation of a departure, and the least
posterior probability that is drawn."""
LONE_OF_FEW, FEW = 0.5, 6
"""The prior probability with fewer samples, whose noise hides departures: the interval allows for
them."""
POOLED = (4.0, 200.0)
"""Bounds of the degrees of freedom that the variance of all phases counts for, in that of one."""
FEWEST_PHASES = 16
"""Profiles of fewer phases have no lone ones: periods explain every phase."""
LEAST = 1e-3
"""Smallest share of the mean that a factor may have: what is divided by stays above 0."""
TO_NORMAL = 1.4826
"""The standard deviation of normal numbers over the median of their absolute values."""


@dataclass(frozen=True)
class Lone:
    """Phases (rows, columns) that agree modulo a nested period, and are lone with `probability`.

    Those that are `certain` are lone rather than not, and the components do not know them.
    """

    places: Array
    probability: float
    certain: bool


def find_lone(relative: Array) -> tuple[list[Lone], Array]:
    """Lone phases of `relative` (samples, rows, columns), and the same without them.

    Coarse periods come first. What is certainly lone is scaled to what its rows and columns imply.
    """
    shape = (relative.shape[1], relative.shape[2])
    found, without = [], relative
    for step in nested_periods(shape):
        if step[0] * step[1] < FEWEST_PHASES:
            continue
        among_others, in_noise = _probabilities(without, step)
        here = []
        for place in map(tuple, np.argwhere(among_others > LONE_SURE)):
            certain = bool(among_others[place] > 0.5)
            probability = (in_noise if certain else among_others)[place]
            here.append(Lone(_class(shape, step, place), float(probability), certain))
        found += here
        without = _scaled(without, [one.places for one in here if one.certain])
    return found, without


def _class(shape: tuple[int, int], step: tuple[int, int], place: tuple[int, ...]) -> Array:
    rows, columns = (np.arange(n) % s == p for n, s, p in zip(shape, step, place, strict=True))
    places: Array = np.outer(rows, columns)
    return places


def _probabilities(relative: Array, step: tuple[int, int]) -> tuple[Array, Array]:
    """That each class of phases that agree modulo `step` is lone (classes' rows, columns).

    The departure of its median from the product of its row and column is taken on the scale of cube
    roots, where energies are nearly normal (Wilson and Hilferty 1931), and compared with its own
    noise and with how far the others depart; and with its noise alone. `relative` is (samples,
    rows, columns).
    """
    n, mean = len(relative), _median_fold(relative.mean(0), step)
    fit = _polish(mean)
    noise = PooledNoise.of(fold(relative, step))
    departure = 3 * (np.cbrt(np.maximum(mean, 0.0) / fit) - 1)
    of_median = 1.0 if mean.size == relative[0].size else np.pi / 2
    error = of_median * np.maximum(noise.variance, 1e-12) / n
    others = TO_NORMAL * float(np.median(np.abs(departure - np.median(departure))))
    rough = max(others**2 - float(np.median(error)), 0.0)
    never = fit <= 2 * LEAST * fit.mean()
    prior = prior_of(n)
    among_others, in_noise = (
        np.where(never, 0.0, is_lone(departure, spread, noise.freedom, prior, departure.size))
        for spread in (error + rough, error)
    )
    return among_others, in_noise


def prior_of(samples: int) -> float:
    """The prior probability that a profile has a lone phase."""
    return LONE_OF_FEW if samples < FEW else LONE


def is_lone(departure: Array, spread: Array, freedom: float, prior: float, phases: int) -> Array:
    """Probability that a departure is a lone phase's, not one of variance `spread`.

    `prior` is the probability that the profile, of so many `phases`, has one.
    """
    ordinary = -(freedom + 1) / 2 * np.log1p(departure**2 / spread / freedom) - np.log(spread) / 2
    wide = LONE_SIZE**2 + spread
    lone = -np.log(wide) / 2 - departure**2 / wide / 2
    found: Array = expit(np.log(prior / phases) + lone - ordinary)
    return found


def _median_fold(profile: Array, step: tuple[int, int]) -> Array:
    """The median over the phases that agree modulo `step`: one that is lone does not move it."""
    rows, columns = profile.shape
    cells = profile.reshape(rows // step[0], step[0], columns // step[1], step[1])
    found: Array = np.median(cells, (0, 2))
    return found


@dataclass(frozen=True)
class PooledNoise:
    """Relative variance over samples of each phase, moderated, and its degrees of freedom.

    The variance of a phase is shrunk towards what is common to all, the more the less they differ
    beyond their own error (Smyth 2004).
    """

    variance: Array
    freedom: float

    @classmethod
    def of(cls, values: Array) -> PooledNoise:
        """From `values` (samples, rows, columns)."""
        n, mean = len(values), np.maximum(values.mean(0), 0.0)
        seen = (mean > LEAST * mean.mean()) & (values.var(0) > 0)
        own = np.divide(values.var(0, ddof=1), mean**2, out=np.zeros_like(mean), where=seen)
        if not seen.any():
            return cls(own, n - 1.0)
        logs = np.log(own[seen])
        beyond = max(float(logs.var() - polygamma(1, (n - 1) / 2)), 1e-3)
        prior = float(np.clip((1 + np.sqrt(1 + 2 * beyond)) / beyond, *POOLED))
        common = np.exp(logs.mean() - _log_bias(n - 1) + _log_bias(prior))
        variance = np.where(seen, (own * (n - 1) + common * prior) / (n - 1 + prior), common)
        return cls(variance, n - 1 + prior)


def _relative_variance(values: Array) -> float:
    mean = float(values.mean())
    return float(values.var(ddof=1)) / mean**2 if mean > 0 else 0.0


def _log_bias(freedom: float) -> float:
    """Mean of the logarithm of a chi-square over its degrees of freedom."""
    return float(digamma(freedom / 2) - np.log(freedom / 2))


def _polish(mean: Array) -> Array:
    """Rows times columns by medians, which a few lone phases do not move (Tukey 1977)."""
    row, column = np.ones(mean.shape[0]), np.ones(mean.shape[1])
    for _ in range(5):
        row = np.maximum(np.median(mean / column, 1), LEAST)
        column = np.maximum(np.median(mean / row[:, None], 0), LEAST)
    return np.outer(row, column)


def balance(profile: Array) -> tuple[Array, Array]:
    """Factors of rows and of columns over which `profile` has even row and column means.

    Alternating proportional fitting (Deming and Stephan 1940): what is left is interaction alone.
    """
    row, column = np.ones(profile.shape[0]), np.ones(profile.shape[1])
    for _ in range(10):
        row = np.maximum((profile / column).mean(1), LEAST)
        column = np.maximum((profile / row[:, None]).mean(0), LEAST)
    return row / row.mean(), column / column.mean()


def _scaled(relative: Array, classes: list[Array]) -> Array:
    """`relative` with each of `classes` scaled to what rows and columns imply for it on average."""
    if not classes or np.any(classes, axis=0).all():
        return relative
    fit, factor = _polish(relative.mean(0)), np.ones(relative.shape[1:])
    for _ in range(20):
        ratio = relative.mean(0) / fit
        for places in classes:
            factor[places] = ratio[places].mean()
        level = np.divide(relative.mean(0), factor, out=fit, where=factor > LEAST)
        fit = np.outer(*balance(level)) * level.mean()
    scaled: Array = np.where(factor > LEAST, relative / np.maximum(factor, LEAST), fit)
    return scaled


def put_lone(
    drawn: Array, profiles: Array, lone: list[Lone], moves: Array, rng: np.random.Generator
) -> None:
    """Give lone phases in `drawn` (draws, rows, columns) the mean that `profiles` show."""
    noise = PooledNoise.of(profiles)
    for one in lone:
        on = rng.random(len(drawn)) < one.probability
        values, single = profiles[:, one.places].mean(1), one.places.sum() == 1
        variance = float(noise.variance[one.places][0]) if single else _relative_variance(values)
        freedom = noise.freedom if single else len(values) - 1.0
        target = _mean_draws(values, variance, freedom, moves, rng)
        now = drawn[:, one.places]
        scaled = now * (target / np.maximum(now.mean(1), LEAST))[:, None]
        drawn[:, one.places] = np.where(on[:, None], scaled, now)


def _mean_draws(
    values: Array, variance: float, freedom: float, moves: Array, rng: np.random.Generator
) -> Array:
    """Draws of the mean of energies `values` (samples,), on the scale of cube roots.

    Resamples of four samples have no tails: their normal scores are taken, which keep the order.
    """
    from scipy.stats import rankdata

    mean, count = float(values.mean()), len(moves)
    if mean <= 0:
        return np.zeros(count)
    scores = ndtri((rankdata(moves @ values) - 0.5) / count)
    errors = np.sqrt(variance / len(values) * freedom / rng.chisquare(freedom, count))
    found: Array = mean / np.maximum(1 - scores * errors / 3, 0.3) ** 3
    return found


FEW_SAMPLES = 16
"""Samples below which a record says what they cannot show."""
SURELY = 1.645
"""Normal quantile of 95 %."""


def hidden(profiles: Array) -> str | None:
    """A note on what few `profiles` (samples, rows, columns) cannot show, None where they can."""
    samples, phases = len(profiles), profiles[0].size
    if not 2 <= samples < FEW_SAMPLES or phases < FEWEST_PHASES:
        return None
    noise = PooledNoise.of(profiles)
    variance = float(np.median(noise.variance)) / samples
    if variance == 0:
        return None
    lone = shallowest_lone(variance, noise.freedom, samples, phases)
    rough = 100 * smallest_roughness(variance, phases)
    return (
        f"{samples} samples may hide a single phase that gets more than {lone:.2f} of what its row "
        f"and column imply, and differences of all phases below {rough:.0f} %: the interval of "
        "the least sensitive phase does not allow for them; take more images"
    )


def shallowest_lone(variance: float, freedom: float, samples: int, phases: int) -> float:
    """The share of what its row and column imply up to which a lone phase is found in 95 of 100.

    `variance` is that of a phase's mean, relative to its square. 0 if only a silent one is found.
    """
    departures = np.linspace(0.0, 3.0, 3001)
    spread = np.full_like(departures, variance)
    found = is_lone(-departures, spread, freedom, prior_of(samples), phases) > 0.5
    if not found.any():
        return 0.0
    needed = float(departures[found.argmax()]) + SURELY * variance**0.5
    return float(max(1 - needed / 3, 0.0) ** 3)


def smallest_roughness(variance: float, phases: int) -> float:
    """The standard deviation over phases that stands out of the noise of their means in 95 of 100.

    A mean square over so many phases has the relative standard error sqrt(2 / phases); it has to
    exceed that of the noise by one such quantile, and to do so surely by another.
    """
    return float((variance * 2 * SURELY * (2 / phases) ** 0.5) ** 0.5)
