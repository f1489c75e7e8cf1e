"""Where the units of a tensor lie in a tensor that they were moved from, axis by axis."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain, product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .compact import equal_axes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

Places = tuple["Sequence[int] | None", ...]
"""Per axis, the places in a root of the entries along it; -1 for none, None if not known."""

ANYWHERE: Places = ()
"""Places that are not known along any axis."""

Ways = tuple[Places, ...]
"""The places of the several entries of a root that each entry comes from."""

MOST_WAYS = 32
"""Most ways that are kept apart."""


@dataclass(frozen=True, eq=False)
class Root:
    """A tensor that another one comes from, and the places in it.

    An entry of the other one comes from those at its place in each of the `ways`: a sum of two
    parts of a root has two. The root itself comes from the tensors `under` it, by their ids: each
    unit from one of its own, in the ways given there.
    """

    tensor: Tensor
    ways: Ways
    under: Mapping[int, tuple[Tensor, Ways]] = field(default_factory=dict)

    @property
    def sources(self) -> dict[int, Ways]:
        """The ways from the root and from the tensors under it, by their ids."""
        return {id(self.tensor): self.ways, **{key: w for key, (_, w) in self.under.items()}}


Roots = dict[int, Root]
"""What a tensor comes from, by the ids of the roots."""


def common_places(a: Roots, b: Roots) -> list[tuple[Places, Places]]:
    """The places of two tensors in each tensor that both come from."""
    pairs = [pair for key in a.keys() & b.keys() for pair in product(a[key].ways, b[key].ways)]
    across = [(m.sources, n.sources) for k, m in a.items() for j, n in b.items() if k != j]
    return pairs + [
        (ANYWHERE, ANYWHERE)
        for m, n in across
        if any(overlap(*p) for key in m.keys() & n.keys() for p in product(m[key], n[key]))
    ]


def all_places(t: Tensor) -> Places:
    """The places of a tensor's own entries."""
    return tuple(range(n) for n in t.shape)


def chosen(t: Tensor, choose: Callable[[Tensor], Any]) -> Places:
    """The places in `t` of what a move gives."""
    return tuple(_along(t, axis, choose) for axis in range(t.ndim))


def _along(t: Tensor, axis: int, choose: Callable[[Tensor], Any]) -> Sequence[int] | None:
    """The places along one axis; None if they depend on those along the others."""
    numbers = torch.arange(t.shape[axis]).view(-1, *(1,) * (t.ndim - 1 - axis))
    found = choose(numbers.expand(t.shape))
    if found.ndim != t.ndim or not found.numel():
        return None
    same = [d for d in equal_axes(found) if d != axis]
    small = found[tuple(slice(0, 1) if d in same else slice(None) for d in range(t.ndim))]
    line = small.movedim(axis, 0).reshape(small.shape[axis], -1)
    return tuple(line[:, 0].tolist()) if bool((line == line[:, :1]).all()) else None


def within(places: Places, taken: Places) -> Places:
    """The places of entries that were taken at `taken` from a tensor with `places`."""
    if len(places) != len(taken):
        return ANYWHERE
    return tuple(
        None if p is None or t is None else tuple(p[n] for n in t)
        for p, t in zip(places, taken, strict=True)
    )


def without(places: Places, axes: Sequence[int] | None) -> Places:
    """The same, unknown along `axes` (None: all), as of sums over them."""
    if axes is None:
        return ANYWHERE
    return tuple(None if axis in axes else line for axis, line in enumerate(places))


def at_once(parts: Sequence[Places]) -> Places:
    """The places of entries that come from several places each, known where these agree."""
    if len({len(p) for p in parts}) > 1:
        return ANYWHERE
    return tuple(
        line[0] if all(_same(line[0], other) for other in line[1:]) else None
        for line in zip(*parts, strict=True)
    )


def all_ways(parts: Sequence[Ways]) -> Ways:
    """The ways of a sum of tensors with those of the `parts`; as one if they are too many."""
    found: list[Places] = []
    for places in chain.from_iterable(parts):
        known = (len(places) == len(p) and all(map(_same, places, p)) for p in found)
        if not any(known):
            found.append(places)
    return tuple(found) if len(found) <= MOST_WAYS else (at_once(found),)


def in_a_row(parts: Sequence[Places | None], sizes: Sequence[int], axis: int) -> Places:
    """The places of parts that are joined along `axis`, of these `sizes`; None is elsewhere."""
    found = list(at_once([p for p in parts if p is not None]))
    if found:
        lines = [(-1,) * n if p is None else p[axis] for p, n in zip(parts, sizes, strict=True)]
        known = [n for line in lines if line is not None for n in line]
        found[axis] = None if None in lines else tuple(known)
    return tuple(found)


def written(part: Places, taken: Places, sizes: Sequence[int]) -> Places:
    """The places of entries that were written to `taken` in a tensor of these `sizes`."""
    if len(part) != len(taken) or None in taken:
        return ANYWHERE
    lines: list[Sequence[int] | None] = []
    for line, into, size in zip(part, taken, sizes, strict=True):
        known = dict(zip(into or (), line or (), strict=False))
        lines.append(None if line is None else tuple(known.get(n, -1) for n in range(size)))
    return tuple(lines)


def over(old: Places, new: Places) -> Places:
    """The places of a tensor with `old` ones into which entries with the `new` ones are written."""
    if len(old) != len(new) or sum(not _same(a, b) for a, b in zip(old, new, strict=True)) > 1:
        return at_once([old, new])
    return tuple(
        None
        if a is None or b is None
        else tuple(j if j >= 0 else i for i, j in zip(a, b, strict=True))
        for a, b in zip(old, new, strict=True)
    )


def all_over(old: Ways, new: Ways) -> Ways:
    """The same of tensors with several ways, of which all of the old ones remain."""
    if len(old) == len(new) == 1:
        return (over(old[0], new[0]),)
    return all_ways([old, new])


def _same(a: Sequence[int] | None, b: Sequence[int] | None) -> bool:
    return a == b or (a is not None and b is not None and tuple(a) == tuple(b))


def meet(a: Places, b: Places) -> bool:
    """Whether entries in the same place of two tensors may be one entry of their root."""

    def do(m: Sequence[int] | None, n: Sequence[int] | None) -> bool:
        if m is None or n is None or len(m) != len(n):
            return _overlap(m, n)
        return m == n or any(i == j != -1 for i, j in zip(m, n, strict=True))

    return len(a) != len(b) or all(map(do, a, b))


def overlap(a: Places, b: Places) -> bool:
    """Whether some entry of the root may be in both of two tensors."""
    return len(a) != len(b) or all(map(_overlap, a, b))


def _overlap(a: Sequence[int] | None, b: Sequence[int] | None) -> bool:
    return a is None or b is None or a == b or bool((set(a) & set(b)) - {-1})


def side_by_side(a: Places, b: Places, channels: int) -> bool:
    """Whether an entry of the root lies in other channels of two tensors, but in one place."""
    pairs = [pair for axis, pair in enumerate(zip(a, b, strict=False)) if axis != channels]
    known = len(a) == len(b) and all(None not in pair for pair in pairs)
    return channels > 0 and bool(pairs) and known and all(_same(*pair) for pair in pairs)


def in_other_channels(a: Places, b: Places, channels: int) -> bool:
    """Whether no channel of the root is in both of two tensors, wherever its units lie."""
    known = 0 < channels < min(len(a), len(b))
    return known and not _overlap(a[channels], b[channels])
