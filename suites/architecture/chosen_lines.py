"""The stride of a map whose lines were joined, or chosen by a stored index.

A border that repeats, reflects or wraps lines, written as joined slices or as an index, is a
padding: the lines between keep their step. So do those of a map that was cut and joined again.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .rule_table import history_of, spans_of
from .windows import History, LayerWindow, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .windows import Pair


def history_of_lines(name: str, out: Any, args: Sequence[Any], kwargs: Any) -> History | None:
    """The history of `out` if `name` joins or chooses lines of maps along an axis, else None."""
    if not isinstance(out, Tensor) or out.ndim != 4:
        return None
    if name in {"cat", "concat", "concatenate"}:
        parts = args[0] if args else kwargs["tensors"]
        return _of_joined(out, parts, args[1] if len(args) > 1 else kwargs.get("dim", 0))
    if name == "index_select":
        given = dict(zip(("dim", "index"), args[1:], strict=False)) | kwargs
        return _of_chosen(out, args[0], given["dim"], given["index"])
    if name == "getitem" and isinstance(args[1], tuple):
        axes = [axis for axis, i in enumerate(args[1]) if i != slice(None)]
        if len(axes) == 1 and isinstance(args[1][axes[0]], Tensor):
            return _of_chosen(out, args[0], axes[0], args[1][axes[0]])
    return None


def map_axes(x: Tensor) -> Pair | None:
    """The axes of `x` (four axes) that run over rows and columns; None if it has no such axes."""
    spans, found = spans_of(x), history_of(x)
    if x.ndim != 4 or found is None:
        return None
    for rows, columns in ((2, 3), (1, 2)):
        if spans is not None and spans.local():
            top, left = spans.aligned().interval[:2]
            along = top.shape[rows] in {1, x.shape[rows]} and left.shape[rows] == 1
            across = left.shape[columns] in {1, x.shape[columns]} and top.shape[columns] == 1
            if along and across and top.shape[rows] * left.shape[columns] > 1:
                return rows, columns
        elif found.grid == (x.shape[rows], x.shape[columns]):
            return rows, columns
    return None


def _axes_of_grid(x: Tensor) -> Pair | None:
    """The first two axes of `x` of the lengths of the grid that it has a history of."""
    found = history_of(x)
    fits = [a for a in ((2, 3), (1, 2)) if found and found.grid == (x.shape[a[0]], x.shape[a[1]])]
    return fits[0] if fits and x.ndim == 4 else None


def _own(x: Tensor, axis: int) -> tuple[History, int] | None:
    """The history of the map `x` and whether `axis` runs over its rows (0) or columns (1)."""
    found = history_of(x)
    axes = map_axes(x) or _axes_of_grid(x)  # with holes, places depend on both axes
    if found is None or axes is None or axis not in axes:
        return None
    return found.regridded((x.shape[axes[0]], x.shape[axes[1]])), axes.index(axis)


def _of_joined(out: Tensor, parts: Sequence[Tensor], dim: int) -> History | None:
    """That of the longest part, to which the others are a padding."""
    axis = dim % out.ndim
    known = [(t, own) for t in parts if (own := _own(t, axis)) is not None]
    length = max((t.shape[axis] for t, _ in known), default=0)
    longest = [own for t, own in known if t.shape[axis] == length]
    found = joined(history for history, _ in longest)
    return found and _padded(found, longest[0][1], out.shape[axis] - length)


def _of_chosen(out: Tensor, x: Tensor, dim: int, index: Tensor) -> History | None:
    """That of `x` with the step that most of the chosen lines have; None if most have none."""
    own = _own(x, dim % x.ndim)
    if own is None or index.ndim != 1 or index.is_floating_point() or len(index) < 2:
        return None
    steps = index.long().diff().abs()
    step = int(steps.mode().values)
    if step == 0 or 2 * int((steps == step).sum()) <= len(steps):
        return None
    found, place = own
    if step == 1:
        return _padded(found, place, out.shape[dim] - x.shape[dim])
    windows = [LayerWindow(stride=step if a == place else 1) for a in (0, 1)]
    grid = [len(index) if a == place else n for a, n in enumerate(found.grid)]
    return found.after(windows, (grid[0], grid[1]))


def _padded(found: History, place: int, more: int) -> History:
    """`found` with `more` lines at the end of its rows (0) or columns (1); fewer if negative."""
    pads = ((0, more if place == 0 else 0), (0, more if place == 1 else 0))
    return replace(found.after_padding(pads), padded=None)


def history_of_written(x: Tensor, index: Any, value: Any) -> History | None:
    """That of the map `value` in `x`, into which all of its lines are written side by side."""
    if not isinstance(value, Tensor) or value.ndim != 4 or x.ndim != 4:
        return None
    steps = [_step(i) for i in (index if isinstance(index, tuple) else (index,))]
    axes = map_axes(value) or _axes_of_grid(value)
    found = history_of(value)
    if found is None or axes is None or any(step != 1 for step in steps):
        return None
    found = found.regridded((value.shape[axes[0]], value.shape[axes[1]]))
    for place, axis in enumerate(axes):
        found = _padded(found, place, x.shape[axis] - value.shape[axis])
    return found


def _step(index: Any) -> int | None:
    """The step of a slice, or that between most of the places of an index; None for others."""
    if isinstance(index, slice):
        return index.step or 1
    if isinstance(index, Tensor) and index.ndim == 1 and index.dtype == torch.long:
        return int(index.diff().abs().mode().values) if len(index) > 1 else None
    return 1 if index is Ellipsis else None
