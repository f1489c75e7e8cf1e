"""Energy rules of functions that move, join, crop, pad or resample entries."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ..channel_runs import concatenate_runs
from ..compact import cat_compact, compress, equal_axes, index_compact, reshape_compact, widen
from ..rule_table import field_of, is_energy, rule, with_field
from ..windows import LayerWindow
from .sliding import axis_pair

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
    del value
    touched = [input.ndim - 1 - i // 2 for i, n in enumerate(pad) if n]
    small = compress(input, [d for d in equal_axes(input) if d not in touched])
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
        out.pending_padding = (found, found.grid, ((top, bottom), (left, right)))  # type: ignore[attr-defined]
        return with_field(out, found.cropped((-top, -left), grid))
    return out


@rule("getitem")
def _getitem(_trace: EnergyTrace, x: Tensor, index: Any) -> Tensor:
    """A crop of the spatial axes shifts the field; a strided slice is a window of one unit."""
    out = index_compact(x, index)
    found = field_of(x)
    if found is None or x.ndim != 4 or out.ndim != 4 or not isinstance(index, tuple):
        return out
    axes = (2, 3) if found.grid == tuple(x.shape[2:]) else (1, 2)
    slices = _slices(index)
    if slices is None or found.grid != tuple(x.shape[a] for a in axes):
        return out
    (top, _, row_step), (left, _, column_step) = (slices[a].indices(x.shape[a]) for a in axes)
    grid = (out.shape[axes[0]], out.shape[axes[1]])
    if (row_step, column_step) == (1, 1):
        return with_field(out, found.cropped((top, left), grid))
    windows = (
        LayerWindow(stride=row_step, before=-top),
        LayerWindow(stride=column_step, before=-left),
    )
    return with_field(out, found.after_layer(windows, grid))


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
def _setitem(_trace: EnergyTrace, x: Tensor, index: Any, value: Any) -> None:
    """Write in place; if equal entries share storage this is impossible, and `x` is marked."""
    if is_energy(x) and equal_axes(x):
        x.lost_entries = True  # type: ignore[attr-defined]
    else:
        x[index] = value


@rule("interpolate", "upsample")
def _interpolate(
    trace: EnergyTrace,
    input: Tensor,  # noqa: A002 - torch's name
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Tensor:
    """A fixed linear combination: squared coefficients, axis by axis."""
    del recompute_scale_factor
    if input.ndim != 4:
        raise NotApplicableError("only two-dimensional interpolation has an energy rule")
    scales = pair_of_floats(scale_factor) if size is None else (1.0, 1.0)
    have = input.shape[-2:]
    grid = (
        axis_pair(size)
        if size is not None
        else tuple(int(n * s) for n, s in zip(have, scales, strict=True))
    )
    small = compress(input, [d for d in equal_axes(input) if d < 2]).to(torch.float64)
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
    """A number, or one for each axis, as a pair."""
    first, second = (value, value) if isinstance(value, int | float) else value
    return float(first), float(second)


def _coefficients(have: int, want: int, **options: Any) -> Tensor:
    """The matrix (want, have) of a one-axis interpolation."""
    lines = torch.eye(have, dtype=torch.float64)[None].unsqueeze(-1)  # (1, have, have, 1)
    out = F.interpolate(lines, size=(want, 1), **options)
    return out[0, :, :, 0].T
