"""Do the intervals of paired differences of `weakest` hold the planted difference?

Two models see the same images: their samples share half of the noise of each phase. Their
difference is formed as `compare` and `check` form it, from draws that resample the same images.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from perimetry.suites.base import Array
from perimetry.suites.measuring.bootstrap import bootstrap

from .before_after import DRAWS, Interval, weakest_after
from .check import ReferenceCheck
from .sources import NOISE, PERIOD, Source, planted

GROUP = "Paired differences of `weakest`"

PAIRS = (
    ("stem, structure known", "stem, structure known"),
    ("stem, structure unknown", "3/2"),
    ("deep, structure known", "deep, structure unknown"),
    ("graded", "stem, structure unknown"),
    ("flat", "stem, structure known"),
    ("one weak phase (0.3)", "stem, structure known"),
    ("one weak phase (0.3)", "one weak phase (0.3)"),
    ("wrong structure (stem for deep)", "deep, structure known"),
)
SAMPLES = (8, 16, 64)
SEEDS = 60
LEAST = 0.93 - 2 * (0.93 * 0.07 / SEEDS) ** 0.5
"""The goal less two standard errors."""


def two_models(first: Array, second: Array, count: int, rng: np.random.Generator) -> list[Array]:
    """Samples (count, phase rows, phase columns) of two profiles on the same images."""
    shape = (count, PERIOD, PERIOD)
    common = rng.standard_gamma(2 * NOISE, shape) / (2 * NOISE)
    own = [rng.standard_gamma(2 * NOISE, shape) / (2 * NOISE) for _ in range(2)]
    both = [truth * common * noise for truth, noise in zip((first, second), own, strict=True)]
    return [profiles / profiles.mean((1, 2), keepdims=True) for profiles in both]


def holds(first: Source, second: Source, samples: int, seed: int) -> bool:
    """Whether the interval of one difference holds the planted one."""
    rng = np.random.default_rng([seed, samples])
    resamples = bootstrap(samples, DRAWS, seed)
    found: list[Interval] = [
        weakest_after(profiles, resamples, source.expected)
        for profiles, source in zip(
            two_models(first.profile, second.profile, samples, rng), (first, second), strict=True
        )
    ]
    value = found[0].value - found[1].value
    draws = found[0].draws - found[1].draws
    difference = resamples.estimate(np.concatenate([[value], draws]))
    truth = first.truth - second.truth
    if difference.low is None or difference.high is None:
        return abs(value - truth) < 1e-9
    return difference.low - 1e-9 <= truth <= difference.high + 1e-9


def checks(*, quick: bool) -> Iterator[ReferenceCheck]:
    """The coverage of each pair at each number of samples; nothing if `quick`."""
    if quick:
        return
    sources = planted()
    for one, other in PAIRS:
        for samples in SAMPLES:
            first, second = sources[one], sources[other]
            covered = np.mean([holds(first, second, samples, seed) for seed in range(SEEDS)])
            yield ReferenceCheck(
                GROUP,
                f"{one}, less {other} ({samples} samples, {SEEDS} seeds)",
                "planted truth; 93 % less two standard errors",
                LEAST,
                float(covered),
                "Bootstrap.estimate(...)",
                relation=">=",
                shortfall=f"the interval covers {100 * covered:.1f} %",
            )
