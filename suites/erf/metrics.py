"""The metrics of `erf`, read off the maps of one unit; `erf` has their definitions.

Maps are samples (samples, height, width), one for each image or weight set.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..base import Estimate, Metric, described, missing
from ..measuring.unbiased import read_other_half
from .gaussian import PARAMETERS, fit_gaussian

if TYPE_CHECKING:
    from ..architecture.receptive_field import ReceptiveField
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap

LUO_THRESHOLD = 1 - 0.9545

FRACTIONS = (0.0625, 0.125, 0.25, 0.5)

AREAS = (0.2, 0.3, 0.5, 0.99)

REPLICATES_PER_CHUNK = 64
"""Number of replicates whose maps are computed at once; so few fit into a CPU cache."""

_LABELS = {
    "luo_size": "side above 4.55 % of the peak",
    "radius": "root of the second moment",
    "sigma_y": "Gaussian fit: deviation, rows",
    "sigma_x": "Gaussian fit: deviation, columns",
    "center_y": "Gaussian fit: centre, row",
    "center_x": "Gaussian fit: centre, column",
    "r_squared": "Gaussian fit: R²",
    "anisotropy": "length over width",
    "offset_y": "offset from the centre, rows",
    "offset_x": "offset from the centre, columns",
    "offset": "offset from the centre",
    "erf_trf": "side over the theoretical field",
    **{f"mass@{f:g}": f"share within {f:g} image sides" for f in FRACTIONS},
    **{f"area@{t:g}": f"area with {t:.0%} of the log map" for t in AREAS},
}


def erf_metrics() -> tuple[Metric, ...]:
    """All of them."""
    px = "pixels"
    mass = (
        Metric(f"mass@{f:g}", f"share of the map within {f:g} image sides", "share", "neither")
        for f in FRACTIONS
    )
    area = (
        Metric(f"area@{t:g}", f"area that contains {t:.0%} of log10(1 + map)", "share", "neither")
        for t in AREAS
    )
    found = (
        Metric("luo_size", "root of the number of pixels above 4.55 % of the peak", px, "neither"),
        Metric("radius", "root of the second moment about the centre of mass", px, "neither"),
        Metric("sigma_y", "Gaussian fit: standard deviation, rows", px, "neither"),
        Metric("sigma_x", "Gaussian fit: standard deviation, columns", px, "neither"),
        Metric("center_y", "Gaussian fit: centre, row", px, "neither", low=None),
        Metric("center_x", "Gaussian fit: centre, column", px, "neither", low=None),
        Metric(
            "r_squared",
            "Gaussian fit: 1 - var(residual) / var(map)",
            "share",
            "higher",
            low=None,
            high=1.0,
            even=1.0,
        ),
        Metric("anisotropy", "long over short axis of the second moments", "ratio", "lower", 1.0),
        Metric(
            "offset_y", "centre of mass less geometric centre, rows", px, "neither", None, None, 0.0
        ),
        Metric(
            "offset_x",
            "centre of mass less geometric centre, columns",
            px,
            "neither",
            None,
            None,
            0.0,
        ),
        Metric("offset", "distance of the two centres", px, "lower"),
        Metric("erf_trf", "luo_size over the theoretical receptive field", "ratio", "neither"),
        *mass,
        *area,
    )
    off_centre = ("off centre", "central")
    return described(
        found,
        _LABELS,
        caveats={
            "luo_size": "It counts pixels wherever they lie: a map without a peak is large.",
            "offset": "Noise alone makes it positive: rows and columns show whether it is real.",
        },
        main=("luo_size", "radius", "offset_y", "offset_x"),
        verdicts={
            "r_squared": ("not Gaussian", "Gaussian"),
            **dict.fromkeys(("offset_y", "offset_x"), off_centre),
        },
    )


def gaussian_metrics(samples: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """Metrics of the fitted Gaussian; missing with the reason if the fit failed."""
    names = (*PARAMETERS[1:], "r_squared")
    fit = fit_gaussian(samples, resamples.weights)
    if fit.failure is not None:
        return {name: missing(fit.failure) for name in names}
    bounds = {"r_squared": (None, 1.0), "sigma_x": (0.0, None), "sigma_y": (0.0, None)}
    found = {}
    for name in names:
        low, high = bounds.get(name, (None, None))
        found[name] = resamples.estimate(fit.values[name], low=low, high=high)
    return found


def moment_metrics(
    samples: Array, resamples: Bootstrap, centre: tuple[float, float] | None
) -> dict[str, Estimate]:
    """Metrics computed from moments and from masses within circles, which are linear in the map."""
    height, width = samples.shape[1:]
    y, x = np.mgrid[:height, :width].astype(np.float64)
    cy, cx = centre or ((height - 1) / 2, (width - 1) / 2)
    y, x = (y - cy).ravel(), (x - cx).ravel()
    reach = np.hypot(y, x) / min(height, width)
    masks = [reach <= f for f in FRACTIONS]
    features = np.stack([np.ones_like(y), y, x, y * y, x * x, x * y, *masks], 1)
    sums = resamples.weights @ (samples.reshape(len(samples), -1) @ features)
    mass, my, mx, myy, mxx, mxy, *within = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        my, mx = my / mass, mx / mass
        vy, vx, vxy = myy / mass - my**2, mxx / mass - mx**2, mxy / mass - my * mx
        spread = np.sqrt(((vy - vx) / 2) ** 2 + vxy**2)
        ratio = np.sqrt(((vy + vx) / 2 + spread) / ((vy + vx) / 2 - spread))
        shares = [inside / mass for inside in within]
    found = {
        "radius": resamples.estimate(np.sqrt(vy + vx), low=0.0),
        "anisotropy": resamples.estimate(ratio, low=1.0),
    }
    for f, share in zip(FRACTIONS, shares, strict=True):
        found[f"mass@{f:g}"] = resamples.estimate(share, low=0.0, high=1.0)
    offsets = {"offset_y": my, "offset_x": mx, "offset": np.hypot(my, mx)}
    for name, value in offsets.items():
        found[name] = (
            resamples.estimate(value, low=0.0 if name == "offset" else None)
            if centre
            else missing("the unit's geometric centre is unknown")
        )
    return found


def size_metrics(
    samples: Array, resamples: Bootstrap, field: ReceptiveField | None
) -> dict[str, Estimate]:
    """Sizes by threshold. Replicates need whole maps, made a few at a time in single precision."""
    order, starts = _rings(samples.shape[1:])
    flat = samples.reshape(len(samples), -1)
    read, _ = read_other_half(flat, np.argmax)
    weights = resamples.weights.astype(np.float32)
    levels = LUO_THRESHOLD * (resamples.weights @ read).astype(np.float32)
    rings = flat.astype(np.float32)[:, order]
    counts, areas = [], []
    for some in np.array_split(np.arange(len(weights)), -(-len(weights) // REPLICATES_PER_CHUNK)):
        maps = weights[some] @ rings
        counts.append(np.count_nonzero(maps > levels[some, None], axis=1))
        areas.append(_areas(maps, starts))
    size = np.sqrt(np.concatenate(counts))
    found = {"luo_size": resamples.estimate(size, low=1.0)}
    found["erf_trf"] = _against_theory(size, field, resamples)
    for t, area in zip(AREAS, np.concatenate(areas).T, strict=True):
        found[f"area@{t:g}"] = resamples.estimate(area, low=0.0, high=1.0)
    return found


def _against_theory(size: Array, field: ReceptiveField | None, resamples: Bootstrap) -> Estimate:
    if field is None:
        return missing("the theoretical receptive field is unknown")
    if field.global_:
        return missing("the theoretical receptive field is global")
    return resamples.estimate(size / float(np.sqrt(field.size[0] * field.size[1])), low=0.0)


def area_ratios(maps: np.ndarray[Any, Any]) -> Array:
    """Ding et al.'s high-contribution areas of `maps` (n, height, width): (n, thresholds).

    The smallest centred square of side 2 i + 1 whose share of log10(1 + map) exceeds t, over the
    image's area; 1 if none does.
    """
    order, starts = _rings(maps.shape[1:])
    return _areas(maps.reshape(len(maps), -1)[:, order], starts)


def _rings(shape: tuple[int, ...]) -> tuple[Any, Any]:
    """Pixels by ring around the image's centre: their order (pixels,), and where rings start."""
    height, width = shape
    y, x = np.mgrid[:height, :width]
    ring = np.maximum(abs(y - height // 2), abs(x - width // 2)).ravel()
    order = np.argsort(ring, kind="stable")
    return order, np.searchsorted(ring[order], np.arange(ring.max() + 1))


def _areas(maps: np.ndarray[Any, Any], starts: Any) -> Array:
    """`area_ratios` of `maps` (n, pixels) with pixels in the order of `_rings`."""
    logs = torch.from_numpy(maps).log1p().numpy()  # several times as fast as numpy's
    share = np.add.reduceat(logs, starts, axis=1).cumsum(1)
    share = share / np.maximum(share[:, -1:], np.finfo(share.dtype).tiny)
    areas = []
    for t in AREAS:
        i = (share > t).argmax(1)
        areas.append((2 * i + 1) ** 2 / maps.shape[1])
    ratios: Array = np.minimum(np.stack(areas, 1), 1.0)
    return ratios
