"""The target of an ONNX graph, by the rule of `adapters.target_rule` or by name, and its stages.

The position of the channel axis is known as far as operators determine it: convolutions and pools
have channels first, elementwise operators keep the order of axes, and transpositions change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...errors import NotApplicableError, UnknownNameError, unknown
from ...feature_grid import Grid, StageCollector, find_grid
from ...target_rule import named_by_user
from ..files.protos import attribute, printable
from ..graph import operator_of
from ..paths import bottlenecks
from ..session import Session
from .node_facts import KINDS, Facts
from .steps import graph_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnx
    from torch import Tensor

    from ...feature_grid import Grid


def find_graph_target(
    proto: onnx.ModelProto, image: str, outputs: Sequence[str], x: Any, size: tuple[int, int]
) -> Grid | None:
    """Choose the target on the way from `image` to `outputs` by one run on the array `x`.

    `size` is (height, width) in pixels.
    """
    return graph_way(proto, image, outputs, x, size).target()


def named_graph_target(
    proto: onnx.ModelProto, image: str, name: str, x: Any, size: tuple[int, int]
) -> Grid:
    """Return the grid of the tensor `name`, or of the output of the node `name`.

    Raises `UnknownNameError`, or `NotApplicableError` when the tensor is not a grid.
    """
    nodes = {n.name: n.output[0] for n in proto.graph.node if n.name}
    tensors = {o for n in proto.graph.node for o in n.output if o}
    tensor = name if name in tensors else nodes.get(name)
    if tensor is None:
        raise UnknownNameError(printable(unknown("tensor", name, sorted({*tensors, *nodes})), 400))
    way = graph_way(proto, image, [tensor], x, size)
    grid = way.read.float_grids[way.outputs[0]] if way.outputs else None
    if grid is None:
        value = Session(proto, [tensor]).run({image: x})[tensor]
        grid = as_grid(tensor, value, size, layouts(proto).get(tensor))
    if grid is None:
        raise NotApplicableError(
            f"tensor {printable(tensor)!r} has shape {list(np.shape(value))}, not a grid of units "
            f"over a {size[0]} x {size[1]} input; name another tensor as the target"
        )
    return named_by_user(grid)


def as_grid(name: str, value: Any, size: tuple[int, int], layout: str | None = None) -> Grid | None:
    """Return the grid of an output, or None; a single row of features is not a grid.

    If the `layout` is known, the strides along rows and columns may differ by any factor, as they
    do in networks that read lines of text.
    """
    if not isinstance(value, np.ndarray) or value.dtype.kind != "f" or value.ndim not in (3, 4):
        return None
    if value.ndim == 3 and 1 in value.shape[1:]:
        return None
    found = find_grid(name, torch.empty(value.shape, device="meta"), size)
    if layout is None or value.ndim == 3 or (found is not None and found.kind == layout):
        return found
    order = (1, 2, 3) if layout == FIRST else (3, 1, 2)
    channels, height, width = (value.shape[i] for i in order)
    if min(height, width) < 2 or height > size[0] or width > size[1]:
        return None
    return Grid(name, "NCHW" if layout == FIRST else "NHWC", channels, height, width)


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


FIRST = "NCHW"

LAST = "NHWC"

CHANNELS_FIRST = {
    *("Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    "GlobalLpPool",
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    *("DepthToSpace", "SpaceToDepth"),
}
"""Operators whose input and output have channels first."""

KEEPING = {
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus", "Softsign"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Erf", "Sqrt", "Exp", "Abs", "Neg"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Concat", "Cast", "Identity"),
    *("Dropout", "QuantizeLinear", "DequantizeLinear", "Pad", "Resize", "Upsample", "Slice"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu"),
    "LayerNormalization",
}
"""Operators whose output has the axes of the first input with known axes."""

MOVES = {(FIRST, (0, 2, 3, 1)): LAST, (LAST, (0, 3, 1, 2)): FIRST}


def layouts(proto: onnx.ModelProto) -> dict[str, str]:
    """Return `NCHW` or `NHWC` by tensor name, for the tensors where it is known."""
    known: dict[str, str] = {}
    for node in proto.graph.node:
        layout = None
        if node.op_type in CHANNELS_FIRST:
            layout = FIRST
        elif node.op_type in KEEPING:
            layout = next((known[name] for name in node.input if name in known), None)
        elif node.op_type == "Transpose":
            order = tuple(attribute(node, "perm", ()))
            layout = MOVES.get((known.get(node.input[0], ""), order))
        if layout is not None:
            known.update(dict.fromkeys(node.output, layout))
    return known
