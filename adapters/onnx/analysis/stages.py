"""Feature maps of an ONNX graph by resolution, and the kernels of its convolutions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from ...feature_grid import StageCollector
from ..graph import operator_of
from ..paths import bottlenecks
from ..session import Session
from .layout import layouts
from .node_facts import KINDS, Facts
from .target import as_grid

if TYPE_CHECKING:
    import onnx
    from torch import Tensor

    from ...feature_grid import Grid


def stage_grids(
    proto: onnx.ModelProto, image: str, target: Grid, x: Any, size: tuple[int, int]
) -> list[Grid]:
    """Find the stages of `Model.stages` by one run on the array `x`.

    Candidates are the tensors that every path from `image` to the target passes through.
    """
    found: StageCollector[Grid] = StageCollector()
    names = [n for n in bottlenecks(proto, image, target.name) if n not in (image, target.name)]
    values = Session(proto, names, optimise=False).run({image: x}) if names else {}
    known = layouts(proto)
    for name in names:
        grid = as_grid(name, values[name], size, known.get(name))
        if grid is not None:
            found.add(grid, grid)
    return found.end(target, target)


def graph_filters(proto: onnx.ModelProto) -> dict[str, Tensor]:
    """Return stored kernels (out, in per group, rows, columns) of 2-D convolutions by node name."""
    facts = Facts(proto)
    return {
        node.name or node.output[0]: facts.constants[node.input[1]].to(torch.float32, copy=True)
        for node in proto.graph.node
        if KINDS.get(operator_of(node)) == "conv2d" and _is_stored(node, facts)
    }


def _is_stored(node: onnx.NodeProto, facts: Facts) -> bool:
    weight = facts.constants.get(node.input[1])
    return weight is not None and weight.ndim == 4
