"""Energy rules of torch's windowed functions: convolutions, pools, paddings, interpolation.

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

from ..adapters.errors import NotApplicableError
from .energy import field_of, is_weight, with_field
from .layers import Pair, Window
from .narrow import equal_axes, narrow, uniform, widen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .energy import Trace

Windows = tuple[Window, Window]
WINDOW_RULES: dict[str, Any] = {}


def rule(names: str) -> Callable[[Any], Any]:
    """Register a window rule under all `names`."""

    def register(function: Any) -> Any:
        for name in names.split():
            WINDOW_RULES[name] = function
        return function

    return register


def pair(value: Any) -> Pair:
    """Read torch's "one number or one for each axis"."""
    if isinstance(value, int):
        return value, value
    first, *rest = (int(v) for v in value)
    return first, (rest[0] if rest else first)


# Convolutions


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
    x = _group_mean(input, groups)
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


def _group_mean(x: Tensor, groups: int) -> Tensor:
    """Mean over the channels of each group: (batch, 1 or groups, height, width)."""
    axes = [d for d in equal_axes(x) if d == 1]
    x = narrow(x, axes) if axes else x
    if x.shape[1] == 1 or groups == 1:
        return x.mean(1, keepdim=True) if x.shape[1] > 1 else x
    return x.unflatten(1, (groups, -1)).mean(2)


def _kernel(trace: Trace, weight: Tensor, groups: int) -> Tensor:
    """Energy of the taps: (1 or groups, kernel height, kernel width).

    The sum is 1 for random weights that were not padded.
    """
    height, width = weight.shape[2:]
    if trace.paths:
        return torch.ones(1, height, width, dtype=torch.float64)
    taps = getattr(weight, "tap_energy", None)
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
    return taps.sum(1).unflatten(0, (groups, -1)).mean(1)


def _spread(x: Tensor, channels: int) -> Tensor:
    """Give each of `channels` outputs the energy of its group."""
    groups = x.shape[1]
    if groups == 1:
        return widen(x, (x.shape[0], channels, *x.shape[2:]))
    each = channels // groups
    return x.repeat_interleave(each, 1) if each > 1 else x


def _slide(trace: Trace, x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
    """Slide `kernel` over x (batch, groups, height, width), padded in the variant that asks."""
    out = _convolve(x, windows, kernel)
    size = (out.shape[-2], out.shape[-1])

    def padded(part: Tensor) -> Tensor:
        grown, taps = pad_taps(windows, kernel, size=size, have=(x.shape[-2], x.shape[-1]))
        return _convolve(part, grown, taps)

    return _replace(trace, x, out, padded)


def _replace(trace: Trace, x: Tensor, out: Tensor, padded: Callable[[Tensor], Tensor]) -> Tensor:
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
        kernel = _boxed(kernel, axis, window.stride)
        wide = replace(window, kernel=kernel.shape[axis])
        missing = (n - 1) * wide.stride + wide.extent - h - wide.before - wide.after
        grown.append(replace(wide, after=wide.after + max(0, missing)))
    rows, columns = grown
    return (rows, columns), kernel


def _boxed(kernel: Tensor, axis: int, length: int) -> Tensor:
    """Convolve in full along `axis` with the energies 1 / length^2 of a normalised box."""
    shape = list(kernel.shape)
    shape[axis] += length - 1
    out = kernel.new_zeros(shape)
    for offset in range(length):
        out.narrow(axis, offset, kernel.shape[axis]).add_(kernel, alpha=1 / length**2)
    return out


def _convolve(x: Tensor, windows: Windows, kernel: Tensor) -> Tensor:
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


@rule("conv1d conv3d")
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
    x = _group_mean(input, groups)
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
    x = _group_mean(input, groups)
    taps = torch.ones(1, 1, *weight.shape[2:], dtype=torch.float64)
    kernel = taps if trace.paths else taps * math.prod(pair(stride)) / taps.numel()
    folded = x.reshape(x.shape[0] * x.shape[1], 1, *x.shape[2:])
    out = F.conv_transpose2d(folded, kernel, None, stride, padding, output_padding, 1, dilation)
    out = _spread(out.view(*x.shape[:2], *out.shape[2:]), weight.shape[1] * groups)
    found = field_of(input)
    reach = (max(weight.shape[2:]) / max(pair(stride)) - 1) / 2
    grid = (out.shape[-2], out.shape[-1])
    return with_field(out, found.resized(grid, max(0.0, reach)) if found else None)


# Pools


@rule("max_pool2d max_pool2d_with_indices")
def _max_pool2d(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Each unit is the largest of its window in 1 / window of the cases; padding never is."""
    windows = _pool_windows(kernel_size, stride, padding, dilation, ceil_mode=ceil_mode)
    out = _pool(trace, input, windows, "max_pool2d", lambda valid: 1 / valid)
    if return_indices:
        raise NotApplicableError("a pooling that returns indices has no energy rule")
    return out


@rule("avg_pool2d")
def _avg_pool2d(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Each unit is the mean of its window: its coefficients squared."""
    windows = _pool_windows(kernel_size, stride, padding, 1, ceil_mode=ceil_mode)
    whole = divisor_override or math.prod(pair(kernel_size))
    fixed = divisor_override is not None or (count_include_pad and not ceil_mode)
    return _pool(
        trace,
        input,
        windows,
        "avg_pool2d",
        lambda valid: 1 / valid**2 if not fixed else torch.full_like(valid, 1 / whole**2),
    )


def _pool_windows(
    kernel: Any, stride: Any, padding: Any, dilation: Any, *, ceil_mode: bool
) -> Windows:
    stride = kernel if stride is None or stride == [] or stride == () else stride
    axes = zip(pair(kernel), pair(stride), pair(padding), pair(dilation), strict=True)
    rows, columns = (
        Window(kernel=k, stride=s, before=p, after=p, dilation=d, ceil=ceil_mode)
        for k, s, p, d in axes
    )
    return rows, columns


def _pool(
    trace: Trace,
    x: Tensor,
    windows: Windows,
    kind: str,
    weight: Callable[[Tensor], Tensor],
) -> Tensor:
    """Sum over each window times `weight` of the number of its units that are no padding."""
    axes = [d for d in equal_axes(x) if d == 1]
    small = narrow(x, axes) if axes else x
    size = tuple(w.size(n) for w, n in zip(windows, small.shape[-2:], strict=True))

    def pooled(part: Tensor, used: Windows) -> Tensor:
        full = _reach(used, (size[0], size[1]), (part.shape[-2], part.shape[-1]))
        total = _sum_windows(part, full)
        if trace.paths:
            return total
        valid = _sum_windows(torch.ones_like(part[:1, :1]), full)
        return total * weight(valid)

    def padded(part: Tensor) -> Tensor:
        return pooled_box(part) if kind == "avg_pool2d" else pooled(part, next_multiple(windows))

    def pooled_box(part: Tensor) -> Tensor:
        taps = torch.full((1, windows[0].kernel, windows[1].kernel), 1.0, dtype=torch.float64)
        return _convolve(part, *_box_filter(windows, taps / taps.numel(), size, part.shape[-2:]))

    out = _replace(trace, small, pooled(small, windows), padded)
    return trace.note(kind, x, widen(out, (*x.shape[:-2], *out.shape[-2:])), windows)


def _box_filter(
    windows: Windows, taps: Tensor, size: Sequence[int], have: Sequence[int]
) -> tuple[Windows, Tensor]:
    """Grow a fixed filter by the box: amplitudes convolve first, and are then squared."""
    grown = list(windows)
    for axis, window in enumerate(windows):
        if len(set(window.coverage())) > 1:
            taps = _boxed(taps, axis + 1, window.stride) * window.stride
            grown[axis] = replace(window, kernel=taps.shape[axis + 1])
    rows, columns = grown
    return _reach((rows, columns), (size[0], size[1]), (have[0], have[1])), taps**2


def next_multiple(windows: Windows) -> Windows:
    """Windows whose kernel is the next multiple of their stride."""
    rows, columns = (replace(w, kernel=-(-w.kernel // w.stride) * w.stride) for w in windows)
    return rows, columns


def _reach(windows: Windows, size: Pair, have: Pair) -> Windows:
    """Pad at the end so that exactly `size` windows fit over `have` units, none cut short."""
    rows, columns = (
        replace(w, after=max(0, (n - 1) * w.stride + w.extent - h - w.before), ceil=False)
        for w, n, h in zip(windows, size, have, strict=True)
    )
    return rows, columns


def _sum_windows(x: Tensor, windows: Windows) -> Tensor:
    rows, columns = windows
    return _convolve(x, windows, torch.ones(1, rows.kernel, columns.kernel, dtype=torch.float64))


@rule("adaptive_avg_pool2d adaptive_max_pool2d")
def _adaptive(trace: Trace, input: Tensor, output_size: Any, *_: Any) -> Tensor:  # noqa: A002
    """Windows as even as they come; mean and maximum differ by one more window in energy."""
    sizes = (output_size,) * 2 if isinstance(output_size, int) else tuple(output_size)
    grid = [n if n is not None else h for n, h in zip(sizes, input.shape[-2:], strict=True)]
    small = narrow(input, [d for d in equal_axes(input) if d < input.ndim - 2])
    out = F.adaptive_avg_pool2d(small, grid)
    shares = [_shares(h, n).to(out) for h, n in zip(input.shape[-2:], grid, strict=True)]
    window = shares[0][:, None] * shares[1]
    out = widen(out * window if trace.paths else out / window, (*input.shape[:-2], *grid))
    found = field_of(input)
    if found is not None and grid == [1, 1] and found.grid != (1, 1):
        return with_field(out, replace(found, low=None, high=None, global_=True))
    windows = tuple(
        Window(kernel=-(-h // n), stride=h // n)
        for h, n in zip(input.shape[-2:], grid, strict=True)
    )
    return trace.note("adaptive_pool2d", input, out, windows)  # type: ignore[arg-type]


def _shares(size: int, count: int) -> Tensor:
    """How many of `size` units each of `count` adaptive windows reads."""
    i = torch.arange(count)
    return -(-(i + 1) * size // count) - i * size // count


# Paddings and interpolation


@rule("pad")
def _pad(
    _trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Padded units carry nothing, whatever their value; reflected ones carry their origin's."""
    del value
    touched = [input.ndim - 1 - i // 2 for i, n in enumerate(pad) if n]
    small = narrow(input, [d for d in equal_axes(input) if d not in touched])
    out = F.pad(small, list(pad), mode=mode) if mode != "constant" else F.pad(small, list(pad))
    shape = [
        o if d in touched else n
        for d, (o, n) in enumerate(zip(out.shape, input.shape, strict=True))
    ]
    out = widen(out, shape)
    found = field_of(input)
    if found is None or input.ndim != 4 or any(d < 2 for d in touched):
        return out
    (left, right), (top, bottom) = pad[:2], (pad[2:4] if len(pad) > 2 else (0, 0))
    grid = (out.shape[-2], out.shape[-1])
    if found.grid == (input.shape[-2], input.shape[-1]):
        out.pending = (found, found.grid, ((top, bottom), (left, right)))  # type: ignore[attr-defined]
        return with_field(out, found.shifted((-top, -left), grid))
    return out


@rule("getitem")
def _getitem(_trace: Trace, input: Tensor, index: Any) -> Tensor:  # noqa: A002 - torch's name
    """A crop of the image's axes shifts the units, a strided slice is a window of one."""
    out = input[index]
    found = field_of(input)
    if found is None or input.ndim != 4 or out.ndim != 4 or not isinstance(index, tuple):
        return out
    if Ellipsis in [i for i in index if i is Ellipsis]:
        fill = (slice(None),) * (5 - len(index))
        at = next(k for k, i in enumerate(index) if i is Ellipsis)
        index = (*index[:at], *fill, *index[at + 1 :])
    slices = [*index, *(slice(None),) * (4 - len(index))]
    if not all(isinstance(i, slice) for i in slices):
        return out
    axes = (2, 3) if found.grid == tuple(input.shape[2:]) else (1, 2)
    if found.grid != tuple(input.shape[a] for a in axes):
        return out
    bounds = [slices[a].indices(input.shape[a]) for a in axes]
    grid = (out.shape[axes[0]], out.shape[axes[1]])
    if all(b[2] == 1 for b in bounds):
        return with_field(out, found.shifted((bounds[0][0], bounds[1][0]), grid))
    rows, columns = (Window(stride=b[2], before=-b[0]) for b in bounds)
    return with_field(out, found.through((rows, columns), grid))


@rule("interpolate upsample")
def _interpolate(
    trace: Trace,
    input: Tensor,  # noqa: A002 - torch's name
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """Each unit is a fixed combination: its coefficients squared, axis by axis."""
    del recompute_scale_factor
    if input.ndim != 4:
        raise NotApplicableError("only two-dimensional interpolation has an energy rule")
    scales = pair_of_floats(scale_factor) if size is None else (1.0, 1.0)
    have = input.shape[-2:]
    grid = (
        pair(size)
        if size is not None
        else tuple(int(n * s) for n, s in zip(have, scales, strict=True))
    )
    small = narrow(input, [d for d in equal_axes(input) if d < 2]).to(torch.float64)
    options = {"mode": mode, "align_corners": align_corners, "antialias": antialias}
    rows, columns = (
        _coefficients(n, g, **options).to(small) for n, g in zip(have, grid, strict=True)
    )
    if trace.paths:
        rows, columns = (rows != 0).to(small), (columns != 0).to(small)
    out = widen(rows**2 @ small @ (columns**2).mT, (*input.shape[:2], *grid))
    found = field_of(input)
    if found is None:
        return out
    reach = 0.0 if mode.startswith("nearest") else (1.5 if mode == "bicubic" else 0.5)
    return with_field(out, found.regridded((have[0], have[1])).resized((grid[0], grid[1]), reach))


def pair_of_floats(value: Any) -> tuple[float, float]:
    """Read torch's "one number or one for each axis"."""
    first, second = (value, value) if isinstance(value, int | float) else value
    return float(first), float(second)


def _coefficients(have: int, want: int, **options: Any) -> Tensor:
    """The matrix (want, have) of a one-axis interpolation."""
    lines = torch.eye(have, dtype=torch.float64)[None].unsqueeze(-1)  # (1, have, have, 1)
    out = F.interpolate(lines, size=(want, 1), **options)
    return out[0, :, :, 0].T
