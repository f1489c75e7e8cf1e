"""Every ONNX operator the interpreter knows, in one dict, and the elementwise ones.

An operator is a function of a `Call` (attributes, opset, mode) and its input tensors, None where an
optional one is absent. Definitions: https://onnx.ai/onnx/operators. Standard torch functions are
used where they exist, so that a `TorchFunctionMode` can recognise them.
"""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import TYPES, OperatorCall
from .convolution import NN
from .linear import LINEAR
from .normalisation import NORMS
from .quantised import QUANTISED
from .recurrent import CONTROL, RECURRENT
from .reduction import REDUCE
from .resize import RESIZE
from .shape import SHAPE

if TYPE_CHECKING:
    from collections.abc import Callable


def to_one_device(*tensors: Tensor) -> list[Tensor]:
    """Bring operands to one device: shapes are computed on the CPU, images need not be."""
    lead = next((t for t in tensors if t.device.type != "cpu"), tensors[0])
    return [t.to(lead.device) for t in tensors]


def unary(function: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operator that is one torch function of one tensor."""
    return lambda _call, x: function(x)


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operator that is one torch function of two broadcast tensors."""

    def operator(_call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
        return function(*to_one_device(a, b))

    return operator


def variadic(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """An operator that folds one torch function over any number of tensors."""
    return lambda _call, *xs: reduce(function, to_one_device(*xs))


def divide(_call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
    """Quotient; integers are cut towards zero."""
    a, b = to_one_device(a, b)
    return torch.div(a, b, rounding_mode=None if a.is_floating_point() else "trunc")


def modulo(call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
    """Remainder with the divisor's sign, or the dividend's under `fmod`."""
    return (torch.fmod if call.get("fmod") else torch.remainder)(*to_one_device(a, b))


def power(_call: OperatorCall, a: Tensor, b: Tensor) -> Tensor:
    """A to the power b, in the type of a; a single exponent becomes a number."""
    if b.numel() == 1 and not b.requires_grad:
        return (
            torch.pow(a, b.item())
            .to(a.dtype)
            .broadcast_to(torch.broadcast_shapes(a.shape, b.shape))
        )
    return torch.pow(*to_one_device(a, b)).to(a.dtype)


def where(_call: OperatorCall, condition: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Choose elementwise."""
    condition, a, b = to_one_device(condition, a, b)
    return torch.where(condition, a, b)


def clip(
    call: OperatorCall, x: Tensor, low: Tensor | None = None, high: Tensor | None = None
) -> Tensor:
    """Limit to [low, high]; between 0 and 6 as ReLU6, which torch's own models use."""
    lo = call.get("min") if low is None else low.item()
    hi = call.get("max") if high is None else high.item()
    if (lo, hi) == (0, 6) and x.is_floating_point():
        return F.relu6(x)
    if lo is None and hi is None:
        return x
    # With crossed limits the upper one wins, in ONNX as in torch.
    return torch.clamp(x, lo, hi)


def selu(call: OperatorCall, x: Tensor) -> Tensor:
    """Scaled exponential linear unit."""
    alpha = call.get("alpha", 1.67326319217681884765625)
    return F.elu(x, alpha).mul(call.get("gamma", 1.05070102214813232421875))


def hard_sigmoid(call: OperatorCall, x: Tensor) -> Tensor:
    """Piecewise linear sigmoid; torch's own slope of 1/6 as torch's own function."""
    alpha, beta = call.get("alpha", 0.2), call.get("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0, 1)


def shrink_operator(call: OperatorCall, x: Tensor) -> Tensor:
    """Zero within `lambd` of the origin, shifted by `bias` outside."""
    limit, bias = call.get("lambd", 0.5), call.get("bias", 0.0)
    if call.mode.skeleton:
        return F.hardshrink(x, limit)
    return torch.where(x < -limit, x + bias, torch.where(x > limit, x - bias, torch.zeros_like(x)))


def prelu(call: OperatorCall, x: Tensor, slope: Tensor) -> Tensor:
    """A slope of its own below zero, which may be another one in each channel or place."""
    if call.mode.skeleton:
        return F.prelu(x, slope)
    return torch.where(x < 0, x * slope, x)


def swish(default: float) -> Callable[..., Tensor]:
    """An operator that is x sigmoid(alpha x), of a default `alpha`; SiLU where that is 1."""

    def operator(call: OperatorCall, x: Tensor) -> Tensor:
        alpha = call.get("alpha", default)
        return F.silu(x) if alpha == 1.0 else x * torch.sigmoid(alpha * x)

    return operator


def cast(call: OperatorCall, x: Tensor, like: Tensor | None = None) -> Tensor:
    """Change the type; among floats nothing happens, all share the mode's type."""
    kind = TYPES.get(call.get("to")) if like is None else like.dtype
    if kind is None:
        raise call.decline(f"a cast to ONNX type {call.get('to')}")
    if kind.is_floating_point:
        return x.to(call.mode.device, call.mode.dtype)
    return x.to(kind)


def dropout(
    call: OperatorCall, x: Tensor, _ratio: Tensor | None = None, training: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Identity, as in inference, and the mask."""
    if training is not None and bool(training):
        raise call.decline("dropout in training mode")
    return x, torch.ones_like(x, dtype=torch.bool)


def is_infinite(call: OperatorCall, x: Tensor) -> Tensor:
    """Where x is infinite, of the signs asked for."""
    up = torch.isposinf(x) & bool(call.get("detect_positive", 1))
    return up | torch.isneginf(x) & bool(call.get("detect_negative", 1))


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "Identity": unary(lambda x: x),
    "Relu": unary(F.relu),
    "Sigmoid": unary(torch.sigmoid),
    "Tanh": unary(torch.tanh),
    "Erf": unary(torch.erf),
    "Sqrt": unary(torch.sqrt),
    "Exp": unary(torch.exp),
    "Log": unary(torch.log),
    "Abs": unary(torch.abs),
    "Neg": unary(torch.neg),
    "Sin": unary(torch.sin),
    "Cos": unary(torch.cos),
    "Floor": unary(torch.floor),
    "Ceil": unary(torch.ceil),
    "Round": unary(torch.round),
    "Sign": unary(torch.sign),
    "Reciprocal": unary(torch.reciprocal),
    "Softplus": unary(F.softplus),
    "Softsign": unary(F.softsign),
    "HardSwish": unary(F.hardswish),
    "Mish": unary(F.mish),
    "Not": unary(torch.logical_not),
    "IsNaN": unary(torch.isnan),
    "IsInf": is_infinite,
    "Add": binary(torch.add),
    "Sub": binary(torch.sub),
    "Mul": binary(torch.mul),
    "Div": divide,
    "Mod": modulo,
    "Pow": power,
    "Equal": binary(torch.eq),
    "Greater": binary(torch.gt),
    "Less": binary(torch.lt),
    "GreaterOrEqual": binary(torch.ge),
    "LessOrEqual": binary(torch.le),
    "And": binary(torch.logical_and),
    "Or": binary(torch.logical_or),
    "Xor": binary(torch.logical_xor),
    "Sum": variadic(torch.add),
    "Min": variadic(torch.minimum),
    "Max": variadic(torch.maximum),
    "Mean": lambda _call, *xs: reduce(torch.add, to_one_device(*xs)) / len(xs),
    "Where": where,
    "Clip": clip,
    "PRelu": prelu,
    "LeakyRelu": lambda call, x: F.leaky_relu(x, call.get("alpha", 0.01)),
    "Elu": lambda call, x: F.elu(x, call.get("alpha", 1.0)),
    "Celu": lambda call, x: F.celu(x, call.get("alpha", 1.0)),
    "Selu": selu,
    "ThresholdedRelu": lambda call, x: F.threshold(x, call.get("alpha", 1.0), 0.0),
    "HardSigmoid": hard_sigmoid,
    "Shrink": shrink_operator,
    "Gelu": lambda call, x: F.gelu(x, approximate=call.get("approximate", "none")),
    "Swish": swish(1.0),
    "Cast": cast,
    "CastLike": cast,
    "Dropout": dropout,
    "com.microsoft:Gelu": unary(F.gelu),
    "com.microsoft:QuickGelu": swish(1.702),
    "com.microsoft:BiasGelu": lambda _call, x, bias: F.gelu(x + bias),
}

OPERATORS: dict[str, Callable[..., Any]] = {
    **ELEMENTWISE,
    **LINEAR,
    **NN,
    **NORMS,
    **REDUCE,
    **SHAPE,
    **RESIZE,
    **QUANTISED,
    **CONTROL,
    **RECURRENT,
}
"""Operator name, with its domain where it is not the standard one, to its function."""
