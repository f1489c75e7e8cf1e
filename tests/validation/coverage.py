"""How often the intervals of the estimating suites hold the truth, on maps whose truth is planted.

A planted map S0 (height, width) is known exactly; sample i shows S0 times noise of mean 1, drawn
from chi-square laws scaled by their degrees of freedom. Two kinds of noise:

pixels
    every pixel of every sample has its own: what random signs and images do to a gradient's energy.
profiles
    moreover each phase of each sample has its own, with `PROFILE_DEGREES` degrees of freedom, the
    same in all cells: what independent weight sets do to the profile itself.

The samples go through the suites' own `measure`, seed by seed. A metric's *coverage* is the share
of seeds whose 95 % interval holds the value that the metric has on S0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.model import Model
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Array, Context, Estimate, Suite
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.erf.metrics import LUO_THRESHOLD
from perimetry.suites.erf.suite import ERF
from perimetry.suites.measuring import phases

CELLS = 5
"""Cells along an axis of a planted map: three of them are interior."""


DEGREES = 3
"""Degrees of freedom of a pixel's noise: one for each colour channel."""


PROFILE_DEGREES = 20


SIDE, SIGMA = 48, 6.0
"""Side of a planted receptive field and the standard deviation of its Gaussian, in pixels."""


Noise = Literal["pixels", "profiles"]


@dataclass(frozen=True)
class Coverage:
    """What became of one metric over the seeds of one setting.

    `covered`, `below` and `above` are shares of the `seeds` with an interval: the truth inside it,
    below it, above it. `missing` counts seeds without one. `mean` and `spread` are the mean and
    the standard deviation of the values; `width` is the mean half-width over 1.96 `spread`.
    """

    plant: str
    noise: Noise
    samples: int
    metric: str
    truth: float
    seeds: int
    covered: float
    below: float
    above: float
    missing: int
    mean: float
    spread: float
    width: float

    @property
    def error(self) -> float:
        """Standard error of `covered` if the true coverage is 95 %."""
        return float(np.sqrt(0.95 * 0.05 / max(1, self.seeds)))


def _even(period: int) -> Array:
    return np.ones((period, period))


def _odd_kernel(period: int) -> Array:
    """Touches of a 3 x 3 window with stride 2: 1, 2 along each axis."""
    along = np.tile([1.0, 2.0], period // 2)
    return np.outer(along, along)


def _graded(period: int) -> Array:
    """A smooth wave over the whole period: the weakest phase has neighbours that nearly tie."""
    along = 1 - 0.3 * np.cos(2 * np.pi * np.arange(period) / period)
    return np.outer(along, along)


def _one_weak(period: int) -> Array:
    profile = np.ones((period, period))
    profile[1, 1] = 0.4
    return profile


PROFILES: Mapping[str, Callable[[int], Array]] = {
    "even": _even,
    "odd kernel": _odd_kernel,
    "graded": _graded,
    "one weak": _one_weak,
}


def phase_coverage(
    profile: str,
    period: int,
    samples: int,
    *,
    noise: Noise = "pixels",
    seeds: int = 200,
    draws: int = 200,
) -> list[Coverage]:
    """Coverage of the phase metrics of `deadpixel` on a planted profile of `period` x `period`."""

    plant = PROFILES[profile](period)
    plant = plant / plant.mean()
    tiled = np.tile(plant, (CELLS, CELLS))
    model = _strided(len(tiled), period)
    found = _over_seeds(
        DEADPIXEL,
        model,
        lambda rng: _noisy(tiled, samples, rng, period if noise == "profiles" else None)[:, None],
        seeds=seeds,
        draws=draws,
    )
    truths = phase_truths(plant, tiled)
    name = f"{profile}, period {period}"
    return [_summary(name, noise, samples, m, t, found[m]) for m, t in truths.items()]


def phase_truths(plant: Array, tiled: Array) -> dict[str, float]:
    """What the phase metrics are on the planted `plant` (phase row, phase column) itself."""
    mean_row = plant.reshape(len(plant) // 2, 2, -1, 2).mean((0, 2))
    return {
        "weakest": float(plant.min()),
        "imbalance": float(plant.std()),
        "ratio": float(plant.max() / plant.min()),
        "by_period_2": float(mean_row.var()),
        "dead@0.5": float((plant < 0.5).mean()),
        "relL1": float(phases.relative_difference(tiled, 1)),
    }


def erf_coverage(
    samples: int, *, seeds: int = 200, draws: int = 200, sigma: float = SIGMA
) -> list[Coverage]:
    """Coverage of `erf`'s `luo_size`, `radius` and `sigma_x` on a planted Gaussian."""

    place = np.arange(SIDE) - SIDE // 2
    bell = np.exp(-(place**2) / (2 * sigma**2))
    plant = np.outer(bell, bell)
    found = _over_seeds(
        ERF, _strided(SIDE, 2), lambda rng: _noisy(plant, samples, rng), seeds=seeds, draws=draws
    )
    variance = (bell @ place**2) / bell.sum() - ((bell @ place) / bell.sum()) ** 2
    truths = {
        "luo_size": float(np.sqrt((plant > LUO_THRESHOLD * plant.max()).sum())),
        "radius": float(np.sqrt(2 * variance)),
        "sigma_x": sigma,
    }
    name = f"Gaussian, sigma {sigma:g}"
    return [_summary(name, "pixels", samples, m, t, found[m]) for m, t in truths.items()]


def _noisy(
    plant: Array, samples: int, rng: np.random.Generator, period: int | None = None
) -> Array:
    """Samples (n, height, width) of `plant`; with `period`, their phases vary too."""
    noise = _unit_chi_square(rng, (samples, *plant.shape), DEGREES)
    if period is None:
        return plant * noise
    cells = len(plant) // period
    own = _unit_chi_square(rng, (samples, period, period), PROFILE_DEGREES)
    varied: Array = plant * np.tile(own, (1, cells, cells)) * noise
    return varied


def _unit_chi_square(rng: np.random.Generator, shape: tuple[int, ...], degrees: int) -> Array:
    """Chi-square variables of `degrees` degrees of freedom, scaled to mean 1."""
    return rng.standard_gamma(degrees / 2, shape) / (degrees / 2)


def _strided(side: int, stride: int) -> Model:
    """Any model of that input size and total stride: the suites read only those from it."""

    return wrap(nn.AvgPool2d(stride), spec=InputSpec(side, side), device="cpu")


def _over_seeds(
    suite: Suite,
    model: Model,
    draw: Callable[[np.random.Generator], Array],
    *,
    seeds: int,
    draws: int,
) -> dict[str, list[Estimate]]:
    """Estimates by metric, one for each seed."""

    found: dict[str, list[Estimate]] = {metric.name: [] for metric in suite.metrics}
    (probe,) = suite.probes(model, "energy", 0)
    for seed in range(seeds):
        maps = {probe.name: draw(np.random.default_rng([seed, seeds]))}
        context = Context(torch.empty(0), seed=seed, draws=draws)
        for name, estimate in suite.measure(model, "energy", maps, context).metrics.items():
            found[name].append(estimate)
    return found


def _summary(
    plant: str,
    noise: Noise,
    samples: int,
    metric: str,
    truth: float,
    estimates: Sequence[Estimate],
) -> Coverage:
    rows = [(e.value, e.low, e.high) for e in estimates if e.low is not None]
    value, low, high = np.array(rows, dtype=np.float64).reshape(-1, 3).T
    spread = float(value.std()) if len(value) else 0.0
    below, above = low - truth > ROUNDING, truth - high > ROUNDING
    return Coverage(
        plant,
        noise,
        samples,
        metric,
        truth,
        len(value),
        covered=_mean(~(below | above)),
        below=_mean(below),
        above=_mean(above),
        missing=len(estimates) - len(value),
        mean=_mean(value),
        spread=spread,
        width=_mean(high - low) / 2 / (1.96 * spread) if spread > 0 else float("nan"),
    )


ROUNDING = 1e-9


def _mean(values: np.ndarray[Any, Any]) -> float:
    return float(np.mean(values)) if len(values) else float("nan")
