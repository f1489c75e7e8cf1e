"""Recognise norms that exporters wrote out as arithmetic.

Before opset 17 there is no LayerNormalization, and before 23 no RMSNormalization. The quotient
(x - m) / sqrt(v + eps) is written as means, squares and a root, in one of several orders; tf2onnx
writes x r + (b - m r) with r = g / sqrt(v + eps). Tensors are followed by what they are of x. The
quotient, and what scale and shift make of it, become one norm of x each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, TypeVar

from ..graph import Graph, Node, integers
from ..inputs.outputs import FLOATING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


Form = TypeVar("Form")


@dataclass
class Reader(ABC, Generic[Form]):
    """Reads the nodes of a graph in execution order, and replaces those that complete a layer.

    `writers` are the nodes so far by what they write, `forms` the forms of the tensors so far.
    """

    constants: Mapping[str, Tensor]
    writers: dict[str, Node] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)

    @classmethod
    def rewrite(cls, graph: Graph) -> Graph:
        """Return `graph` with a layer in place of the last node of each written-out one."""
        reader, nodes = cls(graph.constants), list[Node]()
        for node in graph.nodes:
            reader.writers.update(dict.fromkeys(node.outputs, node))
            nodes.append(reader.read(node))
        return replace(graph, nodes=tuple(nodes))

    @abstractmethod
    def read(self, node: Node) -> Node:
        """Return the node, or the layer of which it is the last node."""

    def _number(self, name: str) -> float | None:
        found = self.constants.get(name)
        return float(found) if found is not None and found.numel() == 1 else None


WITH_GROUPS = 18
"""The opset whose group norm has one scale a group, as the instance norm has."""


class GroupNormReader(Reader[None]):
    """Finds group norms: an instance norm of the groups, between two reshapes."""

    def read(self, node: Node) -> Node:
        """Return the node, or the group norm of which it is the last node."""
        norm = self.writers.get(node.inputs[0]) if node.op == "Reshape" else None
        if norm is None or norm.op != "InstanceNormalization":
            return node
        before, scale = self.writers.get(norm.inputs[0]), self.constants.get(norm.inputs[1])
        if before is None or before.op != "Reshape" or scale is None:
            return node
        inputs = (before.inputs[0], *norm.inputs[1:])
        attributes = {**norm.attributes, "num_groups": scale.numel()}
        constant = frozenset(inputs) & self.constants.keys()
        return Node(
            "GroupNormalization", norm.name, inputs, node.outputs, attributes, WITH_GROUPS, constant
        )


NORM = "perimetry:Norm"
"""Zero mean (if `centred`) and unit variance over `axes`, which need not be the last ones."""


@dataclass(frozen=True)
class _NormForm:
    """A tensor by `kind`, as a function of `x` over `axes`.

    `mean`; `centred` (x minus its mean); `square` and `power` (its mean), `root` and `inverse` of
    x, or of the centred x; `norm`; `scaled` x and `scaled mean` by the inverse; `shift` minus that.
    """

    kind: str
    x: str
    axes: tuple[int, ...] = ()
    centred: bool = False


@dataclass
class NormReader(Reader[_NormForm]):
    """Finds layer and RMS norms."""

    alias: dict[str, str] = field(default_factory=dict)

    def read(self, node: Node) -> Node:
        """Return the node, or the norm of which it is the last node."""
        names = [self.alias.get(name, name) for name in node.inputs]
        if node.op == "Identity" or (node.op == "Cast" and node.attributes.get("to") in FLOATING):
            self.alias[node.outputs[0]] = names[0]
            return node
        form = self._form(node, names)
        if form is None:
            return node
        self.forms[node.outputs[0]] = form
        if form.kind != "norm":
            return node
        attributes = {"axes": form.axes, "centred": form.centred}
        return Node(NORM, node.name, (form.x,), node.outputs, attributes, node.opset)

    def _form(self, node: Node, names: list[str]) -> _NormForm | None:
        if node.op == "ReduceMean" and node.attributes.get("keepdims", 1):
            return self._mean(node, names)
        if node.op in {"Sqrt", "Reciprocal"}:
            return self._root(names[0], 0.5 if node.op == "Sqrt" else -1.0)
        if node.op == "Pow":
            power = self._number(names[1])
            return self._square(names[0]) if power == 2 else self._root(names[0], power)
        if node.op == "Mul" and names[0] == names[1]:
            return self._square(names[0])
        two = {"Mul": self._product, "Add": self._sum}.get(node.op)
        if two is not None:
            return two(*names) or two(*reversed(names))
        if node.op in {"Sub", "Div"}:
            return self._difference(*names) if node.op == "Sub" else self._quotient(*names)
        return None

    def _mean(self, node: Node, names: list[str]) -> _NormForm | None:
        stored = self.constants.get(names[1]) if len(names) > 1 else None
        axes = integers(node.attributes.get("axes", stored))
        if not axes:
            return None
        form = self.forms.get(names[0])
        if form is not None and form.kind == "square":
            fits = not form.centred or tuple(axes) == form.axes
            return replace(form, kind="power", axes=tuple(axes)) if fits else None
        return _NormForm("mean", names[0], tuple(axes))

    def _square(self, name: str) -> _NormForm:
        form = self.forms.get(name)
        if form is not None and form.kind == "centred":
            return replace(form, kind="square")
        return _NormForm("square", name)

    def _root(self, name: str, power: float | None) -> _NormForm | None:
        form = self.forms.get(name)
        found = {("power", 0.5): "root", ("power", -0.5): "inverse", ("root", -1.0): "inverse"}
        kind = found.get((form.kind, power)) if form is not None and power is not None else None
        return replace(form, kind=kind) if form is not None and kind is not None else None

    def _source(self, name: str) -> tuple[str, bool]:
        """The tensor of which `name` is the centred one, or itself."""
        form = self.forms.get(name)
        centred = form is not None and form.kind == "centred"
        return (form.x, True) if form is not None and centred else (name, False)

    def _difference(self, a: str, b: str) -> _NormForm | None:
        first, second = self.forms.get(a), self.forms.get(b)
        if second is None:
            return None
        if second.kind == "mean" and second.x == a:
            return replace(second, kind="centred", centred=True)
        if second.kind == "scaled mean" and a in self.constants:
            return replace(second, kind="shift")
        if second.kind == "scaled mean" and first == replace(second, kind="scaled"):
            return replace(second, kind="norm")
        if first is not None and first.kind == "norm" and b in self.constants:
            return first
        return None

    def _quotient(self, a: str, b: str) -> _NormForm | None:
        form = self.forms.get(b)
        if form is None or form.kind != "root":
            return None
        if a in self.constants:
            return replace(form, kind="inverse")
        return replace(form, kind="norm") if self._source(a) == (form.x, form.centred) else None

    def _product(self, a: str, b: str) -> _NormForm | None:
        form, other = self.forms.get(a), self.forms.get(b)
        if form is None:
            return None
        if b in self.constants:
            return form if form.kind in {"inverse", "norm"} else None
        if form.kind != "inverse":
            return None
        if self._source(b) == (form.x, form.centred):
            return replace(form, kind="norm")
        if form.centred and b == form.x:
            return replace(form, kind="scaled")
        mean = other == _NormForm("mean", form.x, form.axes)
        return replace(form, kind="scaled mean") if form.centred and mean else None

    def _sum(self, a: str, b: str) -> _NormForm | None:
        form = self.forms.get(a)
        if form is None:
            return None
        if b in self.constants:
            small = form.kind == "power" and self._number(b) is not None
            return form if small or form.kind == "norm" else None
        if form.kind == "scaled" and self.forms.get(b) == replace(form, kind="shift"):
            return replace(form, kind="norm")
        return None
