"""Spatial bias of a map: border against centre, and one half against the other.

Maps have axes (..., height, width) of units, places or taps. The *border* is the outermost ring;
the *centre* is everything at least a quarter of the side (rounded down), and at least one unit,
away from every border. Halves leave out the middle row or column of an odd number. Differences of
halves are signed, first minus second, and divided by the mean magnitude of the map: 0 is even, 2
means that one half is 0.

The magnitude of an estimated difference is biased upwards by noise; it is therefore estimated from
products of different samples (see `unbiased`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import missing
from ..measuring.unbiased import pseudo_values, root_mean_square

if TYPE_CHECKING:
    from ..base import Array, Estimate
    from ..measuring.bootstrap import Bootstrap

BIAS = ("border_ratio", "left_right", "top_bottom")

MIN_UNITS = 3
"""Minimum number of units along an axis for a map to have a centre."""


def border(maps: Array) -> Array:
    """Mean over the outermost ring of `maps` (..., height, width)."""
    inner = maps[..., 1:-1, 1:-1]
    count = maps.shape[-2] * maps.shape[-1] - inner.shape[-2] * inner.shape[-1]
    mean: Array = (maps.sum((-2, -1)) - inner.sum((-2, -1))) / count
    return mean


def centre(maps: Array) -> Array:
    """Mean over the units of `maps` (..., height, width) away from every border."""
    rows, columns = (max(1, n // 4) for n in maps.shape[-2:])
    mean: Array = maps[..., rows:-rows, columns:-columns].mean((-2, -1))
    return mean


def border_ratio(maps: Array) -> Array:
    """Border over centre of `maps`; NaN where the centre is 0."""
    return _over(border(maps), centre(maps))


def left_right(maps: Array) -> Array:
    """Left minus right half of `maps`, over their mean magnitude; NaN for a map of zeros."""
    half = maps.shape[-1] // 2
    difference = maps[..., :half].mean((-2, -1)) - maps[..., -half:].mean((-2, -1))
    return _over(difference, np.abs(maps).mean((-2, -1)))


def top_bottom(maps: Array) -> Array:
    """Top minus bottom half of `maps`, over their mean magnitude; NaN for a map of zeros."""
    return left_right(np.swapaxes(maps, -2, -1))


def asymmetries(samples: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """`left_right` and `top_bottom` of the mean of `samples` (samples, height, width)."""
    found = {}
    for name, measure, units in (
        ("left_right", left_right, samples.shape[-1]),
        ("top_bottom", top_bottom, samples.shape[-2]),
    ):
        if units < 2:
            found[name] = missing("a single unit along this axis has no halves")
        else:
            values = pseudo_values(samples, measure)[:, None]
            found[name] = resamples.estimate(root_mean_square(values, resamples), low=0.0)
    return found


def bias(samples: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """`border_ratio`, `left_right` and `top_bottom` of the mean of `samples` (samples, h, w)."""
    if not samples.any():
        return dict.fromkeys(BIAS, missing("the map is 0 everywhere"))
    mean = np.tensordot(resamples.weights, samples, 1)
    found = asymmetries(samples, resamples)
    found["border_ratio"] = (
        resamples.estimate(border_ratio(mean), low=0.0)
        if min(samples.shape[-2:]) >= MIN_UNITS
        else missing(why_no_centre(samples.shape))
    )
    return found


def signed(maps: Array) -> dict[str, Any]:
    """The same three numbers of one map (height, width), with signs; None if undefined."""
    height, width = maps.shape
    values = {
        "border_ratio": border_ratio(maps) if min(height, width) >= MIN_UNITS else np.nan,
        "left_right": left_right(maps) if width > 1 else np.nan,
        "top_bottom": top_bottom(maps) if height > 1 else np.nan,
    }
    return {name: float(v) if np.isfinite(v) else None for name, v in values.items()}


def why_no_centre(shape: tuple[int, ...]) -> str:
    """The reason why a map of (..., height, width) has no border ratio."""
    return (
        f"a map of {shape[-2]} x {shape[-1]} has no centre: {MIN_UNITS} units along each axis "
        "are needed"
    )


def _over(part: Any, whole: Any) -> Array:
    ratio: Array = np.divide(part, whole, out=np.full(np.shape(part), np.nan), where=whole != 0)
    return ratio
