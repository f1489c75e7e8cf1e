"""Which maps on the way to the target are measured, and the norms of their units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.model import ModelOfScales
from ..measuring.gradients import require
from ..measuring.output_view import map_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.blocks import Blocks
    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..base import Array


def chosen_stages(model: Model, most: int) -> tuple[list[Grid], Grid]:
    """The stages of `model`, the target last, and the one whose norms are read.

    A model whose way is not known has its target alone.
    """
    if not isinstance(model, ModelOfScales):
        grid = map_of(model)
        return [grid], grid
    blocks = model.blocks()
    return evenly_spaced(blocks, most), blocks.unnormed


def evenly_spaced(blocks: Blocks, most: int) -> list[Grid]:
    """All maps of `blocks`, or about `most`, with the last of each resolution and `unnormed`."""
    maps = blocks.maps
    spaced = np.linspace(len(maps) - 1, 0, min(most, len(maps))).round().astype(int)
    last = {(grid.height, grid.width): i for i, grid in enumerate(maps)}
    kept = {*spaced.tolist(), *last.values(), maps.index(blocks.unnormed)}
    return [maps[i] for i in sorted(kept)]


def maps_of_grids(model: Model, x: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """The maps (batch, channels, height, width) of `grids` for the images `x`."""
    x = x.to(model.device)
    several = isinstance(model, ModelOfScales)
    found = model.run_each(x, grids) if several else [model.run(x)]  # type: ignore[attr-defined]
    return [require(one.target, "target") for one in found]


LARGE = 3.0
"""A norm above this many medians stands out."""


def unit_norms(maps: Tensor) -> Array:
    """Norms over channels of the units of `maps`: (images, rows, columns)."""
    norms: Array = maps.detach().double().norm(dim=1).cpu().numpy()
    return norms


def outlying(norms: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the norms (rows, columns) of an image stand out."""
    found: np.ndarray[Any, np.dtype[np.bool_]] = norms > LARGE * np.median(norms)
    return found


def bimodality(norms: Array) -> float | None:
    """Sarle's coefficient of the logarithms: (skewness^2 + 1) / kurtosis, 1/3 of a normal law.

    It is 5/9 for a uniform law and 1 for two values. None where all are equal or one is 0.
    """
    flat = norms.ravel()
    if flat.min() <= 0:
        return None
    logs = np.log(flat)
    centred = logs - logs.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-18:
        return None
    skewness = float((centred**3).mean()) / variance**1.5
    kurtosis = float((centred**4).mean()) / variance**2
    return float((skewness**2 + 1) / kurtosis)
