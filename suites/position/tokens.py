"""Norms of single units: those that stand out, and those of the position embedding."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..base import Array

TOKENS = ("NLC", "LNC", "NCL")

LARGE = 3.0
"""A norm above this many medians stands out."""

SUM = re.compile(r"\badd\b", re.IGNORECASE)


def unit_norms(model: Model, x: Tensor) -> tuple[Array, str]:
    """Norms over channels of the units of one image `x` (1, ...): (rows, columns); what they are.

    Of tokens they are those of the last sum of the target's shape in the pass, which is what the
    final norm is applied to; else those of the target.
    """
    grid = model.target
    if grid is None:
        raise ValueError("norms need a spatial target: call `skip` first")
    last: list[tuple[str, Tensor]] = []
    if grid.kind in TOKENS:
        shape = _shape(grid)

        def read(step: str, output: Tensor) -> None:
            if tuple(output.shape) == shape and SUM.search(step):
                last[:] = [(step, output.detach().clone())]

        model.trace(x, read)
    name, maps = (
        (last[0][0], grid.read(last[0][1]))
        if last
        else (f"the target {grid.name!a}", model.run(x).target)
    )
    if maps is None:
        raise ValueError("the model gives no target")
    norms: Array = maps[0].detach().double().norm(dim=0).cpu().numpy()
    return norms, name


def _shape(grid: Grid) -> tuple[int, ...]:
    tokens = grid.height * grid.width + grid.prefix
    sizes = {"N": 1, "L": tokens, "C": grid.channels}
    return tuple(sizes[axis] for axis in grid.kind)


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


def embedding_norms(tensor: Tensor, grid: Grid) -> Array:
    """Norms (rows, columns) of a position embedding of one of `embedding_shapes`."""
    table = tensor.double()
    if tensor.ndim == 4:  # (1, channels, rows, columns) or (1, rows, columns, channels)
        axis = 1 if tensor.shape[1] == grid.channels else 3
        norms: Array = table.norm(dim=axis)[0].numpy()
        return norms
    table = table.reshape(-1, tensor.shape[-1])[-grid.height * grid.width :]
    flat: Array = table.norm(dim=1).reshape(grid.height, grid.width).numpy()
    return flat


def embedding_shapes(grid: Grid) -> list[tuple[int, ...]]:
    """Shapes that a position embedding of the tokens of `grid` may have."""
    units, channels = grid.height * grid.width, grid.channels
    tokens = {units, units + grid.prefix}
    return [
        *((1, n, channels) for n in tokens),
        *((n, channels) for n in tokens),
        *((n, 1, channels) for n in tokens),
        (1, channels, grid.height, grid.width),
        (1, grid.height, grid.width, channels),
    ]


def border_over_interior(norms: Array) -> float | None:
    """Mean of the outermost ring over the mean of the rest; None where there is no rest."""
    inner = norms[1:-1, 1:-1]
    if inner.size == 0 or inner.mean() == 0:
        return None
    ring = (norms.sum() - inner.sum()) / (norms.size - inner.size)
    return float(ring / inner.mean())
