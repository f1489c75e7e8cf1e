"""Outputs of shifted images against those of the image: classes, and maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError
from ..measuring.gradients import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.batching import Batching
    from .moves import Move, Mover

Ratio = tuple[float, float]


def classes(
    model: Model, mover: Mover, index: int, moves: Sequence[Move], batching: Batching
) -> tuple[Tensor, Array]:
    """Logits of the image (1, classes), and whether each move keeps its class (moves,)."""
    import torch

    def one(chunk: slice) -> Tensor:
        x = torch.stack([mover.moved(index, move) for move in every[chunk]])
        with torch.no_grad():
            out = model.run(x.to(model.device), target=False, logits=True)
        return require(out.logits, "logits")

    every = [(0.0, 0.0), *moves]
    logits = torch.cat(batching.run(len(every), one))
    top = logits.argmax(1)
    same: Array = (top[1:] == top[0]).cpu().numpy().astype(np.float64)
    return logits[:1], same


def distances(
    model: Model,
    mover: Mover,
    index: int,
    moves: Sequence[Move],
    batching: Batching,
    per_pixel: Ratio,
) -> Array:
    """Sums of |f(S x) - S f(x)| and of |f(x)| for each move: (moves, 2).

    `model` has the map f as its target, of `per_pixel` units per pixel. Raises
    `NotApplicableError` if a map is not finite.
    """
    import torch

    def one(chunk: slice) -> Tensor:
        x = torch.stack([mover.moved(index, move) for move in every[chunk]])
        with torch.no_grad():
            return require(model.run(x.to(model.device)).target, "target").double()

    every = [(0.0, 0.0), *moves]
    maps = torch.cat(batching.run(len(every), one))
    if not bool(maps.isfinite().all()):
        raise NotApplicableError("the output is not finite (NaN or infinite) on these images")
    rows = []
    for move, moved in zip(moves, maps[1:], strict=True):
        units = (move[0] * per_pixel[0], move[1] * per_pixel[1])
        expected, got = mover.pair(maps[0], moved, units)
        rows.append([float((got - expected).abs().sum()), float(expected.abs().sum())])
    return np.array(rows)
