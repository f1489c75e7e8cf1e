"""The float graph of a quantised graph, as far as `structure` needs it.

Kernel sizes, strides and connections do not depend on how numbers are stored. Rounding and scaling
become the identity, and every quantised operator becomes its float counterpart: operators between
QuantizeLinear and DequantizeLinear (QDQ), integer operators (such as QLinearConv), and those that
quantise by the range of each image (ConvInteger behind DynamicQuantizeLinear).

Quantisers drop a ReLU if a tensor is stored with its zero at the bottom of the range, as rounding
then clips at zero. The ReLU is added again if the clipped tensor can be negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ..graph import Graph, Node
from ..operators.quantised import (
    CONCAT,
    FLOAT_COUNTERPARTS,
    RANGES,
    FloatCounterpart,
    zero_place,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_LAYERS = {"Conv", "MatMul", "Gemm"}
"""Operators of whose constants only the shape matters."""

_POSITIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp"}

_KEEPS_SIGN = {
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"),
    *("Expand", "Identity", "Cast", "Dropout", "Pad", "Resize", "Upsample"),
    *("DepthToSpace", "SpaceToDepth"),
}
"""Operators whose output is not negative if their first input is not."""

_JOINS = {"Add", "Sum", "Mul", "Concat", "Min", "Max", "Mean"}
"""Operators whose output is not negative if none of their inputs is."""


def without_quantisation(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """Return the float graph of a quantised one, and the new names of merged tensors."""
    floats = _Floats(dict(graph.constants), nonnegative=set(graph.inputs))
    for node in graph.nodes:
        floats.take(node)
    return replace(graph, nodes=tuple(floats.nodes), constants=floats.constants), floats.alias


@dataclass
class _Floats:
    """The float nodes made so far; `scales` are tensors that only scale integers."""

    constants: dict[str, Tensor]
    nonnegative: set[str]
    nodes: list[Node] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    scales: set[str] = field(default_factory=set)

    def take(self, node: Node) -> None:
        """Add the float counterpart of `node`."""
        inputs = [self.alias.get(name, name) for name in node.inputs]
        if node.op == "QuantizeLinear":
            self._clip(node, inputs[0], node.outputs[0], node.inputs[2:3])
        elif node.op == "DequantizeLinear":
            self.alias[node.outputs[0]] = inputs[0]
        elif node.op == "DynamicQuantizeLinear":
            self.alias[node.outputs[0]] = inputs[0]
            self.scales.update(node.outputs[1:])
        elif node.op == "Mul" and self.scales.intersection(inputs):
            self._unscale(node, inputs)
        elif node.op == CONCAT:
            operands = tuple(range(2, len(inputs), 3))
            self._replace(node, FloatCounterpart("Concat", operands, zero_place(CONCAT)), inputs)
        elif node.op in FLOAT_COUNTERPARTS:
            self._replace(node, FLOAT_COUNTERPARTS[node.op], inputs)
        else:
            self._add(replace(node, inputs=tuple(inputs)))

    def _unscale(self, node: Node, inputs: Sequence[str]) -> None:
        """Drop a factor that is a scale; a product of scales is a scale."""
        others = [n for n in inputs if n not in self.scales and n not in self.constants]
        if others:
            self.alias[node.outputs[0]] = others[0]
        else:
            self.scales.update(node.outputs)

    def _replace(self, node: Node, counterpart: FloatCounterpart, inputs: Sequence[str]) -> None:
        places = [i for i in counterpart.operands if i < len(inputs)]
        names = [inputs[i] for i in places]
        if counterpart.op not in _LAYERS:
            names = [self._real(inputs, i) for i in places]
        zero = (
            [] if counterpart.zero is None else node.inputs[counterpart.zero : counterpart.zero + 1]
        )
        clips = self._clips(zero)
        raw = f"{node.outputs[0]}/unclipped" if clips else node.outputs[0]
        self._add(replace(node, op=counterpart.op, inputs=tuple(names), outputs=(raw,)))
        if clips:
            self._clip(node, raw, node.outputs[0], zero)

    def _real(self, inputs: Sequence[str], place: int) -> str:
        """Return the name of an operand; of a constant one that of its real values."""
        name = inputs[place]
        if name not in self.constants:
            return name
        scale, zero = (self.constants[inputs[place + i]].double() for i in (1, 2))
        self.constants[f"{name}/real"] = (self.constants[name].double() - zero) * scale
        return f"{name}/real"

    def _clips(self, zero: Sequence[str]) -> bool:
        """Whether the output cannot store negative values."""
        constant = self.constants.get(zero[0]) if zero else None
        return constant is not None and bool((constant == RANGES[constant.dtype][0]).all())

    def _clip(self, node: Node, x: str, y: str, zero: Sequence[str]) -> None:
        """Define `y` as `x`, or as its ReLU if storing it clips values that may be negative."""
        if not self._clips(zero) or x in self.nonnegative:
            self.alias[y] = x
        else:
            self._add(Node("Relu", node.name, (x,), (y,), {}, node.opset))

    def _add(self, node: Node) -> None:
        constant = frozenset(node.inputs) & self.constants.keys()
        self.nodes.append(replace(node, constant=constant))
        if self._positive(node):
            self.nonnegative.update(node.outputs)

    def _positive(self, node: Node) -> bool:
        if node.op == "Clip":
            return self._floor(node) >= 0
        if node.op in _JOINS:
            return all(map(self._is_nonnegative, node.inputs))
        kept = node.op in _KEEPS_SIGN and self._is_nonnegative(node.inputs[0])
        return kept or node.op in _POSITIVE

    def _is_nonnegative(self, name: str) -> bool:
        constant = self.constants.get(name)
        return name in self.nonnegative or (constant is not None and bool((constant >= 0).all()))

    def _floor(self, node: Node) -> float:
        """Return the lower limit of a Clip, or minus infinity."""
        given = self.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if given is not None:
            return float(given)
        return float(node.attributes.get("min", -torch.inf))
