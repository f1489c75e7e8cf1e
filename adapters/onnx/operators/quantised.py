"""Quantised operators, evaluated in floats with a straight-through gradient.

Quantised tensors stay float tensors that hold whole numbers, so that a gradient can pass. The true
gradient of rounding is zero almost everywhere; the straight-through gradient is that of the
identity within the representable range and zero outside (Bengio et al. 2013, arXiv 1308.3432).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import TYPES, OperatorCall
from .convolution import average_pool, convolution

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


RANGES = {
    torch.uint8: (0, 255),
    torch.int8: (-128, 127),
    torch.int16: (-(2**15), 2**15 - 1),
    torch.int32: (-(2**31), 2**31 - 1),
}


class StraightThrough(torch.autograd.Function):
    """Gives `y` forward and, where `inside`, the gradient of `x` backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor, inside: Tensor) -> Tensor:
        """Give y."""
        del x
        ctx.save_for_backward(inside)
        return y.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Pass the gradient where nothing was clipped."""
        (inside,) = ctx.saved_tensors
        return gradient * inside, None, None


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """A scale or zero point, shaped to broadcast over x."""
    if values.numel() == 1:
        return values.reshape(())
    return values.reshape([-1 if i == axis % x.ndim else 1 for i in range(x.ndim)])


def quantise(
    call: OperatorCall,
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None,
    axis: int = 1,
    kind: torch.dtype = torch.uint8,
) -> Tensor:
    """Whole numbers, as floats, with the straight-through gradient.

    They stay unrounded in a mode without `rounding`, whose gradient is a true one.
    """
    low, high = RANGES[zero.dtype if zero is not None else kind]
    t = x / along(scale, x, axis)
    level = torch.round(t) if call.mode.rounding else t
    if zero is not None:
        level = level + along(zero.to(x.dtype), x, axis)
    inside = ((level >= low) & (level <= high)).to(x.dtype)
    return StraightThrough.apply(t, level.clamp(low, high), inside)  # type: ignore[no-any-return]


def dequantise(
    call: OperatorCall, x: Tensor, scale: Tensor, zero: Tensor | None, axis: int = 1
) -> Tensor:
    """Real values of whole numbers."""
    return centred(call, x, zero, axis) * along(scale, x, axis)


def centred(call: OperatorCall, x: Tensor, zero: Tensor | None, axis: int = 0) -> Tensor:
    """Whole numbers less their zero point, as floats."""
    x = x.to(call.mode.device, call.mode.dtype)
    return x if zero is None else x - along(zero.to(x.device, x.dtype), x, axis)


def quantize_linear(
    call: OperatorCall, x: Tensor, scale: Tensor, zero: Tensor | None = None
) -> Tensor:
    """QuantizeLinear, per tensor or per axis."""
    if call.get("block_size"):
        raise call.decline("block quantisation")
    kind = zero.dtype if zero is not None else TYPES.get(call.get("output_dtype", 0), torch.uint8)
    if kind not in RANGES:
        raise call.decline(f"quantisation to {kind}")
    x = x.to(call.mode.device, call.mode.dtype)
    return quantise(call, x, scale, zero, call.get("axis", 1), kind)


def dequantize_linear(
    call: OperatorCall, x: Tensor, scale: Tensor, zero: Tensor | None = None
) -> Tensor:
    """DequantizeLinear, per tensor or per axis."""
    if call.get("block_size"):
        raise call.decline("block quantisation")
    return dequantise(call, x, scale, zero, call.get("axis", 1))


def dynamic_quantize(call: OperatorCall, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quantise to uint8 by the range of x itself; gives levels, scale and zero point."""
    low, high = x.detach().amin().clamp(max=0), x.detach().amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    if not call.mode.rounding:
        return x.to(call.mode.dtype) / scale - low / scale, scale, -low / scale
    zero = torch.round(-low / scale).clamp(0, 255).to(torch.uint8)
    return quantise(call, x.to(call.mode.dtype), scale, zero), scale, zero


def of_integers(
    function: Callable[..., Tensor], axes: tuple[int, int] = (0, 0)
) -> Callable[..., Tensor]:
    """A function of two tensors of whole numbers, whose zero points may be along `axes`."""

    def operator(
        call: OperatorCall,
        a: Tensor,
        b: Tensor,
        a_zero: Tensor | None = None,
        b_zero: Tensor | None = None,
    ) -> Tensor:
        first, second = centred(call, a, a_zero, axes[0]), centred(call, b, b_zero, axes[1])
        return function(call, first, second)

    return operator


def qlinear(function: Callable[..., Tensor], axes: Sequence[int] = (1,)) -> Callable[..., Tensor]:
    """A function of quantised tensors, one for each of `axes`, along which its scales may be.

    Each is followed by its scale and zero point, and the last by those of the result.
    """

    def operator(call: OperatorCall, *inputs: Tensor) -> Tensor:
        if len(inputs) != 3 * len(axes) + 2 or inputs[-1] is None:
            raise call.decline("a result without a zero point")
        triples = zip(inputs[::3], inputs[1::3], inputs[2::3], axes, strict=False)
        real = [dequantise(call, x, scale, zero, axis) for x, scale, zero, axis in triples]
        return quantise(call, function(call, *real), inputs[-2], inputs[-1])

    return operator


def qlinear_conv(
    call: OperatorCall,
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
) -> Tensor:
    """Convolution between quantised tensors."""
    real = dequantise(call, w, w_scale, w_zero, 0)
    shift = None if bias is None else bias.to(real.device, real.dtype) * (x_scale * w_scale)
    y = convolution(call, dequantise(call, x, x_scale, x_zero), real, shift)
    return quantise(call, y, y_scale, y_zero)


def qgemm(
    call: OperatorCall,
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
) -> Tensor:
    """onnxruntime's quantised Gemm; without an output scale it gives floats."""
    left = dequantise(call, a, a_scale, a_zero)
    right = dequantise(call, b, b_scale, b_zero, 0 if call.get("transB") else 1)
    left = left.t() if call.get("transA") else left
    right = right.t() if call.get("transB") else right
    y = torch.matmul(left, right) * call.get("alpha", 1.0)
    if c is not None:
        y = y + c.to(y.dtype) * a_scale * b_scale
    return y if y_scale is None else quantise(call, y, y_scale, y_zero)


def qlinear_concat(call: OperatorCall, y_scale: Tensor, y_zero: Tensor, *rest: Tensor) -> Tensor:
    """Join quantised tensors, given as (levels, scale, zero point) triples."""
    triples = zip(rest[::3], rest[1::3], rest[2::3], strict=True)
    parts = [dequantise(call, x, scale, zero) for x, scale, zero in triples]
    return quantise(call, torch.cat(parts, call.get("axis")), y_scale, y_zero)


QUANTISED: dict[str, Callable[..., Any]] = {
    "QuantizeLinear": quantize_linear,
    "DequantizeLinear": dequantize_linear,
    "DynamicQuantizeLinear": dynamic_quantize,
    "ConvInteger": of_integers(convolution),
    "MatMulInteger": of_integers(lambda _call, a, b: torch.matmul(a, b), (-2, -1)),
    "QLinearConv": qlinear_conv,
    "QLinearMatMul": qlinear(lambda _call, a, b: torch.matmul(a, b), (-2, -1)),
    "com.microsoft:QGemm": qgemm,
    "com.microsoft:QLinearAdd": qlinear(lambda _call, a, b: a + b, (1, 1)),
    "com.microsoft:QLinearMul": qlinear(lambda _call, a, b: a * b, (1, 1)),
    "com.microsoft:QLinearSigmoid": qlinear(lambda _call, x: torch.sigmoid(x)),
    "com.microsoft:QLinearLeakyRelu": qlinear(
        lambda call, x: F.leaky_relu(x, call.get("alpha", 0.01))
    ),
    "com.microsoft:QLinearGlobalAveragePool": qlinear(
        lambda _call, x: x.mean((2, 3), keepdim=True)
    ),
    "com.microsoft:QLinearAveragePool": qlinear(average_pool),
    "com.microsoft:QLinearSoftmax": qlinear(lambda call, x: F.softmax(x, dim=call.get("axis", -1))),
    "com.microsoft:QLinearConcat": qlinear_concat,
}


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


STRAIGHT_THROUGH = frozenset(
    op for op in QUANTISED if op not in {"DequantizeLinear", "ConvInteger", "MatMulInteger"}
)
"""Operators that round: a graph with one of them has a straight-through gradient."""
