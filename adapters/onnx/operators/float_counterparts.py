"""The float counterparts of quantised operators, and the places of scales and zero points."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FloatCounterpart:
    """A float operator: places of its operands among the quantised one's, and of the zero point.

    A constant operand at i has its scale at i + 1 and its zero point at i + 2.
    """

    op: str
    operands: tuple[int, ...]
    zero: int | None = None


_UNARY = ((0,), 4)

_BINARY = ((0, 3), 7)

FLOAT_COUNTERPARTS = {
    "QLinearConv": FloatCounterpart("Conv", (0, 3, 8), 7),
    "QLinearMatMul": FloatCounterpart("MatMul", *_BINARY),
    "ConvInteger": FloatCounterpart("Conv", (0, 1)),
    "MatMulInteger": FloatCounterpart("MatMul", (0, 1)),
    "com.microsoft:QGemm": FloatCounterpart("Gemm", (0, 3, 6), 8),
    "com.microsoft:QLinearAdd": FloatCounterpart("Add", *_BINARY),
    "com.microsoft:QLinearMul": FloatCounterpart("Mul", *_BINARY),
    "com.microsoft:QLinearSigmoid": FloatCounterpart("Sigmoid", *_UNARY),
    "com.microsoft:QLinearLeakyRelu": FloatCounterpart("LeakyRelu", *_UNARY),
    "com.microsoft:QLinearGlobalAveragePool": FloatCounterpart("GlobalAveragePool", *_UNARY),
    "com.microsoft:QLinearAveragePool": FloatCounterpart("AveragePool", *_UNARY),
    "com.microsoft:QLinearSoftmax": FloatCounterpart("Softmax", *_UNARY),
}
"""Float counterparts of quantised operators; `QLinearConcat` takes any number of operands."""

CONCAT = "com.microsoft:QLinearConcat"


def zero_place(op: str) -> int | None:
    """Return the place of the output's zero point among the inputs; the scale is just before it.

    None for operators whose output is not quantised.
    """
    if op == CONCAT:
        return 1
    return FLOAT_COUNTERPARTS[op].zero if op in FLOAT_COUNTERPARTS else None
