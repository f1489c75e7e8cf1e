"""Energy rules of pooling; padded windows grow as those of convolutions do."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ....adapters.torch_calls import MaxPool, MeanPool, NormPool, each_axis
from ..compact import compress, equal_axes, widen
from ..rule_table import history_of, real_units, rule, with_history
from ..windows import LayerWindow, adaptive_windows, pool_windows
from .sliding import (
    Windows,
    box_filter,
    convolve,
    in_variant,
    next_multiple,
    pad_to_size,
    sum_windows,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..trace import EnergyTrace


@rule("max_pool2d", "max_pool2d_with_indices", reads=MaxPool)
def _max_pool2d(trace: EnergyTrace, call: MaxPool) -> Any:
    """Each unit is the largest of its window with probability 1 / window; padding never is."""
    rows, columns = pool_windows(call)
    out = _pool(trace, call.input, (rows, columns), "max_pool2d", lambda valid: 1 / valid)
    if call.return_indices:
        raise NotApplicableError("it returns the places of the maxima")
    return out


@rule("avg_pool2d", "dilated_avg_pool2d", reads=MeanPool)
def _avg_pool2d(trace: EnergyTrace, call: MeanPool) -> Tensor:
    """A mean over the window: squared coefficients."""
    rows, columns = windows = pool_windows(call)
    counts = [_counts(call, w, n) for w, n in zip(windows, call.input.shape[-2:], strict=True)]
    divisors = (counts[0][:, None] * counts[1])[None, None]
    if call.divisor_override is not None:
        divisors = torch.full_like(divisors, call.divisor_override)
    weights = 1 / divisors**2
    return _pool(trace, call.input, (rows, columns), "avg_pool2d", lambda _valid: weights)


def _pool(
    trace: EnergyTrace,
    x: Tensor,
    windows: Windows,
    kind: str,
    weight: Callable[[Tensor], Tensor],
) -> Tensor:
    """Sum over each window, times `weight` of the number of its units that are not padding."""
    small = compress(x, [1])
    size = tuple(w.size(n) for w, n in zip(windows, small.shape[-2:], strict=True))
    real = real_units(x)

    def pooled(part: Tensor, used: Windows) -> Tensor:
        full = pad_to_size(used, (size[0], size[1]), (part.shape[-2], part.shape[-1]))
        total = sum_windows(part, full)
        if trace.paths:
            return total
        return total * weight(sum_windows(real, full))

    def padded(part: Tensor) -> Tensor:
        return pooled_box(part) if kind == "avg_pool2d" else pooled(part, next_multiple(windows))

    def pooled_box(part: Tensor) -> Tensor:
        taps = torch.full((1, windows[0].kernel, windows[1].kernel), 1.0, dtype=torch.float64)
        return convolve(part, *box_filter(windows, taps / taps.numel(), size, part.shape[-2:]))

    out = in_variant(trace, small, pooled(small, windows), padded)
    return trace.record_layer(kind, x, widen(out, (*x.shape[:-2], *out.shape[-2:])), windows)


@rule("avg_pool1d", "avg_pool3d", reads=MeanPool)
def _avg_pool_any(trace: EnergyTrace, call: MeanPool) -> Tensor:
    """Pools that do not run along the two axes of the image; not in the layer table."""
    own = call.divisor_override
    if own is not None:
        out = _pool_by_axis(trace, call, lambda _window, _size, reads: torch.ones(len(reads)))
        return out if trace.paths else out / own**2
    return _pool_by_axis(trace, call, lambda window, size, _: 1 / _counts(call, window, size) ** 2)


@rule("max_pool1d", "max_pool3d", reads=MaxPool)
@rule("max_pool1d_with_indices", "max_pool3d_with_indices", reads=MaxPool)
def _max_pool_any(trace: EnergyTrace, call: MaxPool) -> Tensor:
    if call.return_indices:
        raise NotApplicableError("it returns the places of the maxima")
    return _pool_by_axis(trace, call, lambda _window, _size, reads: 1 / reads.sum(1))


def _pool_by_axis(
    trace: EnergyTrace,
    call: MeanPool | MaxPool,
    weight: Callable[[LayerWindow, int, Tensor], Tensor],
) -> Tensor:
    """Sums over windows of the last axes, times `weight` (outputs,) of what each reads."""
    x, axes = call.input, call.input.ndim - 2
    out = compress(x, [d for d in equal_axes(x) if d < 2]).to(torch.float64)
    real = real_units(x, axes)
    for axis, window in enumerate(pool_windows(call, axes), start=2):
        line = real.movedim(axis, 0).flatten(1).amax(1)
        place = torch.arange(window.size(len(line)))[:, None] * window.stride - window.before
        taps = (torch.arange(len(line)) - place) / window.dilation
        reads = ((taps >= 0) & (taps < window.kernel) & (taps == taps.round())).to(out) * line
        matrix = reads if trace.paths else reads * weight(window, len(line), reads)[:, None]
        out = (out.movedim(axis, -1) @ matrix.T).movedim(-1, axis)
    return widen(out, (*x.shape[:2], *out.shape[2:]))


def _counts(call: MeanPool, window: LayerWindow, size: int) -> Tensor:
    """By how many units along an axis of `size` a mean pool divides, for each window (outputs,).

    A window that begins in the map and ends behind its padding, as with `ceil_mode`, is cut off
    there; without `count_include_pad` padding does not count either.
    """
    starts = torch.arange(window.size(size), dtype=torch.float64) * window.stride - window.before
    taps = starts[:, None] + torch.arange(window.kernel) * window.dilation
    first, end = (-window.before, size + window.after) if call.count_include_pad else (0, size)
    return ((taps >= first) & (taps < end)).sum(1).to(torch.float64)


@rule("adaptive_avg_pool2d")
def _adaptive(trace: EnergyTrace, input: Tensor, output_size: Any, **_: Any) -> Tensor:  # noqa: A002
    return _adaptive_map(trace, input, _adaptive_windows(trace, input, output_size, 2))


@rule("adaptive_max_pool2d")
def _adaptive_largest(trace: EnergyTrace, input: Tensor, output_size: Any, **_: Any) -> Tensor:  # noqa: A002
    out = _adaptive_windows(trace, input, output_size, 2, largest=True)
    return _adaptive_map(trace, input, out)


def _adaptive_map(trace: EnergyTrace, input: Tensor, out: Tensor) -> Tensor:  # noqa: A002
    """Adaptive windows along rows and columns, which are a layer where they are even."""
    grid = (out.shape[-2], out.shape[-1])
    if grid == (1, 1):
        return out
    have = (input.shape[-2], input.shape[-1])
    first, second = (_even_window(h, n) for h, n in zip(have, grid, strict=True))
    if first is None or second is None:
        found = history_of(input)
        return with_history(out, found.regridded(have).resized(grid) if found else None)
    return trace.record_layer("adaptive_pool2d", input, out, (first, second))


@rule("adaptive_avg_pool1d")
def _adaptive_line(trace: EnergyTrace, input: Tensor, output_size: Any) -> Tensor:  # noqa: A002
    return _adaptive_windows(trace, input, output_size, 1)


@rule("adaptive_max_pool1d")
def _largest_of_line(
    trace: EnergyTrace,
    input: Tensor,  # noqa: A002 - torch's name
    output_size: Any,
    *,
    return_indices: bool = True,
) -> Tensor:
    """As `F.adaptive_max_pool1d` calls it; `torch.adaptive_max_pool1d` returns the places too."""
    if return_indices:
        raise NotApplicableError("it returns the places of the maxima")
    return _adaptive_windows(trace, input, output_size, 1, largest=True)


@rule("adaptive_avg_pool3d")
def _adaptive_volume(trace: EnergyTrace, input: Tensor, output_size: Any, **_: Any) -> Tensor:  # noqa: A002
    return _adaptive_windows(trace, input, output_size, 3)


@rule("adaptive_max_pool3d")
def _largest_of_volume(trace: EnergyTrace, input: Tensor, output_size: Any, **_: Any) -> Tensor:  # noqa: A002
    return _adaptive_windows(trace, input, output_size, 3, largest=True)


def _adaptive_windows(
    trace: EnergyTrace, x: Tensor, output_size: Any, axes: int, *, largest: bool = False
) -> Tensor:
    """Adaptive windows of n units over the last `axes`.

    Of a mean each unit has the share 1 / n^2, of a maximum 1 / n.
    """
    have = x.shape[-axes:]
    sizes = zip(each_axis(output_size, axes), have, strict=True)
    grid = [h if n is None else n for n, h in sizes]
    out = compress(x, [d for d in equal_axes(x) if d < x.ndim - axes])
    for axis, (h, n) in enumerate(zip(have, grid, strict=True), start=x.ndim - axes):
        line = out.movedim(axis, -1)
        means = F.adaptive_avg_pool1d(line.flatten(0, -2), n).reshape(*line.shape[:-1], n)
        starts, ends = map(torch.tensor, adaptive_windows(h, n))
        window = (ends - starts).to(out)
        factor = window if trace.paths else torch.ones_like(window) if largest else 1 / window
        out = (means * factor).movedim(-1, axis)
    return widen(out, (*x.shape[:-axes], *grid))


@rule("lp_pool2d", "dilated_lp_pool2d", reads=NormPool)
def _lp_pool(trace: EnergyTrace, call: NormPool) -> Tensor:
    """A norm: squares of x_i / |x|, for p = 2, have the mean 1 / window, those of signs are 1."""
    if call.norm_type not in (1, 2):
        raise NotApplicableError(f"its norm is {call.norm_type}, and not 1 or 2")
    rows, columns = pool_windows(call)
    weight = (lambda valid: 1 / valid) if call.norm_type == 2 else torch.ones_like
    return _pool(trace, call.input, (rows, columns), "lp_pool2d", weight)


def _even_window(size: int, count: int) -> LayerWindow | None:
    """The window that gives `count` adaptive ones over `size` units; None if they are uneven."""
    starts, ends = adaptive_windows(size, count)
    steps = {b - a for line in (starts, ends) for a, b in pairwise(line)} or {size}
    return LayerWindow(kernel=ends[0], stride=steps.pop()) if len(steps) == 1 else None
