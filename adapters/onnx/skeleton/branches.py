"""Branches of a graph: an If whose condition is known becomes the nodes of its branch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Collection


def without_branches(graph: Graph) -> Graph:
    """Return `graph` with every If of a constant condition replaced by the branch it takes."""
    constants, nodes = dict(graph.constants), list[Node]()
    for node in graph.nodes:
        held = constants.get(node.inputs[0]) if node.op == "If" else None
        if held is None:
            nodes.append(node)
            continue
        inner = node.attributes["then_branch" if bool(held) else "else_branch"]
        inner = without_branches(inner)
        constants.update(inner.constants)
        nodes += inner.nodes
        nodes += [
            Node("Identity", node.name, (source,), (name,), {}, node.opset)
            for source, name in zip(inner.outputs, node.outputs, strict=True)
            if name
        ]
    known = constants.keys()
    marked = (replace(n, constant=frozenset(n.inputs) & known) for n in nodes)
    return replace(graph, nodes=tuple(marked), constants=constants)


def layers_within(node: Node, layers: Collection[str]) -> bool:
    """Whether a graph among the attributes of `node` has operators of `layers`."""
    graphs = [value for value in node.attributes.values() if isinstance(value, Graph)]
    return any(inner.op in layers for graph in graphs for inner in graph.walk())
