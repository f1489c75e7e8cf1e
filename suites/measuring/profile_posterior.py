"""What samples show of a phase profile: draws from its posterior, without the noise.

The P x Q phases of a profile are noisy, and the smallest of 1,024 noisy means is too small. But a
network's profile has little freedom: it is close to what the architecture implies, times a factor
for each row and one for each column, each a sum over the nested periods 2, 4, 8, ..., and what is
left of such products is small. This module estimates such a profile by empirical Bayes:

    A = B r c' (1 + e),   r and c rows and columns, e the rest, all of mean 1, 1 and 0.

B, the base
    The structure's profile S to a power: S itself, up to a small error of the power (a normal prior
    of standard deviation `POWER_ERROR` about 1), or 1 where the samples say that the network is
    even, or the power that they show (prior uniform on `POWERS`); whichever of the three is most
    probable. Without a structure B is 1. Where the power is not near 1, the samples contradict the
    structure, and half of the draws are made without it.
r, c and e: *components* for each step of the nested periods
    Orthogonal projections of the samples' profiles over B, those of e over B r c', where rows,
    columns and both together are three components of a step. A component of d
    directions whose mean over n samples has the squared length q is 0 with probability `ZERO`, or
    has a signal of squared length t (prior log-uniform on `AMPLITUDES`, as a root mean square over
    phases). With noise of squared length v, q is (t + v) times a chi-square over its k degrees of
    freedom. k, the effective number of directions, and v come from the samples' own spread, v with
    its chi-square of k (n - 1). A draw takes v, then t, and shrinks the mean by f = t / (t + v).
    What is held back returns as noise of variance f (1 - f) v, so that a draw is one of the
    profiles that the samples leave possible, not an average of them. The noise of the mean itself
    is that of a resample of the samples, so that two models on the same images stay paired.
All zero
    The base alone explains the samples with prior probability 1/2, and at most with `CERTAINTY`.
Lone phases
    A phase that departs from all that, and that no period explains, is lone with prior probability
    `LONE` over the number of phases. Its departure (normal, standard deviation `LONE_SIZE`) is
    compared with Student's t, its variance being shrunk to the median over the phases. A phase that
    is silent in every sample is taken as it is. With fewer than eight samples a lone phase is found
    only if it gets almost nothing.

A metric is a function of the profile; its value is the median over the draws, its interval lies
between their 2.5 % and 97.5 % quantiles. As every draw is a profile of mean 1, `weakest` is never
above 1. Coverage is measured on planted profiles and pools of real maps in docs/validation.md.

The definitions are ours; empirical Bayes is of Robbins (1956) and Efron and Morris (1973), the
mixture with a point at zero that of Mitchell and Beauchamp (1988).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
from scipy.special import expit, logsumexp

from ..base import missing
from .phases import WEAKEST_IS_ZERO, imbalance, least_sensitive, nested_periods, ratio

if TYPE_CHECKING:
    from ..base import Array, Estimate
    from .bootstrap import Bootstrap


ZERO, LONE, CERTAINTY = 0.85, 0.05, 0.9
"""Prior probabilities (see the module), and the largest posterior one that the base is all."""
POWER_ERROR, NEAR_ONE = 0.05, 0.2
"""Standard deviation of the structure's power about 1, and where the samples contradict it."""
LONE_SIZE, LONE_SURE = 0.5, 1e-3
"""Standard deviation of a lone phase's departure; phases less probably lone are not drawn."""
POOLED = 20
"""The degrees of freedom that the median variance over phases counts for, in that of one phase."""
LEAST = 1e-3
"""Smallest share of the mean that a base or a factor may have: what is divided by stays above 0."""
FEWEST_PHASES = 16
"""Profiles of fewer phases have no lone ones: periods explain every phase."""
AMPLITUDES = np.geomspace(0.004, 1.0, 22)
POWERS = np.linspace(-0.5, 2.0, 201)
BASES = np.log([0.6, 0.2, 0.2])
"""Prior log probabilities that the structure holds, that the network is even, or neither."""


@dataclass(frozen=True)
class Posterior:
    """Draws of a profile (draws, phase rows, phase columns), each of mean 1.

    `exact` says that the samples agree to rounding: then there is one draw, their mean.
    `contradicted` says that the samples disagree with the structure that was given.
    """

    draws: Array
    exact: bool = False
    contradicted: bool = False


def profile_posterior(
    profiles: Array, resamples: Bootstrap, expected: Array | None = None
) -> Posterior:
    """Posterior of the mean of `profiles` (samples, phase rows, phase columns), each of mean 1.

    `expected` (phase rows, phase columns) is the structure's profile, None where there is none.
    Two models share the resamples of their images, but not the random numbers that stand for what
    the samples do not show; the same function gives the same numbers, whatever it is called.
    """
    mean = profiles.mean(0)
    if len(profiles) < 2 or _agree(profiles):
        return Posterior(mean[None], exact=len(profiles) > 1)
    rng = np.random.default_rng([len(profiles), _signature(profiles)])
    moves = resamples.deviations
    if expected is None:
        return Posterior(_draw(profiles, _even_base(profiles), moves, rng))
    base = _structure_base(profiles, expected, len(moves), rng)
    if base.near_structure:
        return Posterior(_draw(profiles, base, moves, rng))
    half = len(moves) // 2
    with_structure = _draw(profiles, base.part(half), moves[:half], rng)
    without = _draw(profiles, _even_base(profiles), moves[half:], rng)
    return Posterior(np.concatenate([with_structure, without]), contradicted=True)


def phase_estimates(posterior: Posterior, resamples: Bootstrap) -> dict[str, Estimate]:
    """`weakest`, `imbalance` and `ratio` of a profile."""
    draws, mean = posterior.draws, posterior.draws.mean(0)
    found = {}
    for name, read, low, high in (
        ("weakest", least_sensitive, 0.0, 1.0),
        ("imbalance", imbalance, 0.0, None),
        ("ratio", ratio, 1.0, None),
    ):
        values = read(draws)
        found[name] = (
            resamples.from_draws(values, low=low, high=high, of_mean=float(read(mean)))
            if np.isfinite(np.median(values))
            else missing(f"{WEAKEST_IS_ZERO}: the ratio is unbounded")
        )
    return found


def _signature(profiles: Array) -> int:
    """A number that differs between models, and not between runs that differ by rounding."""
    coarse = np.floor(profiles[:, 0, 0] * 10).astype(np.int64)
    return crc32(coarse.tobytes())


def _agree(profiles: Array) -> bool:
    """Whether all samples are the same up to rounding."""
    return bool(np.ptp(profiles, axis=0).max() < 1e-9)


# ---------------------------------------------------------------------------- the base


@dataclass(frozen=True)
class _Base:
    """The base profile (phase rows, phase columns) and its draws (draws or 1, rows, columns)."""

    mean: Array
    draws: Array
    near_structure: bool = True

    def part(self, count: int) -> _Base:
        """The same with the first `count` draws."""
        return _Base(self.mean, self.draws[:count], self.near_structure)


def _even_base(profiles: Array) -> _Base:
    ones = np.ones(profiles.shape[1:])
    return _Base(ones, ones[None])


def _structure_base(
    profiles: Array, expected: Array, count: int, rng: np.random.Generator
) -> _Base:
    """The structure to the power that the samples leave most probable."""
    floored = np.maximum(expected / expected.mean(), LEAST)
    direction = np.log(floored) - np.log(floored).mean()
    if direction.std() < LEAST:
        return _even_base(profiles)
    direction /= np.sqrt((direction**2).sum())
    relative = profiles / floored
    slopes = ((relative / relative.mean() - 1) * direction).sum((1, 2))
    predicted = np.array([_slope(floored, power, direction) for power in POWERS])
    power, error = _power(slopes, predicted)
    drawn = power + error * rng.standard_normal(count)
    return _Base(
        _to_power(floored, np.array([power]))[0],
        _to_power(floored, drawn),
        abs(power - 1) <= NEAR_ONE,
    )


def _to_power(profile: Array, powers: Array) -> Array:
    raised: Array = profile ** powers[:, None, None]
    raised /= raised.mean((1, 2), keepdims=True)
    return raised


def _slope(profile: Array, power: float, direction: Array) -> float:
    """What a network whose profile is `profile` to `power` shows along `direction`, over it."""
    ratio = _to_power(profile, np.array([power]))[0] / profile
    return float(((ratio / ratio.mean() - 1) * direction).sum())


def _power(slopes: Array, predicted: Array) -> tuple[float, float]:
    """Posterior mean and standard deviation of the power; see the module's docstring."""
    n = len(slopes)
    variance = max(float(slopes.var(ddof=1)) / n, 1e-16)
    fits = -n / 2 * np.log1p((slopes.mean() - predicted) ** 2 / variance / (n - 1))
    near = -(((POWERS - 1) / POWER_ERROR) ** 2) / 2
    near -= logsumexp(near)
    even = float(np.interp(0.0, POWERS, fits))
    evidence = BASES + np.array([logsumexp(fits + near), even, logsumexp(fits) - np.log(len(fits))])
    best = int(evidence.argmax())
    if best == 1:
        return 0.0, 0.0
    weights = fits + near if best == 0 else fits
    weights = np.exp(weights - logsumexp(weights))
    power = float(weights @ POWERS)
    return power, float(np.sqrt(weights @ (POWERS - power) ** 2))


# ---------------------------------------------------------------------------- components


@dataclass(frozen=True)
class Subspaces:
    """Orthogonal parts of profiles (..., P, Q) less their mean, one for each step of the periods.

    `rows[k]` (P, P) and `columns[k]` (Q, Q) average over the places that agree modulo the period of
    step k, less the same of the step before; step 0 is the mean.
    """

    row_folds: tuple[Array, ...]
    column_folds: tuple[Array, ...]

    @property
    def rows(self) -> list[Array]:
        """Projections of row profiles (P,)."""
        return [a - b for b, a in pairwise(self.row_folds)]

    @property
    def columns(self) -> list[Array]:
        """Projections of column profiles (Q,)."""
        return [a - b for b, a in pairwise(self.column_folds)]

    def components(self, profiles: Array) -> list[Array]:
        """Rows alone, columns alone and both together, for each step; shaped as `profiles`."""
        rows, columns = profiles.mean(-1), profiles.mean(-2)
        before, found = profiles.mean((-2, -1), keepdims=True), []
        folds = zip(self.row_folds[1:], self.column_folds[1:], strict=True)
        for (fold_r, fold_c), row, column in zip(folds, self.rows, self.columns, strict=True):
            full = fold_r @ profiles @ fold_c.T
            along = np.broadcast_to((rows @ row.T)[..., :, None], full.shape)
            across = np.broadcast_to((columns @ column.T)[..., None, :], full.shape)
            found += [along, across, full - before - along - across]
            before = full
        return found

    def dimensions(self) -> list[int]:
        """How many directions each of `components` has."""
        sizes = [
            (round(np.trace(r)), round(np.trace(c)))
            for r, c in zip(self.row_folds, self.column_folds, strict=True)
        ]
        found = []
        for (a0, b0), (a, b) in pairwise(sizes):
            found += [a - a0, b - b0, (a * b - a0 * b0) - (a - a0) - (b - b0)]
        return found


@cache
def subspaces(shape: tuple[int, int]) -> Subspaces:
    """Orthogonal parts of profiles of `shape`."""
    steps = [(1, 1), *nested_periods(shape)]
    return Subspaces(
        tuple(_fold(shape[0], rows) for rows, _ in steps),
        tuple(_fold(shape[1], columns) for _, columns in steps),
    )


def _fold(size: int, period: int) -> Array:
    """Matrix that averages over the places of an axis that agree modulo `period`."""
    place = np.arange(size)
    same: Array = (place[:, None] % period == place[None] % period).astype(np.float64)
    same /= same.sum(1, keepdims=True)
    return same


class _Component:
    """Posterior of one component; `values` (samples, entries) lie in `dimension` directions."""

    def __init__(
        self, values: Array, dimension: int, entries: int, count: int, rng: np.random.Generator
    ) -> None:
        n = len(values)
        self.mean, self.dimension = values.mean(0), dimension
        self.scatter = values - self.mean
        total, freedom = _noise(self.scatter, dimension)
        self.noise = total / n
        scale = max(freedom * (n - 1), 1.0)
        self.inflation = scale / rng.chisquare(scale, count)
        length = float((self.mean**2).sum())
        if self.noise < 1e-24:  # every sample shows the same: nothing to shrink
            self.factors = np.full(count, float(length > 1e-20))
            self.log_odds_of_zero = -1e3 if length > 1e-20 else 0.0
            return
        noise = (self.noise * self.inflation)[:, None]
        signal = (AMPLITUDES**2 * entries)[None]
        at_zero = _log_likelihood(length, noise, freedom)[:, 0]
        of_signal = _log_likelihood(length, signal + noise, freedom)
        some = logsumexp(of_signal, axis=1) - np.log(len(AMPLITUDES))
        mixture = np.logaddexp(np.log(ZERO) + at_zero, np.log(1 - ZERO) + some)
        weights = np.exp(of_signal - logsumexp(of_signal, axis=1, keepdims=True))
        pick = (weights.cumsum(1) < rng.random(count)[:, None]).sum(1).clip(0, len(AMPLITUDES) - 1)
        self.if_some = signal[0, pick] / (signal[0, pick] + noise[:, 0])
        is_zero = rng.random(count) < np.exp(np.log(ZERO) + at_zero - mixture)
        self.factors = np.where(is_zero, 0.0, self.if_some)
        self.log_odds_of_zero = float(logsumexp(at_zero) - logsumexp(mixture))

    @property
    def point(self) -> Array:
        """Its posterior mean (entries,)."""
        shrunk: Array = self.factors.mean() * self.mean
        return shrunk

    def resampled(self, moves: Array) -> Array:
        """Shrunk resamples (draws, entries)."""
        moved = self.mean + (moves @ self.scatter) * np.sqrt(self.inflation)[:, None]
        drawn: Array = self.factors[:, None] * moved
        return drawn

    @property
    def held_back(self) -> Array:
        """Standard deviation (draws,), in each direction, of what was shrunk away."""
        f = self.factors
        kept: Array = np.sqrt(f * (1 - f) * self.inflation * self.noise / self.dimension)
        return kept


def _log_likelihood(length: float, expected: Array, freedom: float) -> Array:
    """Of a squared `length` that is `expected` times a chi-square over its `freedom`."""
    found: Array = -freedom / 2 * (np.log(expected) + length / expected)
    return found


def _noise(scatter: Array, dimension: int) -> tuple[float, float]:
    """Squared length of one sample's noise, and how many directions it effectively has.

    The latter is (tr C)^2 / tr C^2, C the covariance; tr C^2 comes from the products of unlike
    samples, less what their common mean leaves there. `scatter` (samples, entries) has mean 0.
    """
    n = len(scatter)
    products = scatter @ scatter.T
    total = float(np.trace(products)) / (n - 1)
    if total <= 0:
        return 0.0, float(dimension)
    unlike = float((products**2).sum() - (np.diag(products) ** 2).sum()) / (n * (n - 1))
    square = unlike - total**2 / n**2 * (n - 1) / n
    square /= 1 - 2 / n + 2 / n**2
    if square <= 0:
        return total, float(dimension)
    return total, float(np.clip(total**2 / square, 1, dimension))


# ---------------------------------------------------------------------------- draws


def _draw(profiles: Array, base: _Base, moves: Array, rng: np.random.Generator) -> Array:
    """Draws (draws, rows, columns); `moves` (draws, samples) are deviations of resamples."""
    count, shape = len(moves), profiles.shape[1:]
    parts = subspaces((shape[0], shape[1]))
    relative = profiles / base.mean
    relative = relative / relative.mean()
    row, column = _balance(relative.mean(0))
    rows = _line_components((relative / column).mean(2), parts.rows, count, rng)
    columns = _line_components((relative / row[:, None]).mean(1), parts.columns, count, rng)
    separable = base.mean * np.outer(_point_line(rows, shape[0]), _point_line(columns, shape[1]))
    rest = profiles / (separable / separable.mean())
    rest = rest / rest.mean() - 1
    left = _rest_components(rest, parts, count, rng)
    live = _not_all_zero([c for _, c in (*rows, *columns, *left)], count, rng)
    drawn = base.draws * _line(rows, moves, shape[0], rng)[:, :, None]
    drawn = drawn * _line(columns, moves, shape[1], rng)[:, None, :]
    drawn = drawn * (1 + _rest(left, moves, parts, shape, rng))
    drawn = np.where(live[:, None, None], drawn, base.draws)
    drawn = drawn / drawn.mean((1, 2), keepdims=True)
    explained = sum((c.point for _, c in left), start=np.zeros(rest[0].size)).reshape(shape)
    _add_lone(drawn, profiles, rest - explained, moves, rng)
    found: Array = np.maximum(drawn, 0.0)
    found /= found.mean((1, 2), keepdims=True)
    return found


_Rest = list[tuple[int, _Component]]
"""Components of what rows and columns leave, each with its place in `Subspaces.components`."""


def _rest_components(rest: Array, parts: Subspaces, count: int, rng: np.random.Generator) -> _Rest:
    """Components of `rest` (samples, rows, columns)."""
    every = zip(parts.components(rest), parts.dimensions(), strict=True)
    return [
        (index, _Component(values.reshape(len(rest), -1), size, rest[0].size, count, rng))
        for index, (values, size) in enumerate(every)
        if size
    ]


def _rest(
    components: _Rest,
    moves: Array,
    parts: Subspaces,
    shape: tuple[int, ...],
    rng: np.random.Generator,
) -> Array:
    """Draws (draws, rows, columns) of e."""
    change = np.zeros((len(moves), *shape))
    for index, component in components:
        used = component.factors > 0
        if used.any():
            noise = parts.components(rng.standard_normal((int(used.sum()), *shape)))[index]
            change[used] += component.resampled(moves)[used].reshape(-1, *shape)
            change[used] += component.held_back[used][:, None, None] * noise
    return change


def _balance(profile: Array) -> tuple[Array, Array]:
    """Factors of rows and of columns over which `profile` has even row and column means.

    Alternating proportional fitting (Deming and Stephan 1940): what is left is interaction alone.
    """
    row, column = np.ones(profile.shape[0]), np.ones(profile.shape[1])
    for _ in range(10):
        row = np.maximum((profile / column).mean(1), LEAST)
        column = np.maximum((profile / row[:, None]).mean(0), LEAST)
    return row / row.mean(), column / column.mean()


_Line = list[tuple["Array", _Component]]
"""Components of one axis, each with its projection."""


def _line_components(
    values: Array, projections: list[Array], count: int, rng: np.random.Generator
) -> _Line:
    """Components of row or column profiles (samples, places)."""
    values = values / values.mean()
    return [
        (p, _Component(values @ p.T, round(np.trace(p)), values.shape[1], count, rng))
        for p in projections
        if round(np.trace(p))
    ]


def _point_line(line: _Line, places: int) -> Array:
    return np.maximum(1 + sum((c.point for _, c in line), start=np.zeros(places)), LEAST)


def _line(line: _Line, moves: Array, places: int, rng: np.random.Generator) -> Array:
    """Draws (draws, places) of the factor of each row or column."""
    factor = np.ones((len(moves), places))
    for projection, component in line:
        noise = rng.standard_normal((len(moves), places)) @ projection.T
        factor += component.resampled(moves) + component.held_back[:, None] * noise
    floored: Array = np.maximum(factor, LEAST)
    return floored


def _not_all_zero(
    components: list[_Component], count: int, rng: np.random.Generator
) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Which draws have components: the others are the base alone.

    A draw that is to have components, and has drawn none, gets the one that is most probably there.
    """
    odds = sum(c.log_odds_of_zero for c in components)
    live: np.ndarray[tuple[int], np.dtype[np.bool_]] = rng.random(count) >= min(
        float(expit(odds)), CERTAINTY
    )
    none = live & ~np.any([c.factors > 0 for c in components], axis=0)
    likely = min(components, key=lambda c: c.log_odds_of_zero)
    if none.any() and likely.noise >= 1e-24:
        likely.factors = np.where(none, likely.if_some, likely.factors)
    return live


def _add_lone(
    drawn: Array, profiles: Array, left: Array, moves: Array, rng: np.random.Generator
) -> None:
    """Put lone phases into `drawn`; `left` (samples, rows, columns) is what nothing explains."""
    n, places = len(profiles), left[0].size
    silent = ~profiles.any(0)
    drawn[:, silent] = 0.0
    if places < FEWEST_PHASES:
        return
    own = left.var(0, ddof=1)
    freedom = n - 1 + POOLED
    variance = (own * (n - 1) + np.median(own) * POOLED) / freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        error, departure = variance / n, left.mean(0) ** 2
        ordinary = -(freedom + 1) / 2 * np.log1p(departure / error / freedom) - np.log(error) / 2
        spread = LONE_SIZE**2 + error
        lone = -np.log(spread) / 2 - departure / spread / 2
        probability = np.nan_to_num(expit(np.log(LONE / places) + lone - ordinary))
    for row, column in np.argwhere((probability > LONE_SURE) & ~silent):
        on = rng.random(len(drawn)) < probability[row, column]
        values = profiles[:, row, column]
        wider = variance[row, column] / own[row, column] if own[row, column] > 0 else 0.0
        scale = np.sqrt(freedom / rng.chisquare(freedom, len(drawn)) * wider)
        drawn[on, row, column] = (values.mean() + moves @ (values - values.mean()) * scale)[on]
