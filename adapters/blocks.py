"""The maps behind the blocks of a network, the same rule for modules and ONNX graphs.

Of the maps that every path from the image to the target passes through, a block ends at the last
one before units are mixed once more: before a kernel of more than one unit, attention, a recurrent
layer or a change of the resolution. Within a residual block no map is on every path, so that the
block ends at its sum. Residual parts that change each unit by itself, as the MLP of a transformer,
belong to the block before them. The target is the last map. Of maps with channels last, such as
tokens, the one behind the last layer is among them too: it is what the final norm is applied to.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from .readings import LAYERS, SAME_MAP

if TYPE_CHECKING:
    from .feature_grid import Grid
    from .target_rule import Way


MIXING = ("contract", "recurrent")

POINTWISE = ("linear", "conv", "norm", "rectify", "squash", "multiply", "view", "select")
"""Kinds of steps that leave each unit by itself, those of `other` included."""


@dataclass(frozen=True)
class Blocks:
    """`maps` are in execution order, the target last; `unnormed` is the one before the final norm.

    `unnormed` is the target itself where no norm, or other step without a layer, leads to it.
    """

    maps: tuple[Grid, ...]
    unnormed: Grid


def find_blocks(way: Way, target: int | None, grid: Grid) -> Blocks:
    """The blocks on the way from the image to step `target`, which is read as `grid`.

    The target alone where it is no step (None).
    """
    if target is None:
        return Blocks((grid,), grid)
    grids, cuts = way.read.float_grids, [0, *_cuts(way, target)]
    ends = {b for b, c in pairwise(cuts[1:]) if _mixes(way, target, b, c)}
    bare = target
    if grid.kind != "NCHW":
        bare = _behind_last_layer(way, target, cuts)
    found = {i: one for i in sorted({*ends, bare} - {target}) if (one := grids[i]) is not None}
    return Blocks((*found.values(), grid), found.get(bare, grid))


def _cuts(way: Way, target: int) -> list[int]:
    """The maps that every path to step `target` passes through, last the target itself."""
    on_every_path = way.on_every_path(way.read.before[target], [target])
    return [*(i for i in sorted(on_every_path - {target}) if _is_feature(way, i)), target]


def _is_feature(way: Way, i: int) -> bool:
    """Whether step `i` is a map with a layer before it; enlarging alone does not count."""
    has_layer = bool(way.read.before[i] & way.layers)
    return has_layer and way.read.float_grids[i] is not None and way.steps[i].kind != "pad"


def _between(way: Way, target: int, a: int, b: int) -> list[int]:
    """The steps after `a` up to `b` that step `target` depends on."""
    return [i for i in range(a + 1, b + 1) if way.read.before[target] >> i & 1]


def _mixes(way: Way, target: int, a: int, b: int) -> bool:
    """Whether units of the map `b` depend on several units of the map `a`, as far as kinds tell."""
    old, new = way.read.float_grids[a], way.read.float_grids[b]
    if old is None or new is None or (old.height, old.width) != (new.height, new.width):
        return True
    steps = [way.steps[i] for i in _between(way, target, a, b)]
    if any(step.wide or step.kind in MIXING for step in steps):
        return True
    return len(steps) > 1 and any(step.kind not in (*POINTWISE, "other") for step in steps)


def _behind_last_layer(way: Way, target: int, cuts: list[int]) -> int:
    """The map behind the last layer and its bias; the target where no norm or other step follows.

    Steps that only give a map another shape do not follow it in this sense.
    """
    found = target
    for b, c in pairwise(cuts):
        kinds = [way.steps[i].kind for i in _between(way, target, b, c)]
        is_bias = found == b and len(kinds) == 1 and kinds[0] in ("other", *SAME_MAP)
        if is_bias or LAYERS.intersection(kinds):
            found = c
    return found
