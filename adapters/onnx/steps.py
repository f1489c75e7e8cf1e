"""The nodes of a graph that draw random numbers, and the tensors between all nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx

from .files.order import subgraphs
from .files.read import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
"""Operators that draw random numbers."""


def label(node: onnx.NodeProto) -> str:
    """Operator and name of a node, safe to print."""
    name = node.name or next(iter(node.output), "")
    return f"{printable(node.op_type)} node {printable(name)!r}"


def random_nodes(graph: onnx.GraphProto) -> list[str]:
    """Nodes that may give something else in every pass, those of subgraphs included."""
    return [label(node) for node in _walk(graph) if node.op_type in RANDOM or _trains(node)]


def _trains(node: onnx.NodeProto) -> bool:
    """Whether a node is in training mode; onnxruntime leaves parts of such norms undefined."""
    if node.op_type == "Dropout":
        return len(node.input) > 2 and bool(node.input[2])
    norm = node.op_type == "BatchNormalization"
    return norm and any(a.name == "training_mode" and a.i for a in node.attribute)


def _walk(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _walk(inner)


def steps(proto: onnx.ModelProto) -> dict[str, str]:
    """The first output of every node at the top of the graph, with the node's label."""
    return {node.output[0]: label(node) for node in proto.graph.node if node.output[0]}
