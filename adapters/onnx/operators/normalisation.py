"""Normalisations as ONNX defines them.

Batch and instance norm are written out: torch's own functions give wrong input gradients on the CPU
at batch 1 when the incoming gradient is strided (seen with torch 2.13 and 2.15). In a skeleton,
where only shapes count and no gradient is read off, they appear as torch's functions so that a
`TorchFunctionMode` recognises them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..graph import OperatorCall

if TYPE_CHECKING:
    from collections.abc import Callable


def _per_channel(values: Tensor, x: Tensor) -> Tensor:
    """(channels,) shaped to broadcast over (batch, channels, ...)."""
    return values.reshape(1, -1, *[1] * (x.ndim - 2))


def _epsilon(call: OperatorCall) -> float:
    return float(call.get("epsilon", 1e-5))


def batch_norm(
    call: OperatorCall, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor
) -> Tensor:
    """Batch normalisation with stored statistics."""
    if call.get("training_mode"):
        raise call.decline("batch normalisation in training mode")
    if call.mode.skeleton:
        return F.batch_norm(x, mean, variance, scale, bias, False, 0.0, _epsilon(call))
    k = scale * torch.rsqrt(variance + _epsilon(call))
    return x * _per_channel(k, x) + _per_channel(bias - mean * k, x)


def instance_norm(call: OperatorCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalisation of each image and channel by its own statistics.

    Exporters write group norms so, on (batch, groups, the rest), which a skeleton must tell apart.
    """
    if call.mode.skeleton and x.ndim == 3:
        return F.layer_norm(x, x.shape[-1:])
    if call.mode.skeleton:
        return F.instance_norm(x, None, None, scale, bias, True, 0.0, _epsilon(call))
    axes = tuple(range(2, x.ndim))
    centred = x - x.mean(axes, keepdim=True)
    variance = (centred * centred).mean(axes, keepdim=True)
    normal = centred * torch.rsqrt(variance + _epsilon(call))
    return normal * _per_channel(scale, x) + _per_channel(bias, x)


def layer_norm(
    call: OperatorCall, x: Tensor, scale: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, ...]:
    """Normalisation over all axes from `axis` on; gives mean and inverse deviation on demand."""
    shape = x.shape[call.get("axis", -1) % x.ndim :]
    if scale.shape == shape and (bias is None or bias.shape == shape):
        y = F.layer_norm(x, shape, scale, bias, _epsilon(call))
    else:
        y = F.layer_norm(x, shape, None, None, _epsilon(call)) * scale
        y = y if bias is None else y + bias
    if not any(call.node.outputs[1:]):
        return (y,)
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    variance, mean = torch.var_mean(x, axes, correction=0, keepdim=True)
    return y, mean, torch.rsqrt(variance + _epsilon(call))


def skip_layer_norm(
    call: OperatorCall,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
) -> tuple[Tensor, None, None, Tensor]:
    """onnxruntime's residual sum followed by a layer norm; also gives the sum."""
    total = x + skip if add is None else x + skip + add
    epsilon = float(call.get("epsilon", 1e-12))
    return F.layer_norm(total, total.shape[-1:], scale, bias, epsilon), None, None, total


def rms_norm(call: OperatorCall, x: Tensor, scale: Tensor) -> Tensor:
    """Division by the root mean square over all axes from `axis` on."""
    axes = tuple(range(call.get("axis", -1) % x.ndim, x.ndim))
    return x * torch.rsqrt(x.pow(2).mean(axes, keepdim=True) + _epsilon(call)) * scale


def group_norm(call: OperatorCall, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalisation over groups of channels; one scale a group before opset 21."""
    groups = call.get("num_groups")
    if call.opset < 21 and scale.numel() == groups:
        scale, bias = (t.repeat_interleave(x.shape[1] // groups) for t in (scale, bias))
    return F.group_norm(x, groups, scale, bias, _epsilon(call))


def mean_variance_norm(call: OperatorCall, x: Tensor) -> Tensor:
    """Zero mean and unit variance over `axes`."""
    axes = tuple(call.get("axes", (0, 2, 3)))
    if call.mode.skeleton and {a % x.ndim for a in axes} | {0} == {0, *range(2, x.ndim)}:
        return F.instance_norm(x)
    centred = x - x.mean(axes, keepdim=True)
    return centred / (torch.sqrt(centred.square().mean(axes, keepdim=True)) + 1e-9)


def local_response_norm(call: OperatorCall, x: Tensor) -> Tensor:
    """Division by the local energy of neighbouring channels."""
    size = call.get("size")
    if call.mode.skeleton:
        return F.local_response_norm(x, size)
    squares = F.pad((x * x).flatten(2).transpose(1, 2), [(size - 1) // 2, size // 2])
    local = squares.unfold(2, size, 1).sum(-1).transpose(1, 2).reshape(x.shape)
    base: Tensor = call.get("bias", 1.0) + call.get("alpha", 1e-4) / size * local
    return x / base.pow(call.get("beta", 0.75))


def norm_over_axes(call: OperatorCall, x: Tensor) -> Tensor:
    """A layer norm over `axes`, an RMS norm unless `centred`: a written-out norm in a skeleton."""
    axes = sorted(a % x.ndim for a in call.get("axes"))
    order = [a for a in range(x.ndim) if a not in axes] + axes
    moved = x.permute(order)
    shape = moved.shape[-len(axes) :]
    y = F.layer_norm(moved, shape) if call.get("centred") else F.rms_norm(moved, shape)
    return y.permute([order.index(a) for a in range(x.ndim)])


NORMS: dict[str, Callable[..., Any]] = {
    "BatchNormalization": batch_norm,
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "RMSNormalization": rms_norm,
    "GroupNormalization": group_norm,
    "MeanVarianceNormalization": mean_variance_norm,
    "LpNormalization": lambda call, x: F.normalize(  # zero where the norm is zero
        x, p=call.get("p", 2), dim=call.get("axis", -1), eps=1e-30
    ),
    "LRN": local_response_norm,
    "com.microsoft:SkipLayerNormalization": skip_layer_norm,
    "perimetry:Norm": norm_over_axes,
}
