"""The position of the channel axis in a graph's tensors, as far as its operators determine it.

Convolutions and pools have channels first, elementwise operators keep the order of axes, and
transpositions change it; after other operators it is unknown.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..files.protos import attribute

if TYPE_CHECKING:
    import onnx


FIRST = "NCHW"

LAST = "NHWC"

CHANNELS_FIRST = {
    *("Conv", "FusedConv", "QLinearConv", "ConvInteger", "ConvTranspose"),
    *("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool"),
    *("BatchNormalization", "InstanceNormalization", "GroupNormalization", "LRN"),
    *("DepthToSpace", "SpaceToDepth"),
}
"""Operators whose input and output have channels first."""

KEEPING = {
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus", "Softsign"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Erf", "Sqrt", "Exp", "Abs", "Neg"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Concat", "Cast", "Identity"),
    *("Dropout", "QuantizeLinear", "DequantizeLinear", "Pad", "Resize", "Upsample", "Slice"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu"),
    "LayerNormalization",
}
"""Operators whose output has the axes of the first input with known axes."""

MOVES = {(FIRST, (0, 2, 3, 1)): LAST, (LAST, (0, 3, 1, 2)): FIRST}


def layouts(proto: onnx.ModelProto) -> dict[str, str]:
    """Return `NCHW` or `NHWC` by tensor name, for the tensors where it is known."""
    known: dict[str, str] = {}
    for node in proto.graph.node:
        layout = None
        if node.op_type in CHANNELS_FIRST:
            layout = FIRST
        elif node.op_type in KEEPING:
            layout = next((known[name] for name in node.input if name in known), None)
        elif node.op_type == "Transpose":
            order = tuple(attribute(node, "perm", ()))
            layout = MOVES.get((known.get(node.input[0], ""), order))
        if layout is not None:
            known.update(dict.fromkeys(node.output, layout))
    return known
