"""The steps of an ONNX graph, for the rule of `adapters.target_rule`.

One run with every tensor that depends on the image as an output gives their shapes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import onnx

from ...readings import Kind, Step
from ...target_rule import Way
from ..files.protos import attribute, reads
from ..graph import operator_of
from ..inputs.head import stored_constants
from ..paths import SHAPE_ONLY, image_edges
from ..session import tensor_shapes, with_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_BY_KIND: dict[Kind, str] = {
    "conv": "Conv FusedConv QLinearConv ConvInteger ConvTranspose DeformConv NhwcConv",
    "linear": "Gemm QGemm Attention QAttention",
    "recurrent": "LSTM GRU RNN DynamicQuantizeLSTM",
    "contract": "MatMul FusedMatMul MatMulInteger QLinearMatMul Einsum MultiHeadAttention "
    "DynamicQuantizeMatMul MatMulIntegerToFloat FusedGemm MatMulNBits",
    "spatial": "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool GlobalLpPool "
    "BatchNormalization InstanceNormalization GroupNormalization LRN DepthToSpace SpaceToDepth "
    "QLinearAveragePool QLinearGlobalAveragePool",
    "rectify": "Relu LeakyRelu PRelu Elu Selu Celu Gelu FastGelu BiasGelu QuickGelu Mish HardSwish "
    "Swish Softplus ThresholdedRelu Erf QLinearLeakyRelu Clip",
    "squash": "Sigmoid Softmax LogSoftmax Tanh HardSigmoid QLinearSigmoid QLinearSoftmax Hardmax",
    "multiply": "Mul QLinearMul",
    "permute": "Transpose",
    "view": "Reshape Flatten Squeeze Unsqueeze Identity Expand Dropout Cast",
    "select": "Slice Split Gather GatherND GatherElements Compress NonMaxSuppression RoiAlign "
    "MaxRoiPool GridSample SplitToSequence SequenceAt",
    "norm": "LayerNormalization SimplifiedLayerNormalization RMSNormalization "
    "SkipLayerNormalization",
    "concat": "Concat QLinearConcat",
    "pad": "Pad",
}

KINDS: dict[str, Kind] = {name: kind for kind, text in _BY_KIND.items() for name in text.split()}

PRODUCTS = {"MatMul", "FusedMatMul", "MatMulInteger", "QLinearMatMul", "Einsum"}

DYNAMIC = {"DynamicQuantizeMatMul", "MatMulIntegerToFloat", "FusedGemm", "MatMulNBits"}
"""Products with a matrix that is stored."""

RANGED = {"DynamicQuantizeLinear"}
"""Operators whose first output alone has a gradient; the others are its scale and zero point."""

DECIDING = ("bool", "int64")
"""Types of tensors that select or count; no gradient passes through them."""

FLOATS = ("float", "float16", "bfloat16", "double")


def graph_way(
    proto: onnx.ModelProto, image: str, outputs: Sequence[str], x: Any, size: tuple[int, int]
) -> Way:
    """Run the array `x` through the graph; the steps from `image` to `outputs`.

    `size` is (height, width) in pixels.
    """
    proto = with_outputs(proto, outputs)
    edges = image_edges(proto, image)
    names = [name for name in edges if name != image]
    shapes = tensor_shapes(proto, names, {image: x}) if names else {}
    stored = stored_constants(proto)
    steps = [Step(image, "other", (), x.shape)]
    places = {image: 0}
    for node in proto.graph.node:
        if node.op_type in SHAPE_ONLY:
            continue
        for name in node.output[: 1 if node.op_type in RANGED else None]:
            shape, type_name = shapes.get(name, ((), "bool"))
            if type_name not in DECIDING:
                step = _step(node, name, shape, places, edges, stored)
                last = step.kind == "recurrent" and name != node.output[0]
                step = replace(step, floating=type_name in FLOATS, selected=step.selected or last)
                if any(a is not None for a in step.arguments):
                    places[name] = len(steps)
                    steps.append(step)
    found = [places[name] for name in outputs if name in places]
    return Way(steps, tuple(dict.fromkeys(found)), size, len(x))


def _step(
    node: onnx.NodeProto,
    name: str,
    shape: tuple[int, ...],
    places: Mapping[str, int],
    edges: Mapping[str, Any],
    stored: Mapping[str, Any],
) -> Step:
    inner = sorted(reads(node) - set(node.input))
    read = [*(n for n in node.input if n), *inner]
    arguments = tuple(places.get(n) for n in read)
    operator = operator_of(node).rpartition(":")[2]
    if operator in ("RoiAlign", "MaxRoiPool", "GridSample"):
        arguments = arguments[:1]
    if operator == "QLinearMatMul":
        arguments = (arguments[0], arguments[3])
    kind = KINDS.get(operator, "other")
    if operator == "Attention" and node.domain in ("", "ai.onnx"):
        kind = "contract"
    if operator in DYNAMIC or (operator in PRODUCTS and _by_stored(operator, arguments)):
        kind = "linear"
    return Step(
        name,
        kind,
        arguments,
        shape,
        order=_order(node, len(shape)) if kind == "permute" else (),
        wide=kind == "conv" and _sees_more(node, stored),
        selected=any(n in edges and n not in places for n in read) or operator in MOVING,
    )


def _by_stored(operator: str, arguments: tuple[int | None, ...]) -> bool:
    """Whether a product is one with a stored matrix; one that comes first may be queries."""
    depends = [a is not None for a in arguments]
    return sum(depends) == 1 and (depends[0] or operator == "Einsum")


MOVING = {"RoiAlign", "MaxRoiPool", "GridSample", "NonMaxSuppression"}


def _order(node: onnx.NodeProto, rank: int) -> tuple[int, ...]:
    return tuple(attribute(node, "perm") or reversed(range(rank)))


def _sees_more(node: onnx.NodeProto, stored: Mapping[str, Any]) -> bool:
    """Whether the kernel of a convolution is larger than one unit."""
    kernel = attribute(node, "kernel_shape")
    if kernel is None:
        weights = [list(stored[n].dims)[2:] for n in node.input[1:] if n in stored]
        kernel = next((dims for dims in weights if dims), [2])
    return any(n > 1 for n in kernel)
