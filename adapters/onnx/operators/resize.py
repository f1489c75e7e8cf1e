"""Resize and Upsample, one axis at a time: a gather for nearest, a small matrix otherwise."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import OperatorCall, integers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


Factor = tuple[int, float]
"""New size and scale of one axis."""

NEAR_HALF = 1e-6
"""onnxruntime takes coordinates as halves that differ from a half by less."""


def _round(coordinates: Tensor, *, up: bool) -> Tensor:
    """To the nearest whole number, halves `up` or down."""
    base = torch.floor(coordinates)
    beyond = coordinates - base - 0.5
    return base + (beyond > -NEAR_HALF if up else beyond >= NEAR_HALF)


ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_ceil": partial(_round, up=True),
    "round_prefer_floor": partial(_round, up=False),
}


def resize_operator(
    call: OperatorCall,
    x: Tensor,
    _roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Resample x to new sizes or by scales."""
    if call.opset < 11:
        return upsample(call, x, _roi)
    if call.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise call.decline("an aspect ratio policy")
    if call.get("exclude_outside") or call.get("antialias"):
        raise call.decline("Resize with anti-aliasing or excluded borders")
    axes = [a % x.ndim for a in call.get("axes", range(x.ndim))]
    wanted = integers(sizes) if sizes is not None and sizes.numel() else None
    factors = _factors(x, axes, wanted, scales)
    transform = call.get("coordinate_transformation_mode", "half_pixel")
    rounding = call.get("nearest_mode", "round_prefer_floor")
    return _each_axis(call, x, dict(zip(axes, factors, strict=True)), transform, rounding)


def upsample(call: OperatorCall, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """The older operator: scales only, origin-aligned; nearest rounds up where it shrinks."""
    factors = _factors(x, range(x.ndim), None, scales if scales is not None else call.get("scales"))
    return _each_axis(call, x, dict(enumerate(factors)), "asymmetric", "")


def _each_axis(
    call: OperatorCall, x: Tensor, factors: Mapping[int, Factor], transform: str, rounding: str
) -> Tensor:
    """Resample the axes one after the other; a map that keeps its size is copied."""
    if all(x.shape[axis] == size for axis, (size, _) in factors.items()):
        return x
    for axis, (size, scale) in factors.items():
        if scale != 1:
            x = _resample(call, x, axis, (size, scale), transform, rounding)
    return x


def _factors(
    x: Tensor, axes: Sequence[int], sizes: Sequence[int] | None, scales: Any
) -> list[Factor]:
    """New size and scale of each axis; scales and products are float32, as in onnxruntime."""
    lengths = torch.tensor([x.shape[a] for a in axes], dtype=torch.float32)
    if sizes is not None:
        ratios = torch.tensor(sizes, dtype=torch.float32) / lengths
        return list(zip(sizes, ratios.tolist(), strict=True))
    values = torch.as_tensor(scales, dtype=torch.float32, device="cpu")
    wanted = (values * lengths).long().tolist()
    return list(zip(wanted, values.tolist(), strict=True))


def _resample(
    call: OperatorCall, x: Tensor, axis: int, factor: Factor, transform: str, rounding: str
) -> Tensor:
    length, (size, scale) = x.shape[axis], factor
    where = _coordinates(call, length, size, scale, transform)
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        places = ROUNDING[rounding or ("ceil" if scale < 1 else "floor")](where)
        return x.index_select(axis, places.clamp(0, length - 1).long().to(x.device))
    matrix = _weights(call, where, length, cubic=mode == "cubic").to(x.device, x.dtype)
    return F.linear(x.movedim(axis, -1), matrix).movedim(-1, axis)


def _coordinates(
    call: OperatorCall, length: int, size: int, scale: float, transform: str
) -> Tensor:
    """Where each output element lies on the input axis.

    Each step is rounded to float32 as in onnxruntime: next to a whole number or a half, nearest
    would else choose another element.
    """
    i = torch.arange(size, dtype=torch.float32)
    factor = torch.tensor(scale, dtype=torch.float32)
    if transform == "asymmetric":
        return i / factor
    if transform == "align_corners":
        return i * (length - 1) / (size - 1) if size > 1 else torch.zeros_like(i)
    if transform == "pytorch_half_pixel" and size == 1:
        return torch.zeros_like(i)
    if transform in {"half_pixel", "pytorch_half_pixel"}:
        return (i + 0.5) / factor - 0.5
    if transform == "half_pixel_symmetric":
        # A number over a tensor would be the number times a rounded reciprocal.
        offset = length / 2 * (1 - torch.tensor(float(size)) / (factor * length))
        return (offset.double() + (i.double() + 0.5) / factor.double() - 0.5).float()
    raise call.decline(f"the coordinate transformation {transform!r}")


def _weights(call: OperatorCall, where: Tensor, length: int, *, cubic: bool) -> Tensor:
    """(size, length): how much of each input element goes into each output element."""
    where = where.double()
    base = torch.floor(where)
    t = where - base
    taps = {0: 1 - t, 1: t}
    if cubic:
        a = call.get("cubic_coeff_a", -0.75)
        taps = {-1: _far(1 + t, a), 0: _near(t, a), 1: _near(1 - t, a), 2: _far(2 - t, a)}
    matrix = torch.zeros(len(where), length, dtype=torch.float64)
    for shift, weight in taps.items():
        places = (base + shift).clamp(0, length - 1).long()
        matrix[torch.arange(len(where)), places] += weight
    return matrix


def _near(d: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel within one element."""
    return ((a + 2) * d - (a + 3)) * d * d + 1


def _far(d: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel between one and two elements."""
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


RESIZE: dict[str, Callable[..., Any]] = {"Resize": resize_operator, "Upsample": upsample}
