"""Which axes of a graph's tensors are channels, as far as its operators say.

Convolutions and pools have channels first, whatever stands before them; elementwise operators keep
the order, transpositions change it, and everything else leaves it open.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

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
"""Operators that take and give channels first."""


KEEPING = {
    *("Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Celu", "Gelu", "Mish", "Softplus", "Softsign"),
    *("Sigmoid", "HardSigmoid", "HardSwish", "Tanh", "Clip", "Erf", "Sqrt", "Exp", "Abs", "Neg"),
    *("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Concat", "Cast", "Identity"),
    *("Dropout", "QuantizeLinear", "DequantizeLinear", "Pad", "Resize", "Upsample", "Slice"),
    *("QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSigmoid", "QLinearLeakyRelu"),
    "LayerNormalization",
}
"""Operators whose output has its axes where the first input that is known has them."""


MOVES = {(FIRST, (0, 2, 3, 1)): LAST, (LAST, (0, 3, 1, 2)): FIRST}


def layouts(proto: onnx.ModelProto) -> dict[str, str]:
    """`NCHW` or `NHWC` by tensor name, of those tensors whose operators tell."""
    known: dict[str, str] = {}
    for node in proto.graph.node:
        layout = None
        if node.op_type in CHANNELS_FIRST:
            layout = FIRST
        elif node.op_type in KEEPING:
            layout = next((known[name] for name in node.input if name in known), None)
        elif node.op_type == "Transpose":
            order = next((tuple(a.ints) for a in node.attribute if a.name == "perm"), ())
            layout = MOVES.get((known.get(node.input[0], ""), order))
        if layout is not None:
            known.update(dict.fromkeys(node.output, layout))
    return known
