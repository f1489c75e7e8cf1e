"""The weightless copy of an ONNX graph that `structure` walks.

Exporters fold batch norms into the convolution before them, so that such a graph has fewer
normalisations than the network it came from: the skeleton shows the graph as it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .errors import NotApplicableError
from .onnx_file import plain
from .onnx_graph import Mode, Node
from .onnx_interpreter import Interpreter, apply
from .onnx_target import image_edges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import onnx

    from .model import Grid

WEIGHTED = {"Conv", "com.microsoft:FusedConv", "ConvTranspose", "Gemm", "MatMul"}
"""Operators whose constant inputs are weights and biases: only their shape counts."""

SCALED = {"Mul", "Div", "Add", "Sub", "PRelu"}
"""Operators whose constant operand is a learned vector, unless it is a single number."""

OPAQUE = {"Erf", "Pow", "Sqrt", "Exp", "Log", "Einsum", "LSTM", "Loop", "If", "QuantizeLinear"}
"""Operators that stand for the insides of a layer: second moments do not pass through them."""


class NodeLayer(nn.Module):
    """One node as a module, so that hooks see it run."""

    def __init__(self, node: Node, mode: Mode) -> None:
        super().__init__()
        self.node = node
        self.mode = mode

    def forward(self, scope: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The node's outputs from the tensors in `scope`."""
        return apply(self.node, scope, self.mode)


class SkeletonBody(Interpreter):
    """The interpreter with a module for each node; modules are named like the nodes."""

    def __init__(self, proto: onnx.ModelProto) -> None:
        super().__init__(proto, Mode(skeleton=True))
        self.layers = {n.outputs[0]: NodeLayer(n, self.mode) for n in self.graph.nodes}

    def named_modules(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Module]]:
        """Give the nodes' modules under the nodes' own names, which may hold dots and slashes."""
        for layer in self.layers.values():
            yield plain(layer.node.name or layer.node.outputs[0]), layer

    def forward(self, feeds: Mapping[str, Tensor], want: Sequence[str]) -> dict[str, Tensor]:
        """Evaluate the tensors named in `want`, node by node."""
        scope = {**self.graph.constants, **feeds}
        for node, done in self.plan(tuple(want)):
            scope.update(zip(node.outputs, self.layers[node.outputs[0]](scope), strict=False))
            for name in done:
                scope.pop(name, None)
        return {name: scope[name] for name in want}


class OnnxSkeleton(nn.Module):
    """Maps `x` (batch, channels, height, width) to the target; weights live on `meta`.

    `energy` has, by name, the second moments (rows, columns) of the taps of padded weights, which
    go along as their `tap_energy`. Raises `NotApplicableError` when layers were written out as
    arithmetic.
    """

    def __init__(
        self,
        proto: onnx.ModelProto,
        image: str,
        grid: Grid,
        layout: str,
        energy: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.body = SkeletonBody(proto)
        self.grid = grid
        self._image = image
        self._layout = layout
        nodes = [node for node, _ in self.body.plan((grid.name,))]
        seen = image_edges(proto, image)
        opaque = sorted({n.op for n in nodes if n.op in OPAQUE and n.outputs[0] in seen})
        if opaque:
            raise NotApplicableError(
                f"layers of this graph are written out as arithmetic ({', '.join(opaque)}); "
                "export it with opset 20 or later for a structure"
            )
        light = light_constants(nodes, self.body.graph.constants)
        for name in energy.keys() & light.keys():
            light[name].tap_energy = energy[name]  # type: ignore[attr-defined]
        self.body.replace_constants(light)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` (batch, channels, height, width) to the target, of the same axes."""
        x = x.permute(0, 2, 3, 1) if self._layout == "NHWC" else x
        return self.grid.read(self.body({self._image: x}, [self.grid.name])[self.grid.name])


def light_constants(nodes: Iterable[Node], constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Constants as the skeleton has them: weights on `meta`, scales one, biases of products zero.

    Integers and single numbers, which are shapes and settings, stay.
    """
    light: dict[str, Tensor] = {}
    products: set[str] = set()
    for node in nodes:
        if node.op in WEIGHTED and node.constant:
            products.update(node.outputs)
        for name in node.constant:
            value = constants[name]
            if node.op in WEIGHTED:
                light[name] = torch.empty(value.shape, device="meta")
            elif node.op in SCALED and value.numel() > 1 and value.is_floating_point():
                shift = node.op in {"Add", "Sub"} and products.intersection(node.inputs)
                light[name] = torch.zeros_like(value) if shift else torch.ones_like(value)
    return light
