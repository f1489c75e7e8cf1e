"""Energy rules of torch's convolutions."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ....adapters.torch_calls import Convolution, TransposedConvolution, each_axis, pair
from ..compact import compress, expand, widen
from ..offsets import second_moment
from ..rule_table import history_of, is_energy, is_weight, rule, spans_of, with_history
from ..uneven_weights import moments_of_entries
from ..windows import conv_windows
from .sliding import (
    Windows,
    channel_by_channel,
    convolve,
    in_variant,
    pad_taps,
)

if TYPE_CHECKING:
    from ..trace import EnergyTrace

_FROM_IMAGE = "its filters depend on the image"


@rule("conv2d", reads=Convolution)
def _conv2d(trace: EnergyTrace, call: Convolution) -> Tensor:
    x, weight, groups, entries = call.input, call.weight, call.groups, len(trace.padded)
    if is_energy(weight) and entries > 1:
        raise NotApplicableError("its filters depend on the image, of which there are several")
    if x.shape[0] == 1 < entries and groups % entries == 0:
        # the batch was reshaped into the channels
        x = x.view(entries, -1, *x.shape[2:])
        weight = weight[: weight.shape[0] // entries]
        out = _conv2d(trace, replace(call, input=x, weight=weight, groups=groups // entries))
        return out.reshape(1, -1, *out.shape[2:])
    rows, columns = conv_windows(call)
    one_kernel = _alike(weight) if is_weight(weight) else weight.shape[:2] == (groups, 1)
    one_kernel = one_kernel and not is_energy(weight)
    if not one_kernel and not hasattr(weight, "tap_energy"):
        out = _bank(trace, call, (rows, columns))
        return trace.record_layer("conv2d", x, out, (rows, columns), groups)
    means = group_mean(x, groups)
    out = _slide(trace, means, (rows, columns), _kernel(trace, weight, means.shape[1]))
    out = _spread(out, weight.shape[0])
    return trace.record_layer("conv2d", x, out, (rows, columns), groups)


def _alike(weight: Tensor) -> bool:
    """Whether random weights have the same second moments for all pairs of channels."""
    moments = moments_of_entries(weight)
    return moments is None or bool((moments == moments[:1, :1]).all())


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
        uneven = moments_of_entries(weight)
        if uneven is not None:
            return (uneven[0, :1] != 0).to(ones)
        return ones if is_weight(weight) else (_fixed(weight, groups) != 0).to(ones)
    taps: Tensor | None = getattr(weight, "tap_energy", None)
    if taps is not None:
        count = float(taps.sum()) if is_weight(weight) else 1.0
        return (taps.to(torch.float64) / count)[None]
    if not is_weight(weight):
        return _fixed(weight, groups)
    moments = moments_of_entries(weight)
    if moments is not None:
        return moments[0, :1] * weight.shape[1]
    return torch.full((1, height, width), 1 / (height * width), dtype=torch.float64)


def _fixed(weight: Tensor, groups: int) -> Tensor:
    """Squared taps of a fixed filter; the mean over filters of the same group."""
    taps = weight.to(torch.float64) ** 2
    if groups == 1:
        return taps.sum(1).mean(0, keepdim=True)
    taps = taps.sum(1)
    return taps.reshape(groups, -1, *taps.shape[1:]).mean(1)


def _taps(trace: EnergyTrace, weight: Tensor, total: float = 1) -> Tensor:
    """Energies (1, 1, *kernel) of the taps of random weights (out, in per group, *kernel).

    They are equal, unless kernel padding gave them a `tap_energy`, and have the sum `total`.
    When paths are counted, all are 1.
    """
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
    function = F.conv1d if call.weight.ndim == 3 else F.conv3d
    if not is_weight(call.weight) or moments_of_entries(call.weight) is not None:
        x, filters = _filters(trace, call.input, _squares(call.weight), call.groups)
        options = (None, call.stride, call.padding, call.dilation, call.groups)
        return function(x, filters, *options)
    kernel = _taps(trace, call.weight)

    def slide(x: Tensor) -> Tensor:
        return function(x, kernel, None, call.stride, call.padding, call.dilation)

    x = group_mean(call.input, call.groups).to(torch.float64)
    return _spread(channel_by_channel(slide, x), call.weight.shape[0])


def _squares(weight: Tensor) -> Tensor:
    """Squares of fixed filters, or second moments of random weights that are not alike.

    Of filters that depend on the image, their energies.
    """
    if is_energy(weight):
        return second_moment(weight, expand(weight))
    moments = moments_of_entries(weight)
    return weight.to(torch.float64) ** 2 if moments is None else moments


def _filters(trace: EnergyTrace, x: Tensor, squares: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """Channels of `x`, and what multiplies them in place of filters (out, in per group, ...).

    These are the `squares` of the filters; where paths are counted, which tap of a
    filter reads something, and each group counts as one channel.
    """
    if not trace.paths:
        return x.to(torch.float64), squares
    means = group_mean(x, groups).to(torch.float64)
    reads = (squares != 0).any(1, keepdim=True).to(torch.float64)
    return means.expand(len(x), groups, *x.shape[2:]), reads


def _plus_paths(trace: EnergyTrace, call: Convolution, out: Tensor) -> Tensor:
    """Where paths are counted: with those that lead through filters that depend on the image."""
    if not (trace.paths and is_energy(call.weight)):
        return out
    paths: Tensor = call.weight.flatten(1).sum(1)
    return out + paths.view(1, -1, *[1] * (out.ndim - 2))


def _bank(trace: EnergyTrace, call: Convolution, windows: Windows) -> Tensor:
    """A convolution with fixed filters, unlike ones or of several channels."""
    x, filters = _filters(trace, call.input, _squares(call.weight), call.groups)

    def slide(part: Tensor, used: Windows, taps: Tensor) -> Tensor:
        rows, columns = used
        part = F.pad(part, (columns.before, columns.after, rows.before, rows.after))
        strides, gaps = (rows.stride, columns.stride), (rows.dilation, columns.dilation)
        whole = taps.unflatten(0, filters.shape[:2])
        return F.conv2d(part, whole, None, strides, 0, gaps, call.groups)

    taps = filters.flatten(0, 1)
    out = _plus_paths(trace, call, slide(x, windows, taps))
    size = (out.shape[-2], out.shape[-1])

    def padded(part: Tensor) -> Tensor:
        return slide(part, *pad_taps(windows, taps, size=size, have=(x.shape[-2], x.shape[-1])))

    return in_variant(trace, x, out, padded)


def _spreading(trace: EnergyTrace, call: TransposedConvolution) -> Tensor:
    """A transposed convolution with fixed filters (in, out per group, ...)."""
    squares = _squares(call.weight)
    if is_weight(call.weight):  # 1 / fan-in of what each output reads
        inputs, outputs = call.weight.shape[0] // call.groups, call.weight.shape[1]
        steps = math.prod(each_axis(call.stride, call.weight.ndim - 2))
        squares = squares * steps * outputs / inputs
    turned = torch.unflatten(squares, 0, (call.groups, -1)).transpose(1, 2)
    x, filters = _filters(trace, call.input, turned.flatten(0, 1), call.groups)
    filters = torch.unflatten(filters, 0, (call.groups, -1)).transpose(1, 2).flatten(0, 1)
    function = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}[x.ndim]
    options = (call.stride, call.padding, call.output_padding, call.groups, call.dilation)
    return function(x, filters, None, *options)


@rule("conv_transpose1d", "conv_transpose3d", reads=TransposedConvolution)
def _conv_transpose_any(trace: EnergyTrace, call: TransposedConvolution) -> Tensor:
    """As over two axes, but not among the layers."""
    if is_energy(call.weight):
        raise NotApplicableError(_FROM_IMAGE)
    if not is_weight(call.weight) or moments_of_entries(call.weight) is not None:
        return _as_spread(trace, call, _spreading(trace, call))
    axes = call.weight.ndim - 2
    kernel = _taps(trace, call.weight, math.prod(each_axis(call.stride, axes)))
    function = F.conv_transpose1d if axes == 1 else F.conv_transpose3d
    options = (call.stride, call.padding, call.output_padding, 1, call.dilation)

    def slide(x: Tensor) -> Tensor:
        return function(x, kernel, None, *options)

    x = group_mean(call.input, call.groups).to(torch.float64)
    out = _spread(channel_by_channel(slide, x), call.weight.shape[1] * call.groups)
    return _as_spread(trace, call, out)


@rule("conv_transpose2d", reads=TransposedConvolution)
def _conv_transpose2d(trace: EnergyTrace, call: TransposedConvolution) -> Tensor:
    """Each output is reached by kernel / stride^2 taps on average, which is its fan-in."""
    weight, steps, gaps = call.weight, pair(call.stride), pair(call.dilation)
    if is_energy(weight):
        raise NotApplicableError(_FROM_IMAGE)
    sides = (weight.shape[2], weight.shape[3])
    trace.record_upsampling(sides, steps, gaps)
    if not is_weight(weight) or moments_of_entries(weight) is not None:
        return _as_spread(trace, call, _spreading(trace, call))
    kernel = _taps(trace, weight, math.prod(steps))
    wide = trace.upsamplings[-1].padded if trace.padded_outputs else sides
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
    return _as_spread(trace, call, _spread(out, weight.shape[1] * call.groups))


def _as_spread(trace: EnergyTrace, call: TransposedConvolution, out: Tensor) -> Tensor:
    """`out` with the history of the convolution's input, whose map it has in another size.

    An axis over rows and columns at once, as of tokens, leaves it to the next function.
    """
    x, found = call.input, history_of(call.input)
    axes = _convolved_axes(call)
    if found is None or axes is None:
        return out
    if x.shape[0] == len(trace.padded):  # whole maps
        sizes = [n if a is None else x.shape[a] for n, a in zip(found.grid, axes, strict=True)]
        found = found.regridded((sizes[0], sizes[1]))
    count = call.weight.ndim - 2
    strides = each_axis(call.stride, count)
    (s_r, h_r, g_r), (s_c, h_c, g_c) = (
        (1, n, n) if a is None else (strides[a - x.ndim + count], x.shape[a], out.shape[a])
        for n, a in zip(found.grid, axes, strict=True)
    )
    return with_history(out, found.spread((s_r, s_c), (h_r, h_c), (g_r, g_c)))


def _convolved_axes(call: TransposedConvolution) -> tuple[int | None, int | None] | None:
    """The convolved axes over the map's rows and columns, None for one that is not among them.

    None if some axis runs over both, or if they are not known.
    """
    x, count = call.input, call.weight.ndim - 2
    spans = spans_of(x)
    last = range(x.ndim - count, x.ndim)
    if spans is not None and spans.local():
        rows, columns = ([a for a in spans.axes(i) if a in last] for i in (0, 1))
        if len(rows) <= 1 and len(columns) <= 1 and (not rows or rows != columns):
            if rows or columns:
                return next(iter(rows), None), next(iter(columns), None)
        elif count != 2:
            return None
    return (last[0], last[1]) if count == 2 else None
