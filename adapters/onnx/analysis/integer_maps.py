"""Tensors of real values for the integer maps between quantised operators.

A feature map between two operators such as QLinearConv has only integer levels. Each such tensor is
therefore dequantised and quantised again behind its operator, which changes no level; the tensor
between the two steps has real values.
"""

from __future__ import annotations

from copy import deepcopy

import onnx

from ..files.protos import set_items, standard_opset, subgraphs
from ..graph import operator_of
from ..operators.quantised import zero_place

FIRST_OPSET = 10
"""The first opset with DequantizeLinear."""


def expose_levels(proto: onnx.ModelProto) -> onnx.ModelProto:
    """Return `proto` with added tensors for the real values of quantised ones; a copy if any."""
    steps = {node.output[0]: pair for node in proto.graph.node if (pair := _steps(node))}
    if not steps or standard_opset(proto) < FIRST_OPSET:
        return proto
    exposed = deepcopy(proto)
    nodes: list[onnx.NodeProto] = []
    for node in exposed.graph.node:
        rename_reads(node, {name: again.output[0] for name, (_, again) in steps.items()})
        nodes += [node, *steps.get(node.output[0], ())]
    set_items(exposed.graph.node, nodes)
    return exposed


def _steps(node: onnx.NodeProto) -> tuple[onnx.NodeProto, onnx.NodeProto] | None:
    """Return the two nodes to add behind `node`, or None if its output is not quantised."""
    place = zero_place(operator_of(node))
    if place is None or len(node.input) <= place:
        return None
    scale, zero, name = node.input[place - 1], node.input[place], node.output[0]
    real, again = f"{name}/real", f"{name}/again"
    return (
        onnx.helper.make_node("DequantizeLinear", [name, scale, zero], [real], real),
        onnx.helper.make_node("QuantizeLinear", [real, scale, zero], [again], again),
    )


def rename_reads(node: onnx.NodeProto, names: dict[str, str]) -> None:
    """Rename the tensors that `node` and its subgraphs read."""
    for i, name in enumerate(node.input):
        node.input[i] = names.get(name, name)
    for inner in subgraphs(node):
        for one in inner.node:
            rename_reads(one, names)
