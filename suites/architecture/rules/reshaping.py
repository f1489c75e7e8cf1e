"""Energy rules of functions that move, join, crop, pad or resample entries."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..channel_runs import concatenate_runs
from ..chosen_lines import map_axes
from ..compact import cat_compact, compress, equal_axes, index_compact, reshape_compact, widen
from ..rule_table import history_of, is_energy, real_units, rule, with_history
from ..windows import LayerWindow
from .elementwise import constant_energy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..trace import EnergyTrace


@rule("cat", "concat", "concatenate")
def _cat(trace: EnergyTrace, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    tensors = _joinable(trace, tensors)
    in_runs = concatenate_runs(tensors, dim)
    return cat_compact(tensors, dim) if in_runs is None else in_runs


@rule("stack")
def _stack(trace: EnergyTrace, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    dim %= tensors[0].ndim + 1
    return cat_compact([t.unsqueeze(dim) for t in _joinable(trace, tensors)], dim)


def _joinable(trace: EnergyTrace, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Convert constants to energies, averaged over the axes along which all energies are equal."""
    energies = [t for t in tensors if is_energy(t)]
    axes = set.intersection(*(set(equal_axes(t)) for t in energies))
    joined = []
    for t in tensors:
        if is_energy(t):
            joined.append(t)
            continue
        constant = trace.coefficient(t).expand(t.shape)
        mean = constant.mean(sorted(axes), keepdim=True) if axes else constant
        joined.append(widen(mean, t.shape))
    return joined


@rule("reshape", "view", "unsafe_view")
def _reshape(_trace: EnergyTrace, x: Tensor, *shape: Any) -> Tensor:
    if len(shape) == 1 and not isinstance(shape[0], int):
        shape = tuple(shape[0])
    return reshape_compact(x, shape)


@rule("reshape_as", "view_as")
def _reshape_as(_trace: EnergyTrace, x: Tensor, other: Tensor) -> Tensor:
    return reshape_compact(x, other.shape)


@rule("flatten")
def _flatten(_trace: EnergyTrace, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % x.ndim, end_dim % x.ndim
    merged = math.prod(x.shape[start : end + 1])
    return reshape_compact(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


@rule("roll")
def _roll(_trace: EnergyTrace, x: Tensor, shifts: Any, dims: Any = None, **_: Any) -> Tensor:
    if dims is None:
        return torch.roll(x, shifts)
    return widen(torch.roll(compress(x), shifts, dims), x.shape)


@rule("flip")
def _flip(_trace: EnergyTrace, x: Tensor, *dims: Any) -> Tensor:
    axes = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return widen(torch.flip(compress(x), axes), x.shape)


@rule("repeat_interleave")
def _repeat_interleave(
    _trace: EnergyTrace, x: Tensor, repeats: Any, dim: int | None = None, **_: Any
) -> Tensor:
    if dim is None or not isinstance(repeats, int):
        return x.repeat_interleave(repeats, dim)
    shape = list(x.shape)
    shape[dim] *= repeats
    small = compress(x)
    return widen(small if small.shape[dim] == 1 else small.repeat_interleave(repeats, dim), shape)


@rule("pad")
def _pad(
    _trace: EnergyTrace,
    input: Tensor,  # noqa: A002 - torch's name
    pad: Sequence[int],
    mode: str = "constant",
    value: float | None = None,
) -> Tensor:
    """Padded units have no energy, whatever their value; reflected ones that of their source."""
    touched = [input.ndim - 1 - i // 2 for i, n in enumerate(pad) if n]
    small = compress(input, [d for d in equal_axes(input) if d not in touched])
    out = F.pad(small, list(pad), mode=mode) if mode != "constant" else F.pad(small, list(pad))
    shape = [
        o if d in touched else n
        for d, (o, n) in enumerate(zip(out.shape, input.shape, strict=True))
    ]
    out = widen(out, shape)
    axes_of_map = input.ndim - 2
    if value == -math.inf and len(pad) <= 2 * axes_of_map:
        out.real_units = F.pad(real_units(input, axes_of_map), list(pad))  # type: ignore[attr-defined]
    found, axes = history_of(input), map_axes(input)
    if found is None or axes is None or not set(touched) <= set(axes):
        return out
    before_after = {input.ndim - 1 - i: (pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2)}
    rows, columns = (before_after.get(axis, (0, 0)) for axis in axes)
    found = found.regridded((input.shape[axes[0]], input.shape[axes[1]]))
    return with_history(out, found.after_padding((rows, columns)))


@rule("getitem")
def _getitem(_trace: EnergyTrace, x: Tensor, index: Any) -> Tensor:
    """A crop of the spatial axes, or, with a step, a window of one unit."""
    out = index_compact(x, index)
    found, axes = history_of(x), map_axes(x)
    if found is None or axes is None or out.ndim != 4 or not isinstance(index, tuple):
        return out
    slices = _slices(index)
    if slices is None:
        return out
    found = found.regridded((x.shape[axes[0]], x.shape[axes[1]]))
    (top, _, row_step), (left, _, column_step) = (slices[a].indices(x.shape[a]) for a in axes)
    rows, columns = out.shape[axes[0]], out.shape[axes[1]]
    if (row_step, column_step) == (1, 1):
        below, right = found.grid[0] - top - rows, found.grid[1] - left - columns
        crop = found.after_padding(((-top, -below), (-left, -right)))
        return with_history(out, replace(crop, padded=None))
    windows = (
        LayerWindow(stride=row_step, before=-top),
        LayerWindow(stride=column_step, before=-left),
    )
    return with_history(out, found.after(windows, (rows, columns)))


def _slices(index: tuple[Any, ...]) -> list[slice] | None:
    """The slices of an index into four axes, or None if the index is not a plain crop."""
    if any(i is Ellipsis for i in index):
        at = next(k for k, i in enumerate(index) if i is Ellipsis)
        index = (*index[:at], *(slice(None),) * (5 - len(index)), *index[at + 1 :])
    slices = [*index, *(slice(None),) * (4 - len(index))]
    return slices if all(isinstance(i, slice) for i in slices) else None


@rule("chunk")
def _chunk(_trace: EnergyTrace, x: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    return _pieces(x, x.detach().chunk(chunks, dim), dim)


@rule("split", "split_with_sizes")
def _split(_trace: EnergyTrace, x: Tensor, sizes: Any, dim: int = 0) -> tuple[Tensor, ...]:
    return _pieces(x, x.detach().split(sizes, dim), dim)


def _pieces(x: Tensor, parts: Sequence[Tensor], dim: int) -> tuple[Tensor, ...]:
    """Cut `x` along `dim` as `parts` were."""
    before = (slice(None),) * (dim % x.ndim)
    pieces, start = [], 0
    for part in parts:
        stop = start + part.shape[dim]
        pieces.append(index_compact(x, (*before, slice(start, stop))))
        start = stop
    return tuple(pieces)


@rule("unbind")
def _unbind(_trace: EnergyTrace, x: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    before = (slice(None),) * (dim % x.ndim)
    return tuple(index_compact(x, (*before, i)) for i in range(x.shape[dim]))


@rule("select")
def _select(_trace: EnergyTrace, x: Tensor, dim: int, index: int) -> Tensor:
    return index_compact(x, (*(slice(None),) * (dim % x.ndim), index))


@rule("setitem")
def _setitem(trace: EnergyTrace, x: Tensor, index: Any, value: Any) -> None:
    """Write in place; if equal entries share storage this is impossible, and `x` is marked."""
    if is_energy(x) and equal_axes(x):
        x.lost_entries = True  # type: ignore[attr-defined]
    elif is_energy(value) or not is_energy(x):
        x[index] = value
    else:
        x[index] = constant_energy(trace, value)
