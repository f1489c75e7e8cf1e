"""Nodes in execution order, whatever their order in the file.

ONNX asks for sorted nodes, but onnxruntime sorts them itself and also writes files that are not.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

import onnx

if TYPE_CHECKING:
    from collections.abc import Iterator


class IncompleteError(Exception):
    """`node` reads `tensor`, which nothing writes."""

    def __init__(self, node: onnx.NodeProto, tensor: str) -> None:
        super().__init__(tensor)
        self.node, self.tensor = node, tensor


class CyclicError(Exception):
    """`node` reads what follows from it."""

    def __init__(self, node: onnx.NodeProto) -> None:
        super().__init__(node.name)
        self.node = node


def sort_nodes(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> None:
    """Sort the nodes of `graph` and of its subgraphs in place; sorted ones keep their order.

    `outer` are the tensors of the graphs around it. Raises `IncompleteError` and `CyclicError`.
    """
    given = outer | stored_names(graph)
    known = given | {name for node in graph.node for name in node.output}
    for node in graph.node:
        _check_complete(node, known)
        for inner in subgraphs(node):
            sort_nodes(inner, known)
    order = _order(list(graph.node), given)
    if order != sorted(order):
        nodes = [graph.node[i] for i in order]
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
        del graph.node[:]
        graph.node.extend(copies)


def stored_names(graph: onnx.GraphProto) -> frozenset[str]:
    """The tensors that `graph` has before any node runs: inputs and initialisers."""
    names = {"", *(i.name for i in graph.input), *(i.name for i in graph.initializer)}
    return frozenset(names.union(i.values.name for i in graph.sparse_initializer))


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among the attributes of `node`, such as the branches of an If."""
    for attribute in node.attribute:
        yield from attribute.graphs
        if attribute.HasField("g"):
            yield attribute.g


def reads(node: onnx.NodeProto) -> set[str]:
    """The tensors that `node` reads, those included that its subgraphs take from outside."""
    names = set(node.input) - {""}
    for graph in subgraphs(node):
        own = stored_names(graph).union(*(inner.output for inner in graph.node))
        taken = {o.name for o in graph.output}.union(*(reads(n) for n in graph.node))
        names |= taken - own
    return names


def _check_complete(node: onnx.NodeProto, known: frozenset[str]) -> None:
    missing = next((name for name in node.input if name not in known), None)
    if missing is not None:
        raise IncompleteError(node, missing)


def _order(nodes: list[onnx.NodeProto], given: frozenset[str]) -> list[int]:
    """Places of `nodes` in execution order; among those that can run, the first comes first."""
    writer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    waits: list[set[int]] = []
    readers: list[list[int]] = [[] for _ in nodes]
    for i, node in enumerate(nodes):
        waits.append({writer[n] for n in reads(node) - given if n in writer})
        for source in waits[i]:
            readers[source].append(i)
    left = [len(sources) for sources in waits]
    ready = [i for i, count in enumerate(left) if not count]
    heapify(ready)
    order = []
    while ready:
        i = heappop(ready)
        order.append(i)
        for reader in readers[i]:
            left[reader] -= 1
            if not left[reader]:
                heappush(ready, reader)
    if len(order) < len(nodes):
        raise CyclicError(nodes[_on_cycle(waits, set(order))])
    return order


def _on_cycle(waits: list[set[int]], done: set[int]) -> int:
    """A node of a cycle among those that are not `done`, each of which waits for another."""
    seen: set[int] = set()
    i = next(i for i in range(len(waits)) if i not in done)
    while i not in seen:
        seen.add(i)
        i = min(waits[i] - done)
    return i
