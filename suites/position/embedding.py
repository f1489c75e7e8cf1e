"""The norms of a stored position embedding."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ...adapters.model import ModelOfTokens
from ..base import Estimate, missing

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..base import Array, Measurement

TOKENS = ("NLC", "LNC", "NCL")

LEAST_SIDE = 7
"""Fewest units along a side of an embedding that is interpolated to the target's size."""


def read_embedding(model: Model, found: Measurement) -> None:
    """Fill in the metrics of the position embedding, or the reason why there are none."""
    names = ("embedding_border", "embedding_largest")
    try:
        norms, name = _embedding(model)
    except PerimetryError as error:
        found.leave_out(names, error)
        return
    found.notes.append(f"the position embedding is {name!a}")
    border, median = border_over_interior(norms), float(np.median(norms))
    found.metrics[names[0]] = (
        missing("there is no place inside the border") if border is None else Estimate(border)
    )
    found.metrics[names[1]] = (
        Estimate(float(norms.max()) / median)
        if median > 0
        else missing("the median norm of the position embedding is 0")
    )
    found.maps["embedding"] = norms


def _embedding(model: Model) -> tuple[Array, str]:
    """Norms (rows, columns) of the position embedding and its name."""
    grid = model.target
    if grid is None or not isinstance(model, ModelOfTokens):
        raise NotApplicableError("the weights of the model cannot be read")
    for own in [grid, *interpolated(grid)] if grid.kind in TOKENS else []:
        stored = model.stored(embedding_shapes(own))
        named = {n: t for n, t in stored.items() if "pos" in n.lower() or t.ndim == 3}
        if named:
            name = next(iter(named))
            return embedding_norms(named[name], own), name
    raise NotApplicableError(
        "no stored tensor has the shape of a position embedding of the target's units"
    )


def interpolated(grid: Grid) -> list[Grid]:
    """Square grids of tokens whose embedding may be interpolated to `grid`, nearest sizes first.

    Those of less than `LEAST_SIDE` units a side could be other tokens, such as registers.
    """
    side = max(grid.height, grid.width)
    sides = sorted(range(LEAST_SIDE, 4 * side + 1), key=lambda n: abs(n - side))
    return [replace(grid, height=n, width=n) for n in sides]


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
