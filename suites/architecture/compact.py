"""One channel standing for all: tensors whose equal entries are stored once.

A *wide* tensor is an expanded view (stride 0 along some axes) of a *narrow* one (size 1 there).
Random weights of equal variance make all channels of a layer alike, so energies stay narrow along
the channels and the cost of a pass does not depend on the width of the network. Everything here is
differentiable, and gradients stay narrow too.

Where layers are joined side by side, channels are equal in *runs*, and stored once for each. The
tensor that stands for them has the shape of the whole and wrong entries: whoever takes such tensors
reads `runs_of`, or has them `expand` out, as `narrow` and `alias` do.
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

_BASE = "narrow_base"

_RUNS = "narrow_runs"


class _Compress(torch.autograd.Function):
    """Keep the first entry along zero-stride axes; the gradient is shared among the equal ones."""

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
    """Channels equal in runs: one of each, (batch, runs, height, width), and how many they are."""

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
        """What stands for them, (batch, channels, height, width)."""
        wide = self.each[:, :1].expand(-1, sum(self.counts), -1, -1)
        setattr(wide, _RUNS, self)
        return wide


def channel_runs(x: Tensor) -> ChannelRuns | None:
    """The runs that `x` stands for, if it does."""
    return getattr(x, _RUNS, None)


def annotate(x: Tensor, like: Tensor) -> Tensor:
    """`x`, with what others noted on `like`: its attributes, less those of how it is stored."""
    stored = (_BASE, _RUNS)
    vars(x).update({name: note for name, note in vars(like).items() if name not in stored})
    return x


def expand(x: Any) -> Any:
    """The tensor with all its channels where `x` stands for runs; anything else as it is."""
    runs = channel_runs(x) if isinstance(x, Tensor) else None
    if runs is None:
        return x
    whole = annotate(runs.expanded.view_as(runs.expanded), x)
    vars(whole).pop("mix", None)  # which is of one channel a run
    return whole


def equal_axes(x: Tensor) -> tuple[int, ...]:
    """Axes along which all entries are known to be equal because they share storage."""
    return tuple(d for d, (n, s) in enumerate(zip(x.shape, x.stride(), strict=True)) if n > 1 > s)


def compress(x: Tensor, axes: Sequence[int] | None = None) -> Tensor:
    """Store equal entries once: size 1 along `axes`, by default along all equal axes."""
    x = expand(x)
    base: Tensor | None = getattr(x, _BASE, None)
    equal = equal_axes(x)
    chosen = equal if axes is None else tuple(d for d in equal if d in axes)
    if base is not None and chosen == equal:
        return base
    small: Tensor = _Compress.apply(x, chosen) if chosen else x
    return small


def widen(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Expand `x` to `shape` without a copy, and remember the narrow tensor."""
    if x.shape == tuple(shape):
        return x
    x = compress(x)
    wide = x.expand(*shape)
    setattr(wide, _BASE, x)
    return wide


def alias(x: Tensor) -> Tensor:
    """Give another tensor object with the same entries."""
    runs = channel_runs(x)
    if runs is not None:
        return runs.tensor()
    base = getattr(x, _BASE, None)
    return x.view_as(x) if base is None else widen(base, x.shape)


def pointwise(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """Apply an entry-by-entry function with broadcasting, on the narrow tensors."""
    shape = torch.broadcast_shapes(*(t.shape for t in tensors))
    return widen(function(*(compress(t) for t in tensors)), shape)


def reshape_compact(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Reshape; equal axes that merge or split only among themselves stay narrow, uncopied."""
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
    """The smallest runs of axes of `old` and of `new`, in order, that hold equally many entries."""
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
    """Replace a -1 in `shape` by the size it stands for."""
    known = 1
    for n in shape:
        known *= n if n != -1 else 1
    return [x.numel() // known if n == -1 else int(n) for n in shape]


def cat_compact(tensors: Sequence[Tensor], axis: int) -> Tensor:
    """Concatenate; axes that are equal in all `tensors` stay narrow."""
    axis %= tensors[0].ndim
    axes = set(range(tensors[0].ndim)) - {axis}
    for t in tensors:
        axes &= {*equal_axes(t), *(d for d, n in enumerate(t.shape) if n == 1)}
    joined = torch.cat([compress(t, sorted(axes)) for t in tensors], axis)
    shape = [joined.shape[d] if d == axis else tensors[0].shape[d] for d in range(tensors[0].ndim)]
    return widen(joined, shape)


def index_compact(x: Tensor, index: Any) -> Tensor:
    """Index `x`; along equal axes any entry stands for the others."""
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
    """Write an ellipsis out as the full slices it stands for."""
    at = next((k for k, item in enumerate(items) if item is Ellipsis), None)
    if at is None:
        return items
    named = sum(item is not None for item in items) - 1
    return [*items[:at], *[slice(None)] * (axes - named), *items[at + 1 :]]


def compress_uniform(x: Tensor) -> Tensor:
    """Narrow a constant whose entries all have one value, such as a scale of ones."""
    x = compress(x)
    if x.numel() < 2:
        return x
    first = x.flatten()[:1]
    return first.reshape([1] * x.ndim) if bool((x == first).all()) else x


def gather_compact(x: Tensor, index: Tensor) -> Tensor:
    """Entries of `x` along its first axis; what is equal along the others stays narrow."""
    shape = (*index.shape, *x.shape[1:])
    small = compress_uniform(x)
    if small.shape[0] == 1 < x.shape[0]:
        return widen(small.reshape(*[1] * index.ndim, *small.shape[1:]), shape)
    axes = [d for d in equal_axes(x) if d > 0]
    return widen(compress(x, axes)[index], shape)
