"""Recognise GELUs and group norms that exporters wrote out as arithmetic.

Before opset 20 there is no Gelu, and x (1 + erf(x / sqrt 2)) / 2 is written as five nodes in one of
several orders. They are found by the function of x that each tensor is, up to a factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ..graph import Graph, Node

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


TOLERANCE = 1e-3
"""Relative; in half precision the root of 2 is off by 1e-4."""


@dataclass(frozen=True)
class _Form:
    """A tensor as `factor` times x, erf(x / sqrt 2) or 1 + that, or GELU(x), by `kind`."""

    kind: str
    x: str
    factor: float

    def times(self, factor: float) -> _Form:
        return replace(self, factor=self.factor * factor)


def with_gelus(graph: Graph) -> Graph:
    """Return `graph` with a Gelu in place of the last node of each written-out one."""
    reader = _Reader(graph.constants)
    return replace(graph, nodes=tuple(reader.read(node) for node in graph.nodes))


@dataclass
class _Reader:
    """Reads the nodes in execution order; `forms` are the forms of the tensors so far."""

    constants: Mapping[str, Tensor]
    forms: dict[str, _Form] = field(default_factory=dict)

    def read(self, node: Node) -> Node:
        """Return the node, or the Gelu of which it is the last node."""
        form = self._form(node)
        if form is None:
            return node
        self.forms[node.outputs[0]] = form
        if form.kind == "gelu" and math.isclose(form.factor, 1, rel_tol=TOLERANCE):
            return Node("Gelu", node.name, (form.x,), node.outputs, {}, node.opset)
        return node

    def _form(self, node: Node) -> _Form | None:
        if node.op == "Erf":
            return self._erf(node.inputs[0])
        if node.op not in {"Mul", "Div", "Add"}:
            return None
        orders = [node.inputs] if node.op == "Div" else [node.inputs, node.inputs[::-1]]
        for name, other in orders:
            number = self._number(other)
            if number:
                return self._with_number(node.op, name, number)
        return self._product(*node.inputs) if node.op == "Mul" else None

    def _number(self, name: str) -> float | None:
        found = self.constants.get(name)
        return float(found) if found is not None and found.numel() == 1 else None

    def _erf(self, name: str) -> _Form | None:
        form = self.forms.get(name)
        if form is None or not math.isclose(form.factor, math.sqrt(0.5), rel_tol=TOLERANCE):
            return None
        return _Form("erf", form.x, 1.0) if form.kind == "x" else None

    def _with_number(self, op: str, name: str, number: float) -> _Form | None:
        form = self.forms.get(name)
        if op == "Add":
            erf = form is not None and form.kind == "erf" and math.isclose(form.factor, number)
            return replace(form, kind="gate") if form is not None and erf else None
        if form is None or form.kind == "x":
            form = _Form("x", name, 1.0)
        return form.times(1 / number if op == "Div" else number)

    def _product(self, first: str, second: str) -> _Form | None:
        for gate, other in ((first, second), (second, first)):
            form, of_x = self.forms.get(gate), self.forms.get(other)
            if form is None or form.kind != "gate":
                continue
            if other == form.x:
                return _Form("gelu", form.x, 2 * form.factor)
            if of_x is not None and of_x.kind == "x" and of_x.x == form.x:
                return _Form("gelu", form.x, 2 * form.factor * of_x.factor)
        return None


WITH_GROUPS = 18
"""The opset whose group norm has one scale a group, as the instance norm has."""


def with_group_norms(graph: Graph) -> Graph:
    """Return `graph` with a group norm in place of the last node of each written-out one."""
    writers = {name: node for node in graph.nodes for name in node.outputs}
    nodes = (_whole(node, writers, graph) or node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes))


def _whole(node: Node, writers: Mapping[str, Node], graph: Graph) -> Node | None:
    """Return the group norm of which `node` is the last node, or None."""
    norm = writers.get(node.inputs[0]) if node.op == "Reshape" else None
    if norm is None or norm.op != "InstanceNormalization":
        return None
    before, scale = writers.get(norm.inputs[0]), graph.constants.get(norm.inputs[1])
    if before is None or before.op != "Reshape" or scale is None:
        return None
    inputs = (before.inputs[0], *norm.inputs[1:])
    attributes = {**norm.attributes, "num_groups": scale.numel()}
    constant = frozenset(inputs) & graph.constants.keys()
    return Node(
        "GroupNormalization", norm.name, inputs, node.outputs, attributes, WITH_GROUPS, constant
    )
