"""Branches of a graph: an If whose condition is known becomes the nodes of its branch."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Collection


def without_branches(graph: Graph) -> Graph:
    """Return `graph` with every If of a constant condition replaced by the branch it takes.

    A branch whose tensors have names that are taken stays where it is.
    """
    constants, nodes = dict(graph.constants), list[Node]()
    taken = {*constants, *graph.inputs, *(name for n in graph.nodes for name in n.outputs)}
    for node in graph.nodes:
        value = constants.get(node.inputs[0]) if node.op == "If" else None
        name = "then_branch" if value else "else_branch"
        inner = None if value is None else without_branches(node.attributes[name])
        if inner is None or not taken.isdisjoint(own := _names(inner)):
            nodes.append(node)
            continue
        taken |= own
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


def _names(graph: Graph) -> set[str]:
    """The tensors that `graph` stores or writes."""
    return {*graph.constants, *(name for node in graph.nodes for name in node.outputs)}


def layers_within(node: Node, layers: Collection[str]) -> bool:
    """Whether a graph among the attributes of `node` has operators of `layers`."""
    graphs = [value for value in node.attributes.values() if isinstance(value, Graph)]
    return any(inner.op in layers for graph in graphs for inner in graph.walk())
