"""Which maps on the way to the target are measured, and one pass that gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def stage_maps(model: Model, x: Tensor, grids: Sequence[Grid]) -> list[Tensor]:
    """The maps (batch, channels, height, width) of `grids` for the images `x`."""
    x = x.to(model.device)
    several = isinstance(model, ModelOfScales)
    found = model.run_each(x, grids) if several else [model.run(x)]  # type: ignore[attr-defined]
    return [require(one.target, "target") for one in found]
