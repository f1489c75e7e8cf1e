"""Energy rules of torch's convolutions.

The kernel of a layer whose padded effect is asked for grows as PROTOCOL 6 says: by a box as long as
the stride, rows at the bottom and columns at the right, the input padded at its end so that the
output keeps its size.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .energy_base import field_of, is_weight, rule, with_field
from .layers import Pair, Window
from .narrow import equal_axes, narrow, uniform, widen

if TYPE_CHECKING:
    from collections.abc import Callable

    from .energy import Trace

Windows = tuple[Window, Window]


def pair(value: Any) -> Pair:
    """Read torch's "one number or one for each axis"."""
    if isinstance(value, int):
        return value, value
    first, *rest = (int(v) for v in value)
    return first, (rest[0] if rest else first)


@rule("conv2d")
def _conv2d(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    del bias
    entries = len(trace.padded)
    if input.shape[0] == 1 < entries and groups % entries == 0:  # samples folded into the channels
        x = input.view(entries, -1, *input.shape[2:])
        weight = weight[: weight.shape[0] // entries]
        out = _conv2d(trace, x, weight, None, stride, padding, dilation, groups // entries)
        return out.reshape(1, -1, *out.shape[2:])
    windows = conv_windows(weight, stride, padding, dilation)
    x = group_mean(input, groups)
    kernel = _kernel(trace, weight, x.shape[1])
    out = _slide(trace, x, windows, kernel)
    out = _spread(out, weight.shape[0])
    return trace.note("conv2d", input, out, windows, groups)


def conv_windows(weight: Tensor, stride: Any, padding: Any, dilation: Any) -> Windows:
    """Describe both axes of a convolution from torch's arguments."""
    sizes = zip(weight.shape[2:], pair(stride), pair(dilation), strict=True)
    windows = [Window(kernel=k, stride=s, dilation=d) for k, s, d in sizes]
    if padding == "same":
        spare = [w.extent - 1 for w in windows]
        pads = [(n // 2, n - n // 2) for n in spare]
    else:
        pads = [(n, n) for n in ((0, 0) if padding == "valid" else pair(padding))]
    rows, columns = (replace(w, before=b, after=a) for w, (b, a) in zip(windows, pads, strict=True))
    return rows, columns


def group_mean(x: Tensor, groups: int) -> Tensor:
    """Mean over the channels of each group: (batch, 1 or groups, height, width)."""
    axes = [d for d in equal_axes(x) if d == 1]
    x = narrow(x, axes) if axes else x
    if x.shape[1] == 1 or groups == 1:
        return x.mean(1, keepdim=True) if x.shape[1] > 1 else x
    grouped: Tensor = torch.unflatten(x, 1, (groups, -1))
    return grouped.mean(2)


def _kernel(trace: Trace, weight: Tensor, groups: int) -> Tensor:
    """Energy of the taps: (1 or groups, kernel height, kernel width).

    The sum is 1 for random weights that were not padded.
    """
    height, width = weight.shape[2:]
    if trace.paths:
        return torch.ones(1, height, width, dtype=torch.float64)
    taps: Tensor | None = getattr(weight, "tap_energy", None)
    if taps is not None:
        count = float(taps.sum()) if is_weight(weight) else 1.0
        return (taps.to(torch.float64) / count)[None]
    if not is_weight(weight) and uniform(weight).numel() > 1:
        return _fixed(weight, groups)
    return torch.full((1, height, width), 1 / (height * width), dtype=torch.float64)


def _fixed(weight: Tensor, groups: int) -> Tensor:
    """Squared taps of a fixed filter; of several filters of one group, the mean of the squares."""
    taps = weight.to(torch.float64) ** 2
    if groups == 1:
        return taps.sum(1).mean(0, keepdim=True)
    taps = taps.sum(1)
    return taps.reshape(groups, -1, *taps.shape[1:]).mean(1)


def _spread(x: Tensor, channels: int) -> Tensor:
    """Give each of `channels` outputs the energy of its group."""
    groups = x.shape[1]
    if groups == 1:
        return widen(x, (x.shape[0], channels, *x.shape[2:]))
    each = channels // groups
    return x.repeat_interleave(each, 1) if each > 1 else x


def _slide(trace: Trace, x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
    """Slide `kernel` over x (batch, groups, height, width), padded in the variant that asks."""
    out = convolve(x, windows, kernel)
    size = (out.shape[-2], out.shape[-1])

    def padded(part: Tensor) -> Tensor:
        grown, taps = pad_taps(windows, kernel, size=size, have=(x.shape[-2], x.shape[-1]))
        return convolve(part, grown, taps)

    return in_variant(trace, x, out, padded)


def in_variant(trace: Trace, x: Tensor, out: Tensor, padded: Callable[[Tensor], Tensor]) -> Tensor:
    """Exchange in `out` the batch entry of this layer's padded variant."""
    variant = trace.variant()
    if variant is None:
        return out
    share = x.shape[0] // len(trace.padded)
    start, stop = variant * share, (variant + 1) * share
    return torch.cat([out[:start], padded(x[start:stop]), out[stop:]])


def pad_taps(windows: Windows, kernel: Tensor, *, size: Pair, have: Pair) -> tuple[Windows, Tensor]:
    """Grow windows and tap energies (groups, height, width) by a box as long as the stride.

    Energies of random taps, which are independent, convolve with the squared box. `size` is the
    output to keep, `have` the input there is.
    """
    grown = []
    for axis, (window, n, h) in enumerate(zip(windows, size, have, strict=True), start=1):
        if len(set(window.coverage())) == 1:
            grown.append(window)
            continue
        kernel = boxed(kernel, axis, window.stride)
        wide = replace(window, kernel=kernel.shape[axis])
        missing = (n - 1) * wide.stride + wide.extent - h - wide.before - wide.after
        grown.append(replace(wide, after=wide.after + max(0, missing)))
    rows, columns = grown
    return (rows, columns), kernel


def boxed(kernel: Tensor, axis: int, length: int) -> Tensor:
    """Convolve in full along `axis` with the energies 1 / length^2 of a normalised box."""
    shape = list(kernel.shape)
    shape[axis] += length - 1
    out = kernel.new_zeros(shape)
    for offset in range(length):
        out.narrow(axis, offset, kernel.shape[axis]).add_(kernel, alpha=1 / length**2)
    return out


def convolve(x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
    """Slide kernels (1 or groups, height, width) over x (batch, groups, height, width)."""
    x = x.to(kernel.dtype)
    rows, columns = windows
    pads = (columns.before, columns.after, rows.before, rows.after)
    if pads[0] != pads[1] or pads[2] != pads[3]:
        x, pads = F.pad(x, pads), (0, 0, 0, 0)
    stride = (rows.stride, columns.stride)
    padding, dilation = (pads[2], pads[0]), (rows.dilation, columns.dilation)
    batch, groups = x.shape[:2]
    flat = uniform(kernel)
    if kernel.shape[1:] == (1, 1) and padding == (0, 0) and flat.numel() == 1:
        x = x if stride == (1, 1) else x[..., :: stride[0], :: stride[1]]
        return x if float(flat) == 1 else x * flat
    small = all(2 * p <= k for p, k in zip(padding, kernel.shape[1:], strict=True))
    if flat.numel() == 1 and dilation == (1, 1) and small:
        size = (rows.kernel, columns.kernel)
        return F.avg_pool2d(x, size, stride, padding, divisor_override=1) * flat
    if kernel.shape[0] == 1:
        folded = x.reshape(batch * groups, 1, *x.shape[2:])
        out = F.conv2d(folded, kernel[None], None, stride, padding, dilation)
        return out.view(batch, groups, *out.shape[2:])
    return F.conv2d(x, kernel[:, None], None, stride, padding, dilation, groups)


@rule("conv1d", "conv3d")
def _conv_any(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor:
    """Convolutions that do not run over the image's two axes: no layer of the table."""
    del bias
    x = group_mean(input, groups)
    taps = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
    kernel = taps if trace.paths else taps / taps.numel()
    function = F.conv1d if weight.ndim == 3 else F.conv3d
    folded = x.to(torch.float64).reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    out = function(folded, kernel, None, stride, padding, dilation)
    return _spread(out.view(*x.shape[:2], *out.shape[2:]), weight.shape[0])


@rule("conv_transpose2d")
def _conv_transpose2d(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor:
    """Each output is reached by kernel / stride^2 taps on average: those make its fan-in."""
    del bias
    x = group_mean(input, groups)
    taps = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
    kernel = taps if trace.paths else taps * math.prod(pair(stride)) / taps.numel()
    folded = x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    out = F.conv_transpose2d(folded, kernel, None, stride, padding, output_padding, 1, dilation)
    out = _spread(out.view(*x.shape[:2], *out.shape[2:]), weight.shape[1] * groups)
    found = field_of(input)
    reach = (max(weight.shape[2:]) / max(pair(stride)) - 1) / 2
    grid = (out.shape[-2], out.shape[-1])
    return with_field(out, found.resized(grid, max(0.0, reach)) if found else None)
