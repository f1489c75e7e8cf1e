"""Nodes in execution order, whatever their order in the file.

ONNX asks for sorted nodes, but onnxruntime sorts them itself and also writes files that are not.
"""

from __future__ import annotations

from copy import deepcopy
from heapq import heapify, heappop, heappush

import onnx

from .protos import reads, set_items, stored_names, subgraphs


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
        missing = next((name for name in node.input if name not in known), None)
        if missing is not None:
            raise IncompleteError(node, missing)
        for inner in subgraphs(node):
            sort_nodes(inner, known)
    order = _order(list(graph.node), given)
    if order != sorted(order):
        set_items(graph.node, [deepcopy(graph.node[i]) for i in order])


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
