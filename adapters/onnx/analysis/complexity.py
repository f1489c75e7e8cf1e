"""The numbers that a graph stores as weights, and the MACs of one pass, from the shapes alone.

They are counted as `adapters.complexity` says; operators that are not counted here although they
multiply, such as LSTM, leave the MACs unknown.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from ...complexity import Complexity
from ..files.protos import attribute
from ..graph import operator_of
from ..inputs.head import stored_constants
from ..paths import image_edges
from ..session import tensor_shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import onnx


Shape = tuple[int, ...]

WEIGHT_TYPES = (1, 2, 3, 10, 11, 16)
"""ONNX element types float, uint8, int8, float16, double and bfloat16."""

UNCOUNTED = {
    *("LSTM", "GRU", "RNN", "Einsum", "DeformConv"),
    *("Attention", "MultiHeadAttention", "QAttention"),
    *("If", "Loop", "Scan", "DynamicQuantizeLSTM", "FusedMatMul", "MatMulNBits", "FusedGemm"),
}


def graph_complexity(proto: onnx.ModelProto, image: str, x: Any) -> Complexity:
    """The complexity of a graph whose input `image` is given the array `x` (batch, ...)."""
    stored = stored_constants(proto)
    weights = (t for t in stored.values() if t.data_type in WEIGHT_TYPES)
    parameters = sum(n for t in weights if (n := prod(t.dims)) > 1)
    return Complexity(
        parameters, _macs(proto, image, x, {n: tuple(t.dims) for n, t in stored.items()})
    )


def _macs(proto: onnx.ModelProto, image: str, x: Any, stored: Mapping[str, Shape]) -> int | None:
    edges = image_edges(proto, image)
    nodes = [n for n in proto.graph.node if any(name in edges for name in n.output)]
    operators = [operator_of(n).rpartition(":")[2] for n in nodes]
    if UNCOUNTED.intersection(operators):
        return None
    counted = [(n, op) for n, op in zip(nodes, operators, strict=True) if op in COUNTED]
    made = {name for n in proto.graph.node for name in n.output}
    names = {name for n, _ in counted for name in (*n.input, *n.output) if name in made}
    found = tensor_shapes(proto, sorted(names), {image: x}) if names else {}
    shapes = {**stored, **{n: shape for n, (shape, _) in found.items()}, image: x.shape}
    return sum(COUNTED[op](n, shapes) for n, op in counted) // len(x)


def _convolution(place: int, *, by_input: bool = False) -> Callable[..., int]:
    """MACs of a convolution whose kernels are input number `place`.

    Each output, of a transposed one each input, is multiplied with one kernel.
    """

    def macs(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
        side = node.input[0] if by_input else node.output[0]
        return prod(shapes[side]) * prod(shapes[node.input[place]][1:])

    return macs


def _product(node: onnx.NodeProto, shapes: Mapping[str, Shape]) -> int:
    """MACs of a matrix product: outputs times the length of a row of the first factor."""
    first = shapes[node.input[0]]
    turned = attribute(node, "transA")
    return prod(shapes[node.output[0]]) * first[-2 if turned else -1]


COUNTED: dict[str, Callable[..., int]] = {
    **dict.fromkeys(("Conv", "FusedConv", "ConvInteger"), _convolution(1)),
    "QLinearConv": _convolution(3),
    "ConvTranspose": _convolution(1, by_input=True),
    **dict.fromkeys(("MatMul", "Gemm", "MatMulInteger", "QLinearMatMul"), _product),
}
