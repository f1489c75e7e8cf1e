"""Shapes, indexing and padding as ONNX defines them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...errors import ModelFileError
from ..graph import OperatorCall, integers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence


LIMIT = 2**31
"""Numbers a tensor made from a shape alone may have."""


def shape(call: OperatorCall, x: Tensor) -> Tensor:
    """The sizes of x, or a slice of them."""
    return torch.tensor(list(x.shape)[call.get("start", 0) : call.get("end")], dtype=torch.int64)


def reshape_operator(call: OperatorCall, x: Tensor, to: Tensor | None = None) -> Tensor:
    """New sizes; 0 copies the old one unless `allowzero`."""
    sizes = integers(call.get("shape") if to is None else to) or []
    if not call.get("allowzero"):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


def flatten(call: OperatorCall, x: Tensor) -> Tensor:
    """Two axes: all before `axis`, all from it on."""
    axis = call.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def transpose(call: OperatorCall, x: Tensor) -> Tensor:
    """Permute the axes; reverse them by default."""
    return x.permute(call.get("perm", list(range(x.ndim))[::-1]))


def squeeze(call: OperatorCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Drop axes of size 1."""
    over = integers(call.get("axes") if axes is None else axes)
    return x.squeeze() if over is None else x.squeeze(tuple(over))


def unsqueeze(call: OperatorCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """Insert axes of size 1, counted in the result."""
    over = integers(call.get("axes") if axes is None else axes) or []
    for axis in sorted(a % (x.ndim + len(over)) for a in over):
        x = x.unsqueeze(axis)
    return x


def concat(call: OperatorCall, *xs: Tensor) -> Tensor:
    """Join along an axis."""
    lead = next((x for x in xs if x.device.type != "cpu"), xs[0])
    return torch.cat([x.to(lead.device) for x in xs], call.get("axis"))


def split(call: OperatorCall, x: Tensor, sizes: Tensor | None = None) -> tuple[Tensor, ...]:
    """Cut along an axis, by sizes or into equal parts."""
    axis = call.get("axis", 0)
    parts = integers(call.get("split") if sizes is None else sizes)
    if parts is None:
        length, count = x.shape[axis], call.get("num_outputs", len(call.node.outputs))
        step = -(-length // count)
        parts = [max(min(step, length - i * step), 0) for i in range(count)]
    return torch.split(x, parts, axis)


def slicing(
    call: OperatorCall,
    x: Tensor,
    starts: Tensor | None = None,
    ends: Tensor | None = None,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    """Cut along several axes, also backwards."""
    first = integers(call.get("starts") if starts is None else starts) or []
    last = integers(call.get("ends") if ends is None else ends) or []
    over = integers(call.get("axes") if axes is None else axes) or list(range(len(first)))
    for axis, a, b, step in zip(
        over, first, last, integers(steps) or [1] * len(first), strict=True
    ):
        x = _cut(x, axis % x.ndim, a, b, step)
    return x


def _cut(x: Tensor, axis: int, start: int, end: int, step: int) -> Tensor:
    """One axis of a slice. Going backwards, an end before the first element means all."""
    length = x.shape[axis]
    if step > 0:
        a, b, s = slice(start, end, step).indices(length)
        return x[(slice(None),) * axis + (slice(a, max(b, a), s),)]
    places = range(*slice(start, end if end >= -length else None, step).indices(length))
    return x.index_select(axis, torch.tensor(list(places), dtype=torch.int64, device=x.device))


def gather_operator(call: OperatorCall, x: Tensor, places: Tensor) -> Tensor:
    """Take slices along an axis."""
    axis = call.get("axis", 0) % x.ndim
    index = _wrapped(places, x.shape[axis], x)
    if index.ndim == 0:
        return x.select(axis, int(index))
    taken = x.index_select(axis, index.flatten())
    return taken.reshape([*x.shape[:axis], *index.shape, *x.shape[axis + 1 :]])


def _wrapped(places: Tensor, length: int, x: Tensor) -> Tensor:
    """Indices on the device of x, negative ones counted from the end."""
    places = places.to(x.device).long()
    return torch.where(places < 0, places + length, places)


def gather_elements(call: OperatorCall, x: Tensor, places: Tensor) -> Tensor:
    """Take single elements along an axis."""
    axis = call.get("axis", 0)
    return torch.gather(x, axis, _wrapped(places, x.shape[axis], x))


def gather_nd(call: OperatorCall, x: Tensor, places: Tensor) -> Tensor:
    """Take slices by index tuples."""
    batch = call.get("batch_dims", 0)
    index = places.to(x.device).long()
    if batch == 0:
        return x[tuple(index.unbind(-1))]
    rows = [
        a[tuple(i.unbind(-1))]
        for a, i in zip(x.flatten(0, batch - 1), index.flatten(0, batch - 1), strict=True)
    ]
    stacked = torch.stack(rows)
    return stacked.reshape(*x.shape[:batch], *stacked.shape[1:])


def scatter_nd(call: OperatorCall, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """Replace slices by index tuples."""
    if call.get("reduction", "none") != "none":
        raise call.decline("ScatterND with a reduction")
    index = tuple(places.to(x.device).long().unbind(-1))
    return x.index_put(index, updates.to(x.device, x.dtype))


def scatter_elements(call: OperatorCall, x: Tensor, places: Tensor, updates: Tensor) -> Tensor:
    """Replace single elements along an axis."""
    if call.get("reduction", "none") != "none":
        raise call.decline("ScatterElements with a reduction")
    axis = call.get("axis", 0)
    return x.scatter(axis, _wrapped(places, x.shape[axis], x), updates.to(x.device, x.dtype))


def pad_operator(
    call: OperatorCall,
    x: Tensor,
    pads: Tensor | None = None,
    value: Tensor | None = None,
    axes: Tensor | None = None,
) -> Tensor:
    """Grow or crop each axis: constant, edge, reflect or wrap."""
    given = integers(call.get("pads") if pads is None else pads) or []
    over = integers(axes)
    over = list(range(x.ndim)) if over is None else over
    both = {a % x.ndim: (given[i], given[i + len(over)]) for i, a in enumerate(over)}
    mode = call.get("mode", "constant")
    if mode == "constant":
        fill = call.get("value", 0.0) if value is None or not value.numel() else value.item()
        flat = [n for axis in reversed(range(x.ndim)) for n in both.get(axis, (0, 0))]
        return F.pad(x, flat, value=fill) if any(flat) else x
    if _is_border_of_maps(x, both, mode):
        return F.pad(x, [*both.get(3, (0, 0)), *both.get(2, (0, 0))], mode=BORDERS[mode])
    for axis, (before, after) in both.items():
        if before or after:
            x = x.index_select(axis, _mirror(x.shape[axis], before, after, mode).to(x.device))
    return x


BORDERS = {"edge": "replicate", "reflect": "reflect", "wrap": "circular"}
"""Torch's names of the modes of `Pad`."""


def _is_border_of_maps(x: Tensor, both: Mapping[int, tuple[int, int]], mode: str) -> bool:
    """Whether torch pads maps `x` (batch, channels, rows, columns) so: no crop, on two axes."""
    if x.ndim != 4 or not x.is_floating_point():
        return False
    less = {"edge": -math.inf, "reflect": 1, "wrap": 0}[mode]
    return all(
        a in {2, 3} and min(ends) >= 0 and max(ends) <= x.shape[a] - less
        for a, ends in both.items()
        if any(ends)
    )


def _mirror(length: int, before: int, after: int, mode: str) -> Tensor:
    """Which element each place of a padded axis repeats."""
    places = torch.arange(-before, length + after)
    if mode == "edge":
        return places.clamp(0, length - 1)
    if mode == "wrap":
        return places % length
    turn = max(2 * (length - 1), 1)
    places = places % turn
    return torch.where(places >= length, turn - places, places)


def constant_of_shape(call: OperatorCall, to: Tensor) -> Tensor:
    """A tensor of one value. Raises `ModelFileError` for absurd shapes."""
    sizes = _bounded(call, integers(to) or [])
    value = call.get("value")
    if value is None:
        return torch.zeros(sizes, dtype=call.mode.dtype, device=call.mode.device)
    return torch.full(sizes, value.item(), dtype=value.dtype, device=value.device)


def _bounded(call: OperatorCall, sizes: Sequence[int]) -> Sequence[int]:
    if math.prod(sizes) > LIMIT:
        raise ModelFileError(f"{call.node.label()} makes a tensor of shape {list(sizes)}")
    return sizes


def value_range(call: OperatorCall, start: Tensor, limit: Tensor, delta: Tensor) -> Tensor:
    """Evenly spaced numbers. Raises `ModelFileError` for absurd counts."""
    a, b, step = start.item(), limit.item(), delta.item()
    _bounded(call, [math.ceil(abs((b - a) / step))])
    return torch.arange(a, b, step, dtype=start.dtype, device=start.device)


def eye_like(call: OperatorCall, x: Tensor) -> Tensor:
    """Ones on a diagonal."""
    like = torch.zeros(tuple(x.shape), dtype=call.mode.dtype)
    return like.diagonal_scatter(
        torch.ones(like.diagonal(call.get("k", 0)).shape), call.get("k", 0)
    )


def triangle(call: OperatorCall, x: Tensor, k: Tensor | None = None) -> Tensor:
    """Upper or lower triangle of each matrix."""
    cut = torch.triu if call.get("upper", 1) else torch.tril
    return cut(x, 0 if k is None else int(k))


def one_hot(call: OperatorCall, places: Tensor, depth: Tensor, values: Tensor) -> Tensor:
    """Indices to vectors of off and on values."""
    count = int(depth)
    hot = F.one_hot(places.long() % count, count).bool()
    return torch.where(hot, values[1], values[0]).movedim(-1, call.get("axis", -1))


SHAPE: dict[str, Callable[..., Any]] = {
    "Shape": shape,
    "Size": lambda _call, x: torch.tensor(x.numel()),
    "Reshape": reshape_operator,
    "Flatten": flatten,
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Concat": concat,
    "Split": split,
    "Slice": slicing,
    "Gather": gather_operator,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements,
    "Pad": pad_operator,
    "Expand": lambda _call, x, to: x.expand(torch.broadcast_shapes(x.shape, integers(to) or ())),
    "Tile": lambda _call, x, repeats: x.repeat(integers(repeats) or []),
    "ConstantOfShape": constant_of_shape,
    "Range": value_range,
    "EyeLike": eye_like,
    "Trilu": triangle,
    "NonZero": lambda _call, x: torch.nonzero(x).t(),
    "OneHot": one_hot,
}
