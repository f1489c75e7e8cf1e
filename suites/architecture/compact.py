"""Compact storage: tensors whose equal entries are stored once.

A *full* tensor is an expanded view (stride 0 along some axes) of a *compact* one (size 1 there).
Random weights of equal variance give all channels of a layer the same energy, so energies stay
compact along the channels and the cost of a pass does not depend on the width of the network.
Everything here is differentiable, and gradients stay compact too.

Behind a concatenation of layers channels are equal in *runs*, and each run is stored once. The
tensor that represents them has the full shape, but its entries must not be read: use `channel_runs`
or `expand` first, as `compress` and `alias` do.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# The compact form is kept in an attribute of the tensor object: the objects pass through the user's
# forward code, which knows plain tensors only, so there is no other place for it. Operations of
# torch drop the attributes; then only strides of 0 show that entries are equal.
_BASE = "compact_base"  # on a full tensor: the compact tensor that it is a view of
_RUNS = "channel_runs"  # on a tensor that represents runs: its `ChannelRuns`
VIEWS_MADE = "views_made"  # on a tensor: weak references to the views of it, see `in_place`


class _Compress(torch.autograd.Function):
    """Keep the first entry along `axes`, whose entries are equal; these share the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, axes: tuple[int, ...]) -> Tensor:
        ctx.shape = x.shape
        return x[tuple(slice(0, 1) if d in axes else slice(None) for d in range(x.ndim))]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (gradient,) = gradients
        copies = ctx.shape.numel() // gradient.numel()
        return (gradient / copies).expand(ctx.shape), None


@dataclass(frozen=True)
class ChannelRuns:
    """Channels equal in runs: one of each, (batch, runs, height, width), and the runs' lengths."""

    each: Tensor
    counts: tuple[int, ...]

    @cached_property
    def expanded(self) -> Tensor:
        """All channels: (batch, channels, height, width)."""
        return self.each.repeat_interleave(torch.tensor(self.counts), 1)

    def mean(self) -> Tensor:
        """Mean over all channels: (batch, 1, height, width)."""
        counts = self.each.new_tensor(self.counts)
        return (self.each * (counts / counts.sum())[:, None, None]).sum(1, keepdim=True)

    def tensor(self) -> Tensor:
        """The tensor (batch, channels, height, width) that represents them; see the module."""
        full = self.each[:, :1].expand(-1, sum(self.counts), -1, -1)
        setattr(full, _RUNS, self)
        return full


def channel_runs(x: Tensor) -> ChannelRuns | None:
    """The runs that `x` represents, or None."""
    return getattr(x, _RUNS, None)


def annotate(x: Tensor, like: Tensor) -> Tensor:
    """Copy to `x` the attributes that others have set on `like`, such as its field; return `x`.

    Those of compact storage and the views of a tensor belong to one object and are not copied.
    """
    own = (_BASE, _RUNS, VIEWS_MADE)
    vars(x).update({name: value for name, value in vars(like).items() if name not in own})
    return x


def forget(x: Tensor, *names: str) -> None:
    """Take attributes off `x`, as they may be those of a tensor that it was copied from."""
    for name in names:
        vars(x).pop(name, None)


def expand(x: Any) -> Any:
    """The tensor with all channels if `x` represents runs; anything else unchanged."""
    runs = channel_runs(x) if isinstance(x, Tensor) else None
    if runs is None:
        return x
    return annotate(runs.expanded.view_as(runs.expanded), x)


def equal_axes(x: Tensor) -> tuple[int, ...]:
    """Axes along which all entries are equal because they share storage."""
    return tuple(d for d, (n, s) in enumerate(zip(x.shape, x.stride(), strict=True)) if n > 1 > s)


def compress(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """The compact form of `x`: size 1 along the equal axes, or along those of them in `axes`."""
    x = expand(x)
    base: Tensor | None = getattr(x, _BASE, None)
    equal = equal_axes(x)
    chosen = equal if axes is None else tuple(d for d in equal if d in axes)
    if base is not None and chosen == equal:
        return base
    small: Tensor = _Compress.apply(x, chosen) if chosen else x
    return small


def widen(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Expand `x` to `shape` without a copy, and remember the compact tensor."""
    if x.shape == tuple(shape):
        return x
    x = compress(x)
    full = x.expand(*shape)
    setattr(full, _BASE, x)
    return full


def node_of(x: Tensor) -> Any:
    """The node of autograd's graph through which all that is computed from `x` reads it."""
    runs = channel_runs(x)
    stored = getattr(x, _BASE, x) if runs is None else runs.each
    return stored.grad_fn


def nodes_behind(tensors: Sequence[Tensor]) -> set[Any]:
    """The nodes of autograd's graph that `tensors` were computed from, their own among them."""
    found: set[Any] = set()
    waiting = [node_of(t) for t in tensors]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found.add(node)
            waiting += [other for other, _ in node.next_functions]
    return found


def alias(x: Tensor) -> Tensor:
    """Another tensor object with the same entries."""
    runs = channel_runs(x)
    if runs is not None:
        return runs.tensor()
    base = getattr(x, _BASE, None)
    return x.view_as(x) if base is None else widen(base, x.shape)


def pointwise(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply an elementwise function with broadcasting, on the compact tensors."""
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    return widen(function(*(compress(t) for t in tensors)), shape)


def reshape_compact(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape; equal axes that are merged or split only among themselves stay compact."""
    shape = _resolve(x, shape)
    equal = equal_axes(x)
    axes: list[int] = []
    small = list(shape)
    fits = x.numel() == math.prod(shape) > 0
    for old, new in _blocks(x.shape, shape) if equal and fits else ():
        if all(d in equal or x.shape[d] == 1 for d in old):
            axes += [d for d in old if d in equal]
            for d in new:
                small[d] = 1
    return widen(compress(x, axes).reshape(small), shape) if axes else x.reshape(shape)


def _blocks(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Group the axes of `old` and `new` into the smallest consecutive blocks of equal size."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(old) or j < len(new):
        before, after = [i], [j]
        have, want = old[i] if i < len(old) else 1, new[j] if j < len(new) else 1
        while have != want:
            if have < want:
                before.append(before[-1] + 1)
                have *= old[before[-1]]
            else:
                after.append(after[-1] + 1)
                want *= new[after[-1]]
        blocks.append(([d for d in before if d < len(old)], [d for d in after if d < len(new)]))
        i, j = before[-1] + 1, after[-1] + 1
    return blocks


def _resolve(x: Tensor, shape: Sequence[int]) -> list[int]:
    """Replace a -1 in `shape` by the size that it implies."""
    known = math.prod(n for n in shape if n != -1)
    return [x.numel() // known if n == -1 else int(n) for n in shape]


def cat_compact(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate; axes that are equal in all `tensors` stay compact."""
    axis %= tensors[0].ndim
    axes = set(range(tensors[0].ndim)) - {axis}
    for t in tensors:
        axes &= {*equal_axes(t), *(d for d, n in enumerate(t.shape) if n == 1)}
    joined = torch.cat([compress(t, sorted(axes)) for t in tensors], axis)
    shape = [joined.shape[d] if d == axis else tensors[0].shape[d] for d in range(tensors[0].ndim)]
    return widen(joined, shape)


def index_compact(x: Tensor, index: Any) -> Tensor:
    """Index `x`, which stays compact along equal axes."""
    items = list(index) if isinstance(index, tuple) else [index]
    if not all(i is None or i is Ellipsis or type(i) in (int, slice) for i in items):
        return x[index]
    small = compress(x)
    shape = x.detach()[index].shape
    chosen: list[Any] = []
    axis = 0
    for item in _without_ellipsis(items, x.ndim):
        if item is None:
            chosen.append(None)
            continue
        equal = small.shape[axis] != x.shape[axis]
        chosen.append((0 if isinstance(item, int) else slice(None)) if equal else item)
        axis += 1
    return widen(small[tuple(chosen)], shape)


def _without_ellipsis(items: list[Any], axes: int) -> list[Any]:
    """Replace an ellipsis by the full slices that it abbreviates."""
    at = next((k for k, item in enumerate(items) if item is Ellipsis), None)
    if at is None:
        return items
    named = sum(item is not None for item in items) - 1
    return [*items[:at], *[slice(None)] * (axes - named), *items[at + 1 :]]


def compress_uniform(x: Tensor) -> Tensor:
    """The compact form of a constant; a single entry if all are equal, such as a scale of ones."""
    x = compress(x)
    if x.numel() < 2:
        return x
    first = x.flatten()[:1]
    return first.reshape([1] * x.ndim) if bool((x == first).all()) else x


def gather_compact(x: Tensor, index: Tensor) -> Tensor:
    """Entries `index` of `x` along its first axis; other equal axes stay compact."""
    shape = (*index.shape, *x.shape[1:])
    small = compress_uniform(x)
    if small.shape[0] == 1 < x.shape[0]:
        return widen(small.reshape(*[1] * index.ndim, *small.shape[1:]), shape)
    axes = [d for d in equal_axes(x) if d > 0]
    return widen(compress(x, axes)[index], shape)
