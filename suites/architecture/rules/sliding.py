"""The sliding windows of convolutions and pools, and how kernel padding enlarges them.

In its padded variant a layer's kernel is convolved with a box as long as the stride, which adds
rows at the bottom and columns at the right; the input is padded at its end so that the output keeps
its size. Pairs are (rows, columns).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..compact import compress_uniform
from ..windows import LayerWindow, Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..trace import EnergyTrace

Windows = tuple[LayerWindow, LayerWindow]


def convolve(x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
    """Convolve x (batch, groups, height, width) with kernels (1 or groups, height, width)."""
    x = x.to(kernel.dtype)
    rows, columns = windows
    pads = (columns.before, columns.after, rows.before, rows.after)
    if pads[0] != pads[1] or pads[2] != pads[3]:
        x, pads = F.pad(x, pads), (0, 0, 0, 0)
    stride = (rows.stride, columns.stride)
    padding, dilation = (pads[2], pads[0]), (rows.dilation, columns.dilation)
    flat = compress_uniform(kernel)
    if kernel.shape[1:] == (1, 1) and padding == (0, 0) and flat.numel() == 1:
        x = x if stride == (1, 1) else x[..., :: stride[0], :: stride[1]]
        return x if float(flat) == 1 else x * flat
    small = all(2 * p <= k for p, k in zip(padding, kernel.shape[1:], strict=True))
    if flat.numel() == 1 and dilation == (1, 1) and small:
        size = (rows.kernel, columns.kernel)
        return F.avg_pool2d(x, size, stride, padding, divisor_override=1) * flat
    if kernel.shape[0] > 1:
        return F.conv2d(x, kernel[:, None], None, stride, padding, dilation, x.shape[1])
    return channel_by_channel(
        lambda one: F.conv2d(one, kernel[None], None, stride, padding, dilation), x
    )


def channel_by_channel(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Apply `function`, of maps (n, 1, ...), to every channel of `x` (batch, channels, ...)."""
    out = function(x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:]))
    return out.view(*x.shape[:2], *out.shape[2:])


def sum_windows(x: Tensor, windows: Windows) -> Tensor:
    """Sum of the units of each window of x (batch, groups, height, width)."""
    rows, columns = windows
    return convolve(x, windows, torch.ones(1, rows.kernel, columns.kernel, dtype=torch.float64))


def in_variant(
    trace: EnergyTrace, x: Tensor, out: Tensor, padded: Callable[[Tensor], Tensor]
) -> Tensor:
    """Replace in `out` the batch entry of this layer's padded variant."""
    variant = trace.variant()
    if variant is None:
        return out
    share = x.shape[0] // len(trace.padded)
    start, stop = variant * share, (variant + 1) * share
    return torch.cat([out[:start], padded(x[start:stop]), out[stop:]])


def pad_taps(windows: Windows, kernel: Tensor, *, size: Pair, have: Pair) -> tuple[Windows, Tensor]:
    """Convolve tap energies (groups, height, width) with a box as long as the stride.

    Taps are random and independent, so their energies are convolved with the squared box. The
    windows are adapted to give an output of `size` for an input of size `have`.
    """
    grown = []
    for axis, (window, n, h) in enumerate(zip(windows, size, have, strict=True), start=1):
        if len(set(window.coverage())) == 1:
            grown.append(window)
            continue
        kernel = convolve_with_box(kernel, axis, window.stride)
        wide = replace(window, kernel=kernel.shape[axis])
        missing = (n - 1) * wide.stride + wide.extent - h - wide.before - wide.after
        grown.append(replace(wide, after=wide.after + max(0, missing)))
    rows, columns = grown
    return (rows, columns), kernel


def convolve_with_box(kernel: Tensor, axis: int, length: int) -> Tensor:
    """Full convolution along `axis` with the energies 1 / length^2 of a normalised box."""
    shape = list(kernel.shape)
    shape[axis] += length - 1
    out = kernel.new_zeros(shape)
    for offset in range(length):
        out.narrow(axis, offset, kernel.shape[axis]).add_(kernel, alpha=1 / length**2)
    return out


def box_filter(
    windows: Windows, taps: Tensor, size: Sequence[int], have: Sequence[int]
) -> tuple[Windows, Tensor]:
    """Convolve the amplitudes of a fixed filter with the box, and square them."""
    grown = list(windows)
    for axis, window in enumerate(windows):
        if len(set(window.coverage())) > 1:
            taps = convolve_with_box(taps, axis + 1, window.stride) * window.stride
            grown[axis] = replace(window, kernel=taps.shape[axis + 1])
    rows, columns = grown
    return pad_to_size((rows, columns), (size[0], size[1]), (have[0], have[1])), taps**2


def next_multiple(windows: Windows) -> Windows:
    """Windows with kernels rounded up to a multiple of their stride."""
    rows, columns = (replace(w, kernel=-(-w.kernel // w.stride) * w.stride) for w in windows)
    return rows, columns


def pad_to_size(windows: Windows, size: Pair, have: Pair) -> Windows:
    """Pad at the end so that exactly `size` complete windows fit over `have` units."""
    rows, columns = (
        replace(w, after=max(0, (n - 1) * w.stride + w.extent - h - w.before), ceil=False)
        for w, n, h in zip(windows, size, have, strict=True)
    )
    return rows, columns
