"""Functions of torch that join, split, place and choose entries, written out by others.

See `written_out`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adapters.errors import NotApplicableError
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _at_least(axes: int) -> Callable[..., Any]:
    """`torch.atleast_1d` and so on: new axes of size 1, in 3d the last behind the others."""

    def widened(*given: Any) -> Any:
        tensors = given[0] if len(given) == 1 and not isinstance(given[0], Tensor) else given
        found = [_with_axes(t, axes) for t in tensors]
        return found[0] if isinstance(given[0], Tensor) and len(given) == 1 else tuple(found)

    return widened


def _with_axes(t: Tensor, axes: int) -> Tensor:
    if axes == 3 and t.ndim < 3:
        return _with_axes(t, 2).unsqueeze(-1)
    return t.reshape([1] * (axes - t.ndim) + list(t.shape)) if t.ndim < axes else t


def _stacked(axes: int, axis: int) -> Callable[..., Tensor]:
    def joined(tensors: Sequence[Tensor], **_: Any) -> Tensor:
        whole = [_with_axes(t, axes) for t in tensors]
        return torch.cat(whole, 0 if whole[0].ndim == 1 else axis)

    return joined


def _columns(tensors: Sequence[Tensor], **_: Any) -> Tensor:
    return torch.cat([t.reshape(t.numel(), 1) if t.ndim < 2 else t for t in tensors], 1)


def _diagonal_blocks(*tensors: Tensor) -> Tensor:
    blocks = [_with_axes(t, 2) for t in tensors]
    total, left, rows = sum(t.shape[1] for t in blocks), 0, []
    for t in blocks:
        rows.append(F.pad(t, (left, total - left - t.shape[1])))
        left += t.shape[1]
    return torch.cat(rows, 0)


def _splitter(axis: int) -> Callable[..., Sequence[Tensor]]:
    def split(x: Tensor, pieces: Any) -> Sequence[Tensor]:
        return torch.tensor_split(x, pieces, dim=0 if x.ndim == 1 else axis)

    return split


def _placed(x: Tensor, values: Tensor, dim: int, places: Sequence[int]) -> Tensor:
    """`x` with the entries of `values` in its `places` along `dim`, the last of several in one."""
    chosen = list(range(x.shape[dim]))
    for n, place in enumerate(places):
        chosen[place] = x.shape[dim] + n
    return torch.cat([x, values], dim).index_select(dim, torch.tensor(chosen))


def _index_copy(x: Tensor, dim: int, index: Tensor, source: Tensor) -> Tensor:
    return _placed(x, source, dim, index.tolist())


def _slice_scatter(
    x: Tensor, src: Tensor, dim: int = 0, start: Any = None, end: Any = None, step: int = 1
) -> Tensor:
    places = range(x.shape[dim])[slice(start, end, step)]
    return _placed(x, src, dim, places)


def _select_scatter(x: Tensor, src: Tensor, dim: int, index: int) -> Tensor:
    return _placed(x, src.unsqueeze(dim), dim, [index % x.shape[dim]])


def _index_fill(x: Tensor, dim: int, index: Tensor, value: Any) -> Tensor:
    shape = [1] * x.ndim
    shape[dim] = -1
    among = torch.isin(torch.arange(x.shape[dim]), index % x.shape[dim])
    return torch.masked_fill(x, among.view(shape), value)


def _index_add(x: Tensor, dim: int, index: Tensor, source: Tensor, *, alpha: float = 1) -> Tensor:
    """Sums of the entries of `source` that go to one place, as a product with a matrix."""
    if not is_energy(source):
        return torch.add(x, torch.zeros_like(x))  # constants vanish
    goes = F.one_hot(index % x.shape[dim], x.shape[dim]).to(torch.float64)
    moved = torch.matmul(source.movedim(dim, -1), goes).movedim(-1, dim)
    return torch.add(x, torch.mul(moved, alpha))


def _index_put(
    x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool = False
) -> Tensor:
    """`x`, into which `values` are written, of several in one place the last."""
    if accumulate:
        raise NotApplicableError("it adds to the entries of several places")
    found = x.clone() if is_energy(x) else x.to(torch.float64, copy=True)
    found[tuple(slice(None) if i is None else i for i in indices)] = values
    return found


def _scatter_add(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """The same where the index is that of whole slices."""
    return _index_add(x, dim, _line(x, dim, index, src), src)


def _scatter(x: Tensor, dim: int, index: Tensor, src: Any, *, reduce: Any = None) -> Tensor:
    if reduce is not None or not isinstance(src, Tensor):
        raise NotApplicableError("it scatters a number, or multiplies")
    places = _line(x, dim, index, src)
    if len(places.unique()) < len(places):
        raise NotApplicableError("several entries go to one place")
    return _index_copy(x, dim, places, src)


def _line(x: Tensor, dim: int, index: Tensor, src: Tensor) -> Tensor:
    """The places along `dim` where `index` has the same ones in all lines."""
    line = index.movedim(dim, -1).reshape(-1, index.shape[dim])
    others = [d for d in range(x.ndim) if d != dim % x.ndim]
    whole = index.shape == src.shape and all(src.shape[d] == x.shape[d] for d in others)
    if is_energy(index) or not whole or bool((line != line[:1]).any()):
        raise NotApplicableError("its places differ from line to line, or are those of a part")
    return line[0]


def _take(x: Tensor, index: Tensor) -> Tensor:
    return x.flatten().index_select(0, index.flatten()).reshape(index.shape)


def _masked_select(x: Tensor, mask: Tensor) -> Tensor:
    if is_energy(mask):
        raise NotApplicableError("its mask depends on the image")
    shape = torch.broadcast_shapes(x.shape, mask.shape)
    places = mask.expand(shape).flatten().nonzero().flatten()
    return x.expand(shape).flatten().index_select(0, places)


def _broadcast(*tensors: Any) -> list[Tensor]:
    whole = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
    shape = torch.broadcast_shapes(*(t.shape for t in whole))
    return [t.expand(shape) for t in whole]


def _grids(*tensors: Any, indexing: str = "ij") -> list[Tensor]:
    lines = tensors[0] if len(tensors) == 1 and not isinstance(tensors[0], Tensor) else tensors
    shape = [t.numel() for t in lines]
    found = [
        t.reshape([-1 if d == k else 1 for d in range(len(lines))]).expand(shape)
        for k, t in enumerate(lines)
    ]
    return [t.transpose(0, 1) for t in found] if indexing == "xy" and len(lines) > 1 else found


def _shifted(x: Tensor, pad: Sequence[int], value: float = 0) -> Tensor:
    return F.pad(x, list(pad), value=value)


MOVES_WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "atleast_1d": _at_least(1),
    "atleast_2d": _at_least(2),
    "atleast_3d": _at_least(3),
    "hstack": _stacked(1, 1),
    "vstack": _stacked(2, 0),
    "row_stack": _stacked(2, 0),
    "dstack": _stacked(3, 2),
    "column_stack": _columns,
    "block_diag": _diagonal_blocks,
    "hsplit": _splitter(1),
    "vsplit": _splitter(0),
    "dsplit": _splitter(2),
    "unsafe_chunk": lambda x, chunks, dim=0: torch.chunk(x, chunks, dim),
    "unsafe_split": lambda x, sizes, dim=0: torch.split(x, sizes, dim),
    "unsafe_split_with_sizes": lambda x, split_sizes, dim=0: torch.split(x, split_sizes, dim),
    "narrow_copy": lambda x, dim, start, length: x.narrow(dim, start, length),
    "broadcast_to": lambda x, size: x.expand(size),
    "broadcast_tensors": _broadcast,
    "meshgrid": _grids,
    "ravel": lambda x: x.flatten(),
    "adjoint": lambda x: x.transpose(-2, -1),
    "constant_pad_nd": _shifted,
    "index_copy": _index_copy,
    "index_fill": _index_fill,
    "index_put": _index_put,
    "index_add": _index_add,
    "scatter": _scatter,
    "scatter_add": _scatter_add,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
    "take": _take,
    "masked_select": _masked_select,
    **dict.fromkeys(("real", "conj", "resolve_conj", "resolve_neg"), lambda x: x),  # of no complex
    "zero": lambda x: torch.zeros_like(x),
    "fill": lambda x, value: torch.full_like(x, float(value)),
}
"""By the name of the function in torch, without underscores at its ends."""
