"""A quantised graph as the float graph that it came from, as far as `structure` asks.

Kernel sizes, strides and connections do not depend on how numbers are stored. So rounding and
scaling become the identity, and every quantised operator its float counterpart: those between
QuantizeLinear and DequantizeLinear (QDQ), those of whole numbers (QLinearConv and the like), and
those that quantise by the range of each image (ConvInteger behind DynamicQuantizeLinear).

Quantisers drop a ReLU where a tensor is stored with its zero at the bottom of the range, as
rounding then clips at zero. It is put back wherever what is clipped could be negative.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch

from ..graph import Graph, Node
from ..operators.quantised import RANGES
from ..operators.quantised_twins import CONCAT, TWINS, _Twin, zero_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


_LAYERS = {"Conv", "MatMul", "Gemm"}
"""Operators whose constants count by their shape alone."""


_POSITIVE = {"Relu", "Sigmoid", "HardSigmoid", "Softmax", "Softplus", "Abs", "Exp"}


_KEEPS_SIGN = {
    *("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean", "ReduceMax"),
    *("Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather"),
    *("Expand", "Identity", "Cast", "Dropout", "Pad", "Resize", "Upsample"),
    *("DepthToSpace", "SpaceToDepth"),
}
"""Operators that give nothing negative where their first input has nothing negative."""


_JOINS = {"Add", "Sum", "Mul", "Concat", "Min", "Max", "Mean"}
"""Those that need it of all their inputs."""


def without_quantisation(graph: Graph) -> tuple[Graph, dict[str, str]]:
    """The float graph of a quantised one, and under which name tensors are now that were merged."""
    floats = _Floats(dict(graph.constants), nonnegative=set(graph.inputs))
    for node in graph.nodes:
        floats.take(node)
    return replace(graph, nodes=tuple(floats.nodes), constants=floats.constants), floats.alias


@dataclass
class _Floats:
    """Float nodes made so far; `scales` are tensors that only scale whole numbers."""

    constants: dict[str, Tensor]
    nonnegative: set[str]
    nodes: list[Node] = field(default_factory=list)
    alias: dict[str, str] = field(default_factory=dict)
    scales: set[str] = field(default_factory=set)

    def take(self, node: Node) -> None:
        """Add what `node` is among floats."""
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
            self._replace(node, _Twin("Concat", operands, zero_place(CONCAT)), inputs)
        elif node.op in TWINS:
            self._replace(node, TWINS[node.op], inputs)
        else:
            self._add(replace(node, inputs=tuple(inputs)))

    def _unscale(self, node: Node, inputs: Sequence[str]) -> None:
        """A product of scales is a scale; what is multiplied by one stays as it is."""
        others = [n for n in inputs if n not in self.scales and n not in self.constants]
        if others:
            self.alias[node.outputs[0]] = others[0]
        else:
            self.scales.update(node.outputs)

    def _replace(self, node: Node, twin: _Twin, inputs: Sequence[str]) -> None:
        places = [i for i in twin.operands if i < len(inputs)]
        names = [inputs[i] for i in places]
        if twin.op not in _LAYERS:
            names = [self._real(inputs, i) for i in places]
        zero = [] if twin.zero is None else node.inputs[twin.zero : twin.zero + 1]
        clips = self._clips(zero)
        raw = f"{node.outputs[0]}/unclipped" if clips else node.outputs[0]
        self._add(replace(node, op=twin.op, inputs=tuple(names), outputs=(raw,)))
        if clips:
            self._clip(node, raw, node.outputs[0], zero)

    def _real(self, inputs: Sequence[str], place: int) -> str:
        """The name of an operand, of its real values where it is constant."""
        name = inputs[place]
        if name not in self.constants:
            return name
        scale, zero = (self.constants[inputs[place + i]].double() for i in (1, 2))
        self.constants[f"{name}/real"] = (self.constants[name].double() - zero) * scale
        return f"{name}/real"

    def _clips(self, zero: Sequence[str]) -> bool:
        """Whether nothing below zero can be stored."""
        held = self.constants.get(zero[0]) if zero else None
        return held is not None and bool((held == RANGES[held.dtype][0]).all())

    def _clip(self, node: Node, x: str, y: str, zero: Sequence[str]) -> None:
        """Let `y` be `x`, rectified where storing it clips what may be negative."""
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
        held = self.constants.get(name)
        return name in self.nonnegative or (held is not None and bool((held >= 0).all()))

    def _floor(self, node: Node) -> float:
        """The lower limit of a Clip, minus infinity where there is none."""
        given = self.constants.get(node.inputs[1]) if len(node.inputs) > 1 else None
        if given is not None:
            return float(given)
        return float(node.attributes.get("min", -torch.inf))
