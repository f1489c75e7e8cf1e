"""Mean filters: the asymmetry of the learned kernels of a convolution.

m = mean over the kernels of a layer (out x in per group) of their taps (rows, columns). Its
asymmetry is the left minus the right half, divided by the mean magnitude of a single tap. Random
kernels have an asymmetry of about 1 / sqrt(number of kernels) by chance. Layers are averaged with
their number of kernels as weights, so that layers whose mean filter is mostly chance count little.
Layers with a single column (row) of taps have no halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import missing
from ..measuring.unbiased import root_mean_square

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ..base import Array, Estimate
    from ..measuring.bootstrap import Bootstrap


@dataclass(frozen=True)
class FilterAsymmetry:
    """Asymmetry of one layer's mean filter; None along an axis with a single tap."""

    kernels: int
    size: tuple[int, int]
    left_right: float | None
    top_bottom: float | None


def filter_asymmetries(filters: Mapping[str, Tensor]) -> dict[str, FilterAsymmetry]:
    """Asymmetry of each of `filters`, (out, in per group, rows, columns) by layer name.

    1 x 1 kernels and layers whose taps are all 0 are left out.
    """
    found = {}
    for name, weight in filters.items():
        taps = weight.double().numpy()
        level = float(np.abs(taps).mean()) if taps.size else 0.0
        rows, columns = taps.shape[2:]
        if level > 0 and (rows > 1 or columns > 1):
            mean = taps.mean((0, 1)) / level
            kernels = taps.shape[0] * taps.shape[1]
            found[name] = FilterAsymmetry(
                kernels, (rows, columns), _halves_difference(mean), _halves_difference(mean.T)
            )
    return found


def _halves_difference(mean: Array) -> float | None:
    """Left minus right half of a mean filter (rows, columns)."""
    half = mean.shape[1] // 2
    return float(mean[:, :half].mean() - mean[:, -half:].mean()) if half else None


def filter_metrics(
    sets: Sequence[Mapping[str, FilterAsymmetry]], resamples: Bootstrap
) -> dict[str, Estimate]:
    """`filter_left_right` and `filter_top_bottom` over `sets` of weights."""
    return {
        f"filter_{axis}": _average(sets, axis, resamples) for axis in ("left_right", "top_bottom")
    }


def _average(
    sets: Sequence[Mapping[str, FilterAsymmetry]], axis: str, resamples: Bootstrap
) -> Estimate:
    names = [n for n, one in sets[0].items() if getattr(one, axis) is not None]
    if not names:
        return missing("no convolution has kernels, stored as floats, of two taps along this axis")
    values = np.array([[getattr(one[name], axis) for name in names] for one in sets])
    weights = np.array([sets[0][name].kernels for name in names], dtype=np.float64)
    sizes = np.stack([root_mean_square(column[:, None], resamples) for column in values.T], 1)
    return resamples.estimate(sizes @ weights / weights.sum(), low=0.0)


def filter_table(sets: Sequence[Mapping[str, FilterAsymmetry]]) -> list[dict[str, Any]]:
    """One row per layer: kernel size, number of kernels, mean signed asymmetries."""
    return [
        {
            "name": name,
            "kernel": lean.size,
            "kernels": lean.kernels,
            "left_right": _mean([one[name].left_right for one in sets]),
            "top_bottom": _mean([one[name].top_bottom for one in sets]),
        }
        for name, lean in sets[0].items()
    ]


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None
