"""Components of a phase profile: how much of each the samples show; see `profile_posterior`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logsumexp

from .phases import nested_periods

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ..base import Array

    Indices = np.ndarray[Any, np.dtype[np.int64]]

ZERO, SMOOTH = 0.5, 0.8
"""Prior probabilities that a component is 0, and that the profile is not rough."""
CERTAINTY = 0.7
"""Largest posterior probability that the base is all."""
CLEAR, WHOLE = 0.4, 0.5
"""Share of signal from which on a component is clear, and of its draws those that keep it whole."""
AMPLITUDES = np.geomspace(0.004, 1.0, 22)
ROUGHNESS = np.concatenate([[0.0], np.geomspace(0.01, 0.3, 9)])
"""Root mean squares over phases of a component's signal, and standard deviations of a phase."""
NO_NOISE = 1e-30


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


class Component:
    """One component of the samples' profiles, and after `draw_factors` its posterior.

    `values` (samples, entries) lie in `dimension` directions; roughness of variance 1 a phase has
    the squared length `rough` there.
    """

    def __init__(self, values: Array, dimension: int, rough: float) -> None:
        n = len(values)
        self.mean, self.dimension = values.mean(0), dimension
        self.scatter = values - self.mean
        total, self.freedom = _noise(self.scatter, dimension)
        self.noise = max(total / n, NO_NOISE)
        self.noise_freedom = max(self.freedom * (n - 1), 1.0)
        self.floors = ROUGHNESS**2 * rough
        self.signals = np.concatenate([[0.0], AMPLITUDES**2 * values.shape[1]])
        self.factors = self.inflation = np.zeros(0)

    def log_likelihoods(self) -> Array:
        """Of its mean, by roughness and signal (roughnesses, signals): Fisher's F of its length."""
        inflated = 1 + (self.floors[:, None] + self.signals[None]) / self.noise
        length = float((self.mean**2).sum()) / self.noise
        k, m = self.freedom, self.noise_freedom
        found: Array = -k / 2 * np.log(inflated) - (k + m) / 2 * np.log1p(k / m * length / inflated)
        return found

    def draw(self, weights: Array, rough: Indices, rng: np.random.Generator) -> None:
        """Draw the noise, the signal and so the shrinkage; `rough` (draws,) are indices."""
        count = len(rough)
        self.inflation = self.noise_freedom / rng.chisquare(self.noise_freedom, count)
        summed = weights.cumsum(1)
        summed /= summed[:, -1:]
        pick = (summed[rough] < rng.random(count)[:, None]).sum(1)
        signal = self.floors[rough] + self.signals[pick]
        self.factors = signal / (signal + self.noise * self.inflation)
        self.factors[(self.factors > CLEAR) & (rng.random(count) < WHOLE)] = 1.0

    @property
    def point(self) -> Array:
        """Its posterior mean (entries,)."""
        shrunk: Array = self.factors.mean() * self.mean
        return shrunk

    def drawn(self, moves: Array, noise: Array) -> Array:
        """Draws (draws, entries); `noise` is standard normal in the component's directions."""
        f = self.factors
        moved = self.mean + (moves @ self.scatter) * np.sqrt(self.inflation)[:, None]
        held_back = np.sqrt(f * (1 - f) * self.inflation * self.noise / self.dimension)
        found: Array = f[:, None] * moved + held_back[:, None] * noise
        return found


def draw_factors(components: Sequence[Component], count: int, rng: np.random.Generator) -> None:
    """Draw the shrinkage of all components together; where the base is all, everything is 0."""
    prior = np.full(len(AMPLITUDES) + 1, np.log((1 - ZERO) / len(AMPLITUDES)))
    prior[0] = np.log(ZERO)
    rough_prior = np.full(len(ROUGHNESS), np.log((1 - SMOOTH) / (len(ROUGHNESS) - 1)))
    rough_prior[0] = np.log(SMOOTH)
    fits = [c.log_likelihoods() for c in components]
    by_roughness = rough_prior + sum(logsumexp(fit + prior, axis=1) for fit in fits)
    some = logsumexp(by_roughness)
    odds = sum(float(fit[0, 0]) for fit in fits) - float(some)
    live = rng.random(count) >= min(float(expit(odds)), CERTAINTY)
    rough = rng.choice(len(ROUGHNESS), count, p=np.exp(by_roughness - some))
    for component, fit in zip(components, fits, strict=True):
        weights = np.exp(fit + prior - (fit + prior).max(1, keepdims=True))
        component.draw(weights, rough, rng)
        component.factors = np.where(live, component.factors, 0.0)


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
