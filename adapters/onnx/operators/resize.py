"""Resize and Upsample, one axis at a time: a gather for nearest, a small matrix otherwise."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import OperatorCall, integers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


ROUNDING: dict[str, Callable[[Tensor], Tensor]] = {
    "floor": torch.floor,
    "ceil": torch.ceil,
    "round_prefer_ceil": lambda c: torch.floor(c + 0.5),
    "round_prefer_floor": lambda c: torch.ceil(c - 0.5),
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
    for axis, (size, scale) in zip(axes, factors, strict=True):
        x = _resample(call, x, axis, size, scale, transform)
    return x


def upsample(call: OperatorCall, x: Tensor, scales: Tensor | None = None) -> Tensor:
    """The older operator: scales only, origin-aligned, nearest rounds down."""
    factors = _factors(x, range(x.ndim), None, scales if scales is not None else call.get("scales"))
    for axis, (size, scale) in enumerate(factors):
        x = _resample(call, x, axis, size, scale, "asymmetric", "floor")
    return x


def _factors(
    x: Tensor, axes: Sequence[int], sizes: Sequence[int] | None, scales: Any
) -> list[tuple[int, float]]:
    """New size and scale of each axis."""
    if sizes is not None:
        return [(n, n / x.shape[a]) for a, n in zip(axes, sizes, strict=True)]
    values = scales.tolist() if isinstance(scales, Tensor) else list(scales)
    return [(math.floor(x.shape[a] * s), s) for a, s in zip(axes, values, strict=True)]


def _resample(
    call: OperatorCall,
    x: Tensor,
    axis: int,
    size: int,
    scale: float,
    transform: str,
    rounding: str = "round_prefer_floor",
) -> Tensor:
    length = x.shape[axis]
    if length == size and scale == 1:
        return x
    where = _coordinates(call, length, size, scale, transform)
    mode = call.get("mode", "nearest")
    if mode == "nearest":
        places = ROUNDING[call.get("nearest_mode", rounding)](where)
        return x.index_select(axis, places.clamp(0, length - 1).long().to(x.device))
    matrix = _weights(call, where, length, cubic=mode == "cubic").to(x.device, x.dtype)
    return F.linear(x.movedim(axis, -1), matrix).movedim(-1, axis)


def _coordinates(
    call: OperatorCall, length: int, size: int, scale: float, transform: str
) -> Tensor:
    """Where each output element lies on the input axis."""
    i = torch.arange(size, dtype=torch.float64)
    if transform == "asymmetric":
        return i / scale
    if transform == "align_corners":
        return i * (length - 1) / (length * scale - 1) if size > 1 else torch.zeros_like(i)
    if transform == "pytorch_half_pixel" and size == 1:
        return torch.zeros_like(i)
    if transform in {"half_pixel", "pytorch_half_pixel"}:
        return (i + 0.5) / scale - 0.5
    if transform == "half_pixel_symmetric":
        return length / 2 * (1 - size / (scale * length)) + (i + 0.5) / scale - 0.5
    raise call.decline(f"the coordinate transformation {transform!r}")


def _weights(call: OperatorCall, where: Tensor, length: int, *, cubic: bool) -> Tensor:
    """(size, length): how much of each input element goes into each output element."""
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
