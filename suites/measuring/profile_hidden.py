"""What the samples of a phase profile cannot show; see `profile_posterior`.

A single phase is found where its departure exceeds what chance gives among so many phases, and a
roughness that all phases share where it exceeds the error of the noise. What is not found is taken
for even, and the interval of `weakest` does not allow for it: with few samples that is said.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .profile_lone import FEWEST_PHASES, PooledNoise, is_lone, prior_of

if TYPE_CHECKING:
    from ..base import Array

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
