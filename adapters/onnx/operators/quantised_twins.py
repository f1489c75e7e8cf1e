"""Quantised operators, the float operator each stands for, and where their scales and zeros are."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class _Twin:
    """A float operator, where its operands stand among the quantised one's, and the output's zero.

    A constant operand at i has its scale at i + 1 and its zero point at i + 2.
    """

    op: str
    operands: tuple[int, ...]
    zero: int | None = None


_UNARY = ((0,), 4)


_BINARY = ((0, 3), 7)


TWINS = {
    "QLinearConv": _Twin("Conv", (0, 3, 8), 7),
    "QLinearMatMul": _Twin("MatMul", *_BINARY),
    "ConvInteger": _Twin("Conv", (0, 1)),
    "MatMulInteger": _Twin("MatMul", (0, 1)),
    "com.microsoft:QGemm": _Twin("Gemm", (0, 3, 6), 8),
    "com.microsoft:QLinearAdd": _Twin("Add", *_BINARY),
    "com.microsoft:QLinearMul": _Twin("Mul", *_BINARY),
    "com.microsoft:QLinearSigmoid": _Twin("Sigmoid", *_UNARY),
    "com.microsoft:QLinearLeakyRelu": _Twin("LeakyRelu", *_UNARY),
    "com.microsoft:QLinearGlobalAveragePool": _Twin("GlobalAveragePool", *_UNARY),
    "com.microsoft:QLinearAveragePool": _Twin("AveragePool", *_UNARY),
    "com.microsoft:QLinearSoftmax": _Twin("Softmax", *_UNARY),
}
"""Float counterparts of quantised operators; `QLinearConcat` takes any number of operands."""


CONCAT = "com.microsoft:QLinearConcat"


def zero_place(op: str) -> int | None:
    """Where the zero point of a quantised operator's output stands, its scale just before.

    None for operators whose output is not quantised.
    """
    if op == CONCAT:
        return 1
    return TWINS[op].zero if op in TWINS else None
