"""Group norms that exporters wrote out, read as one operator again.

Before opset 18 there is no group norm: the channels of a group are moved beside each other, an
instance norm goes over each group, and the map is put back into its shape.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from .onnx_graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

WITH_GROUPS = 18
"""The opset whose group norm has one scale a group, as the instance norm has."""


def with_group_norms(graph: Graph) -> Graph:
    """`graph` with a group norm in place of the last node of each that was written out."""
    writers = {name: node for node in graph.nodes for name in node.outputs}
    nodes = (_whole(node, writers, graph) or node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _whole(node: Node, writers: Mapping[str, Node], graph: Graph) -> Node | None:
    """The group norm that `node` ends, None where it ends none."""
    norm = writers.get(node.inputs[0]) if node.op == "Reshape" else None
    if norm is None or norm.op != "InstanceNormalization":
        return None
    before, scale = writers.get(norm.inputs[0]), graph.constants.get(norm.inputs[1])
    if before is None or before.op != "Reshape" or scale is None:
        return None
    inputs = (before.inputs[0], *norm.inputs[1:])
    held = {**norm.attributes, "num_groups": scale.numel()}
    constant = frozenset(inputs) & graph.constants.keys()
    return Node("GroupNormalization", norm.name, inputs, node.outputs, held, WITH_GROUPS, constant)
