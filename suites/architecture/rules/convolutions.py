"""Energy rules of torch's convolutions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.torch_calls import Convolution, TransposedConvolution, pair
from ..compact import compress, widen
from ..rule_table import history_of, is_weight, rule, with_history
from .sliding import (
    Windows,
    channel_by_channel,
    conv_windows,
    convolve,
    in_variant,
    pad_taps,
)

if TYPE_CHECKING:
    from ..trace import EnergyTrace


@rule("conv2d", reads=Convolution)
def _conv2d(trace: EnergyTrace, call: Convolution) -> Tensor:
    x, weight, groups, entries = call.input, call.weight, call.groups, len(trace.padded)
    if x.shape[0] == 1 < entries and groups % entries == 0:
        # the batch was reshaped into the channels
        x = x.view(entries, -1, *x.shape[2:])
        weight = weight[: weight.shape[0] // entries]
        out = _conv2d(trace, replace(call, input=x, weight=weight, groups=groups // entries))
        return out.reshape(1, -1, *out.shape[2:])
    rows, columns = conv_windows(call)
    means = group_mean(x, groups)
    out = _slide(trace, means, (rows, columns), _kernel(trace, weight, means.shape[1]))
    out = _spread(out, weight.shape[0])
    return trace.record_layer("conv2d", x, out, (rows, columns), groups)


def group_mean(x: Tensor, groups: int) -> Tensor:
    """Mean over the channels of each group: (batch, 1 or groups, height, width)."""
    x = compress(x, [1])
    if x.shape[1] == 1 or groups == 1:
        return x.mean(1, keepdim=True) if x.shape[1] > 1 else x
    grouped: Tensor = torch.unflatten(x, 1, (groups, -1))
    return grouped.mean(2)


def _kernel(trace: EnergyTrace, weight: Tensor, groups: int) -> Tensor:
    """Energy of the taps: (1 or groups, kernel height, kernel width).

    The sum is 1 for random weights that were not padded.
    """
    height, width = weight.shape[2:]
    if trace.paths:
        ones = torch.ones(1, height, width, dtype=torch.float64)
        return ones if is_weight(weight) else (_fixed(weight, groups) != 0).to(ones)
    taps: Tensor | None = getattr(weight, "tap_energy", None)
    if taps is not None:
        count = float(taps.sum()) if is_weight(weight) else 1.0
        return (taps.to(torch.float64) / count)[None]
    if not is_weight(weight):
        return _fixed(weight, groups)
    return torch.full((1, height, width), 1 / (height * width), dtype=torch.float64)


def _fixed(weight: Tensor, groups: int) -> Tensor:
    """Squared taps of a fixed filter; the mean over filters of the same group."""
    taps = weight.to(torch.float64) ** 2
    if groups == 1:
        return taps.sum(1).mean(0, keepdim=True)
    taps = taps.sum(1)
    return taps.reshape(groups, -1, *taps.shape[1:]).mean(1)


def _taps(trace: EnergyTrace, weight: Tensor, total: float = 1) -> Tensor:
    """Energies (1, 1, *kernel) of the taps of a weight (out, in per group, *kernel).

    Random ones are equal, unless kernel padding gave them a `tap_energy`, and have the sum `total`.
    When paths are counted, all are 1.
    """
    if not is_weight(weight):
        fixed: Tensor = (weight.to(torch.float64) ** 2).sum(1, keepdim=True).mean(0, keepdim=True)
        return (fixed != 0).to(fixed) if trace.paths else fixed
    taps = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
    if trace.paths:
        return taps
    energy: Tensor | None = getattr(weight, "tap_energy", None)
    taps = taps if energy is None else energy.to(taps)[None, None]
    return taps * total / taps.sum()


def _spread(x: Tensor, channels: int) -> Tensor:
    """Expand the energies of groups to `channels` outputs."""
    groups = x.shape[1]
    if groups == 1:
        return widen(x, (x.shape[0], channels, *x.shape[2:]))
    each = channels // groups
    return x.repeat_interleave(each, 1) if each > 1 else x


def _slide(trace: EnergyTrace, x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
    """Convolve x (batch, groups, height, width); with a padded kernel in this layer's variant."""
    out = convolve(x, windows, kernel)
    size = (out.shape[-2], out.shape[-1])

    def padded(part: Tensor) -> Tensor:
        grown, taps = pad_taps(windows, kernel, size=size, have=(x.shape[-2], x.shape[-1]))
        return convolve(part, grown, taps)

    return in_variant(trace, x, out, padded)


@rule("conv1d", "conv3d", reads=Convolution)
def _conv_any(trace: EnergyTrace, call: Convolution) -> Tensor:
    """Convolutions over one or three axes; they are not entered in the layer table."""
    kernel = _taps(trace, call.weight)
    function = F.conv1d if call.weight.ndim == 3 else F.conv3d

    def slide(x: Tensor) -> Tensor:
        return function(x, kernel, None, call.stride, call.padding, call.dilation)

    x = group_mean(call.input, call.groups).to(torch.float64)
    return _spread(channel_by_channel(slide, x), call.weight.shape[0])


def _outputs_first(weight: Tensor, groups: int) -> Tensor:
    """The weight (in, out per group, ...) of a transposed convolution as (out, in per group)."""
    turned: Tensor = torch.unflatten(weight, 0, (groups, -1)).transpose(1, 2)
    return turned.flatten(0, 1)


@rule("conv_transpose2d", reads=TransposedConvolution)
def _conv_transpose2d(trace: EnergyTrace, call: TransposedConvolution) -> Tensor:
    """Each output is reached by kernel / stride^2 taps on average, which is its fan-in."""
    weight, steps, gaps = call.weight, pair(call.stride), pair(call.dilation)
    turned = weight if is_weight(weight) else _outputs_first(weight, call.groups)
    kernel = _taps(trace, turned, math.prod(steps))
    sides = (weight.shape[2], weight.shape[3])
    trace.record_upsampling(sides, steps, gaps)
    wide = trace.upsamplings[-1].padded if trace.padded_outputs and is_weight(weight) else sides
    if wide != sides:
        kernel = kernel[:, :, :1, :1].expand(1, 1, *wide) * (
            1.0 if trace.paths else math.prod(sides) / math.prod(wide)
        )

    def slide(x: Tensor) -> Tensor:
        out = F.conv_transpose2d(
            x, kernel, None, call.stride, call.padding, call.output_padding, 1, call.dilation
        )
        rows, columns = (
            n - d * (w - k) for n, d, w, k in zip(out.shape[2:], gaps, wide, sides, strict=True)
        )
        return out[..., :rows, :columns]

    out = channel_by_channel(slide, group_mean(call.input, call.groups))
    out = _spread(out, weight.shape[1] * call.groups)
    found = history_of(call.input)
    return with_history(out, found.resized((out.shape[-2], out.shape[-1])) if found else None)
