"""Metrics of the comb's samples: detectability, leverage, agreement of three estimates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Estimate, missing
from ..measuring.bootstrap import MIN_SAMPLES
from ..measuring.phases import WEAKEST_IS_ZERO, divide_by_mean
from ..measuring.unbiased import pseudo_values, root_mean_square

if TYPE_CHECKING:
    from collections.abc import Callable

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap
    from .phase_comb import Comb

ROUNDING = 1e-6
"""Rounding error of a profile of mean 1 in single precision."""


def choose_phases(energies: Array, choose: Callable[..., Any]) -> Array:
    """For each sample the phase that `choose` selects on all other samples: (samples,).

    `energies` are (samples, p, q), `choose` is `np.argmin` or `np.argmax`; phases are numbered row
    by row. A single sample is not left out.
    """
    flat = energies.reshape(len(energies), -1)
    others = flat.sum(0) - flat if len(flat) > 1 else flat
    places: Array = choose(others, 1)
    return places


def read_phases(values: Array, places: Array) -> Array:
    """Read `values` (samples, p, q) at each sample's own phase: (samples,)."""
    flat = values.reshape(len(values), -1)
    found: Array = flat[np.arange(len(flat)), places[: len(flat)]]
    return found


def detect_metrics(
    energies: Array, signals: Array, noises: Array, resamples: Bootstrap
) -> dict[str, Estimate]:
    """Thresholds at the weakest and the strongest phase, and their ratio; see `suite`.

    All (samples, p, q): mean squared response per pixel, squared responses, and their mean squared
    products with the response to input noise.
    """
    thresholds = {}
    for name, choose in (("weakest", np.argmin), ("strongest", np.argmax)):
        places = choose_phases(energies, choose)
        signal = resamples.weights @ read_phases(signals, places)
        noise = np.sqrt(resamples.weights @ read_phases(noises, places))
        thresholds[name] = np.divide(
            noise, signal, out=np.full_like(noise, np.nan), where=signal > 0
        )
    undetected = missing(f"{WEAKEST_IS_ZERO}: no step is detected there")
    weakest, strongest = thresholds["weakest"], thresholds["strongest"]
    covered = bool(np.isfinite(weakest).all())
    return {
        "detect_weakest": resamples.estimate(weakest, low=0.0) if covered else undetected,
        "detect_strongest": resamples.estimate(strongest, low=0.0),
        "detect_ratio": resamples.estimate(weakest / strongest, low=0.0) if covered else undetected,
    }


def leverage(energies: Array, effects: Array, resamples: Bootstrap) -> Estimate:
    """Mean effect of the attack on the strongest phase over that on the weakest.

    `effects` (attacked samples, p, q) are those of the first samples of `energies`.
    """
    strong, weak = (
        resamples.weights @ read_phases(effects, choose_phases(energies, choose))
        for choose in (np.argmax, np.argmin)
    )
    if not (weak > 0).all():
        return missing(f"{WEAKEST_IS_ZERO}: the leverage is unbounded")
    return resamples.estimate(strong / weak, low=0.0)


def rms_distance(differences: Array, resamples: Bootstrap) -> Estimate:
    """Root mean square over phases of the mean `differences` (samples, p, q), without noise."""
    flat = differences.reshape(len(differences), -1)
    return resamples.estimate(root_mean_square(flat, resamples), low=0.0)


def gradient_metrics(
    energies: Array, gradients: Array, error: float, resamples: Bootstrap
) -> tuple[dict[str, Estimate], Array]:
    """Agreement of the comb's profile with that of the gradients, and the latter (p, q).

    `energies` and `gradients` are (samples, p, q) of the same images; `error` is the relative
    error of energies caused by the comb's step.
    """
    comb, exact = (pseudo_values(e, divide_by_mean) for e in (energies, gradients))
    found = {
        "agreement_gradient": rms_distance(comb - exact, resamples),
        "agreement_gradient_z": standard_distance(comb, exact, error),
    }
    return found, divide_by_mean(gradients.mean(0))


def standard_distance(comb: Array, exact: Array, error: float) -> Estimate:
    """Root mean square over phases of difference over standard error; about 1 if they agree.

    The profiles' pseudo-values are (samples, p, q). The standard error of a phase is that of the
    mean difference, with `error` times the profile, and rounding, added in quadrature; the mean
    square is divided by that of Student's t with as many degrees of freedom.
    """
    n = len(comb)
    if n < MIN_SAMPLES:
        return missing(
            f"{n} samples are too few for a standard error; expected at least {MIN_SAMPLES}"
        )
    difference = (comb - exact).mean(0)
    systematic = (error * exact.mean(0)) ** 2 + ROUNDING**2
    variance = (comb - exact).var(0, ddof=1) / n + systematic
    value = float(np.sqrt((difference**2 / variance).mean() * (n - 3) / (n - 1)))
    if not np.isfinite(value):
        return missing("the profile is undefined: its mean is 0")
    return Estimate(value)


def structure_profile(model: Model, comb: Comb) -> Array | str:
    """Phase means of the expected sensitivity map (p, q), or the reason why there are none."""
    import torch

    from ..architecture.expectation import expected_map

    expected = expected_map(model)
    if isinstance(expected, str):
        return expected
    sums: Array = comb.sums(torch.as_tensor(expected)).numpy()
    if not sums.any():
        return "the expected sensitivity is zero throughout the interior"
    return divide_by_mean(sums)
