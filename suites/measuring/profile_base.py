"""The base of a phase profile: what the structure implies, as far as the samples agree.

See `profile_posterior`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

if TYPE_CHECKING:
    from ..base import Array

POWER_ERROR, NEAR_ONE = 0.05, 0.2
"""Standard deviation of the structure's power about 1, and where the samples contradict it."""
LEAST = 1e-3
"""Smallest share of the mean that a base may have: what is divided by stays above 0."""
POWERS = np.linspace(-0.5, 2.0, 201)
BASES = np.log([0.6, 0.2, 0.2])
"""Prior log probabilities that the structure holds, that the network is even, or neither."""


@dataclass(frozen=True)
class Base:
    """The base profile (phase rows, phase columns) and its draws (draws or 1, rows, columns)."""

    mean: Array
    draws: Array
    near_structure: bool = True

    def part(self, count: int) -> Base:
        """The same with the first `count` draws."""
        return Base(self.mean, self.draws[:count], self.near_structure)


def even_base(profiles: Array) -> Base:
    """The base of a network without a structure."""
    ones = np.ones(profiles.shape[1:])
    return Base(ones, ones[None])


def structure_base(profiles: Array, expected: Array, count: int, rng: np.random.Generator) -> Base:
    """The structure to the power that the samples leave most probable."""
    floored = np.maximum(expected / expected.mean(), LEAST)
    direction = np.log(floored) - np.log(floored).mean()
    if direction.std() < LEAST:
        return even_base(profiles)
    direction /= np.sqrt((direction**2).sum())
    relative = profiles / floored
    slopes = ((relative / relative.mean() - 1) * direction).sum((1, 2))
    predicted = np.array([_slope(floored, power, direction) for power in POWERS])
    power, error = _power(slopes, predicted)
    drawn = power + error * rng.standard_normal(count)
    return Base(
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
