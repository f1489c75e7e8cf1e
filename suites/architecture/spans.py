"""The receptive field of every entry of a tensor, as intervals of input pixels.

Each entry has a first and a last row and column that a local path from the input to it reads. An
operation that moves entries moves their intervals with them; one that sums entries takes the union.
So the axes of a tensor need no names: the intervals show which of them run over rows and columns,
in any layout, within windows and among tokens.

Where windows reach into zero padding, the intervals go on beyond the image as evenly as they do
inside (Araujo et al. 2019); if they are uneven there, as after an interpolation, padding adds none.

A sum over a whole axis of the map (a mean, attention) is a *global* operation: the interval is then
empty, and `everywhere` records it, so that a union with a local branch has that branch's interval.

Entries that a fixed mask removes read nothing. They keep their interval, as a hole changes neither
the steps of the units around it nor what windows span; what is left of it is noted beside. Where
such entries meet others that are read, as in a sum of two masked branches or over a whole axis, the
interval is that of the latter.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .compact import compress, widen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..base import Array
    from .windows import History

EMPTY = float("inf")
"""The ends of an interval without pixels."""


Ends = tuple[Tensor, ...]
"""First row, first column, minus last row, minus last column: unions are least ends."""


@dataclass(frozen=True, eq=False)
class Spans:
    """Intervals of input pixels, one per entry of a tensor of `shape`.

    The ends of the `interval` broadcast to `shape`. Behind a mask, `unmasked` are the ends of what
    is read of it, `EMPTY` where that is nothing; None where no mask is on the way. `everywhere` if
    a global path leads to some entry.
    """

    shape: tuple[int, ...]
    interval: Ends
    everywhere: bool = False
    unmasked: Ends | None = None

    @property
    def read(self) -> Ends:
        """The ends of what is read: those of the interval where no mask is on the way."""
        return self.interval if self.unmasked is None else self.unmasked

    def masked(self) -> Spans:
        """The same as behind a mask, which may leave all of it."""
        return replace(self, unmasked=self.read)

    def mapped(self, function: Callable[[Ends], Ends], shape: Sequence[int] | None = None) -> Spans:
        """Apply a function to the four ends of the interval, and to those of what is read."""
        unmasked = None if self.unmasked is None else function(self.unmasked)
        shape = self.shape if shape is None else tuple(shape)
        return Spans(shape, function(self.interval), self.everywhere, unmasked)

    def each(
        self, function: Callable[[Tensor], Tensor], shape: Sequence[int] | None = None
    ) -> Spans:
        """Apply a function to every end, after which it broadcasts to `shape`: None, the same."""
        return self.mapped(lambda ends: tuple(function(end) for end in ends), shape)

    def wide(self) -> Spans:
        """The ends in full shape, as views in which equal entries share storage."""
        return self.aligned().each(lambda end: widen(end, self.shape))

    def aligned(self) -> Spans:
        """The same, every end with all the axes of `shape`."""
        return self.each(lambda end: end.reshape(_padded_shape(end, self.shape)))

    def moved(self, function: Callable[[Tensor], Any]) -> Any:
        """Spans of what `function` makes of a tensor, if it only moves, copies or drops entries.

        The result has the structure that `function` returns: one tensor or several.
        """
        wide = self.wide()
        interval = tuple(function(end) for end in wide.interval)
        read = None if wide.unmasked is None else tuple(function(end) for end in wide.unmasked)
        if isinstance(interval[0], Tensor):
            return self._of_wide(interval, read)
        reads = [None] * len(interval[0]) if read is None else zip(*read, strict=True)
        parts = zip(zip(*interval, strict=True), reads, strict=True)
        return [self._of_wide(*part) for part in parts]

    def _of_wide(self, interval: Ends, read: Ends | None) -> Spans:
        return Spans(tuple(interval[0].shape), interval, self.everywhere, read).each(narrow)

    def reduced(self, axes: Iterable[int], shape: Sequence[int]) -> Spans:
        """Spans of a sum over `axes`, which keep size 1; the result broadcasts to `shape`."""
        axes = list(axes)
        found = self.aligned()
        if axes:
            every = found.each(lambda end: end.amin(axes, keepdim=True))
            seen = found.of_read().each(lambda end: end.amin(axes, keepdim=True))
            found = seen.or_else(every)
        return self.settled(replace(found, shape=tuple(shape)))

    def of_read(self) -> Spans:
        """The same with intervals of the entries that are read alone."""
        if self.unmasked is None:
            return self
        unread = self.unmasked[0] == EMPTY
        found = tuple(torch.where(unread, EMPTY, end) for end in self.interval)
        return replace(self, interval=found)

    def or_else(self, other: Spans) -> Spans:
        """The same, with the intervals of `other` where they are empty."""
        pairs = zip(self.interval, other.interval, strict=True)
        found = tuple(a if a is b else narrow(torch.where(a < EMPTY, a, b)) for a, b in pairs)
        return replace(self, interval=found)

    def settled(self, result: Spans) -> Spans:
        """`result` of an operation on these spans; empty if all its entries read the whole map.

        They do if they are equal along all axes along which the entries of the map are apart. Those
        that read whole rows, or whole columns, keep their interval: a strip.
        """
        whole = []
        for axis in (0, 1):
            ends = [narrow(end) for end in result.aligned().interval[axis::2]]
            places = self.axes(axis)
            if places:
                whole.append(all(end.shape[d] == 1 for end in ends for d in places))
        return nowhere(result.shape) if whole and all(whole) else result

    def axes(self, axis: int) -> list[int]:
        """The axes of the tensor that run over the map's rows (`axis` 0) or columns (1).

        Along them both ends move the same way. Along the channels of layers with unlike kernels
        they move apart.
        """
        first, last = self.aligned().interval[axis::2]
        shape = torch.broadcast_shapes(first.shape, last.shape)
        first, last = first.expand(shape), last.expand(shape)
        return [
            d
            for d, size in enumerate(shape)
            if size > 1 and bool((first.diff(dim=d) * last.diff(dim=d) < 0).any())
        ]

    def extended(self, axis: int, before: int, after: int) -> Spans:
        """Spans of the tensor padded along `axis` by units that depend on nothing."""
        places = (self.axes(0), self.axes(1))
        spans = self.aligned()
        ends = tuple(
            extend(end, axis, before, after, places[i % 2]) for i, end in enumerate(spans.interval)
        )
        masked = spans.unmasked is not None
        unmasked = spans._read_beyond(ends, axis, before, after) if masked else None
        shape = list(self.shape)
        shape[axis] += before + after
        return Spans(tuple(shape), ends, self.everywhere, unmasked)

    def _read_beyond(self, extended: Ends, axis: int, before: int, after: int) -> Ends:
        """What is read of the intervals `extended`: all beyond entries of which all is read."""
        size = self.shape[axis]
        place = torch.arange(-before, size + after)
        inside = place.clamp(0, size - 1)
        beyond = (place != inside).reshape([-1 if d == axis else 1 for d in range(len(self.shape))])
        whole = reduce(
            torch.logical_and, (a == b for a, b in zip(self.interval, self.read, strict=True))
        )

        def along(end: Tensor) -> Tensor:
            return end if end.shape[axis] == 1 else end.index_select(axis, inside)

        padding = [torch.where(along(whole), end, EMPTY) for end in extended]
        return tuple(
            narrow(torch.where(beyond, new, along(end)))
            for new, end in zip(padding, self.read, strict=True)
        )

    def local(self) -> bool:
        """Whether a local path leads to some entry."""
        return bool((self.read[0] < EMPTY).any())


def _padded_shape(end: Tensor, shape: Sequence[int]) -> list[int]:
    return [1] * (len(shape) - end.ndim) + list(end.shape)


def narrow(end: Tensor) -> Tensor:
    """Keep one entry along the axes along which all are equal."""
    end = compress(end)
    for axis, size in enumerate(end.shape):
        first = end.narrow(axis, 0, 1) if size > 1 else end
        if size > 1 and bool((end == first).all()):
            end = first
    return end


def pixel_spans(shape: Sequence[int]) -> Spans:
    """Every pixel of an image (batch, channels, height, width) reads itself."""
    rows = torch.arange(shape[2], dtype=torch.float64)[:, None].expand(1, 1, -1, 1)
    columns = torch.arange(shape[3], dtype=torch.float64).expand(1, 1, 1, -1)
    return Spans(tuple(shape), (rows, columns, -rows, -columns))


def nowhere(shape: Sequence[int], *, everywhere: bool = True) -> Spans:
    """No local path; a global one unless `everywhere` is False, as for constants."""
    end = torch.full([1] * len(shape), EMPTY, dtype=torch.float64)
    return Spans(tuple(shape), (end,) * 4, everywhere)


def union(spans: Sequence[Spans], shape: Sequence[int]) -> Spans:
    """Spans of a function that works entry by entry, with broadcasting, on all of `spans`.

    Raises `RuntimeError` if they do not broadcast to `shape`.
    """
    found = _least(spans, shape)
    if found.unmasked is not None:
        parts = [s.masked().of_read() for s in spans]
        found = _least(parts, shape).or_else(found)
    for end in (*found.interval, *found.read):
        torch.broadcast_to(end, tuple(shape))  # raises where a function does not broadcast
    return found.aligned()


def _least(spans: Sequence[Spans], shape: Sequence[int]) -> Spans:
    return together(spans, lambda ends: reduce(torch.minimum, ends), shape)


def together(
    spans: Sequence[Spans], function: Callable[[Ends], Tensor], shape: Sequence[int]
) -> Spans:
    """Spans of `shape` of which every end is a function of this end of each of `spans`."""

    def of(parts: Iterable[Ends]) -> Ends:
        return tuple(function(ends) for ends in zip(*parts, strict=True))

    masked = any(s.unmasked is not None for s in spans)
    unmasked = of(s.read for s in spans) if masked else None
    everywhere = any(s.everywhere for s in spans)
    return Spans(tuple(shape), of(s.interval for s in spans), everywhere, unmasked)


def spans_where(condition: Tensor, parts: Sequence[Spans], shape: Sequence[int]) -> Spans:
    """Spans of the first of two parts where `condition` is true, else of the second.

    A constant that is chosen reads nothing and has the interval of the entry that it replaces.
    """
    found = together(
        [part.masked() for part in parts],
        lambda ends: torch.where(condition, ends[0], ends[1]),
        shape,
    )
    return found.or_else(_least(parts, shape)).aligned().each(narrow)


def extend(end: Tensor, axis: int, before: int, after: int, places: Sequence[int]) -> Tensor:
    """Pad `end` along `axis`, going on as evenly as it runs, or with `EMPTY`; negative: a crop.

    It goes on only at the borders of the map, of which `places` are the axes, and not at those of
    a window or patch within it.
    """
    size = end.shape[axis]
    if size == 1:
        return end  # all entries along this axis are equal
    steps = end.diff(dim=axis)
    pads = [0, 0] * (end.ndim - 1 - axis) + [before, after]
    if not bool((steps.isfinite() & (steps == steps.narrow(axis, 0, 1))).all()):
        return F.pad(end, pads, value=EMPTY)
    shape = [-1 if d == axis else 1 for d in range(end.ndim)]
    place = torch.arange(-before, size + after, dtype=end.dtype).reshape(shape)
    out = end.narrow(axis, 0, 1) + place * steps.narrow(axis, 0, 1)
    if axis not in places or set(places) == {axis}:
        return out
    least, most = end.amin(tuple(places), keepdim=True), end.amax(tuple(places), keepdim=True)
    for edge, beyond in ((0, place < 0), (size - 1, place >= size)):
        there = end.narrow(axis, edge, 1)
        out = out.masked_fill(beyond & (there != least) & (there != most), EMPTY)
    return out


def slide(end: Tensor, axis: int, *, taps: Sequence[int], stride: int, count: int) -> Tensor:
    """Least end in each of `count` windows along `axis`, already padded; `taps` are their units."""
    if end.shape[axis] == 1:
        return end  # all entries along this axis are equal
    reach = (count - 1) * stride + 1
    starts = torch.arange(0, reach, stride)
    return torch.stack([end.narrow(axis, t, reach).index_select(axis, starts) for t in taps]).amin(
        0
    )


def through(end: Tensor, axis: int, reads: Tensor) -> Tensor:
    """Least end among the entries along `axis` that each output reads: `reads` (out, in) of bool.

    An output that reads nothing is `EMPTY`.
    """
    if end.shape[axis] == 1:
        return end
    moved = end.movedim(axis, -1)
    rows = [
        moved[..., row].amin(-1) if bool(row.any()) else torch.full(moved.shape[:-1], EMPTY)
        for row in reads
    ]
    return torch.stack([row.to(end.dtype) for row in rows], -1).movedim(-1, axis)


@dataclass(frozen=True, eq=False)
class UnitSpans:
    """Receptive fields of the units of a grid, by first and last pixel along rows and columns.

    `low` and `high` are (2, rows, columns) of units, in pixels, masks left out of account; `size`
    (2, rows, columns) is the number of pixels that masks leave of them. `nominal` is the product of
    the strides on the way. `everywhere` if global paths lead to the units too.
    """

    low: Array
    high: Array
    size: Array
    nominal: tuple[float, float]
    everywhere: bool

    @property
    def central(self) -> tuple[int, int]:
        """The unit (floor(h/2), floor(w/2))."""
        return self.low.shape[1] // 2, self.low.shape[2] // 2

    def known(self) -> bool:
        """Whether local paths lead to the central unit, from pixels that a mask leaves."""
        return bool(np.isfinite(self.size[(slice(None), *self.central)]).all())

    def masked(self) -> bool:
        """Whether a mask leaves none of the pixels to which local paths lead from that unit."""
        reached = np.isfinite(self.low[(slice(None), *self.central)]).all()
        return bool(reached) and not self.known()

    def stride(self) -> tuple[float, float]:
        """Pixels between neighbouring units along (rows, columns), of a flipped map too."""
        rows, columns = self.steps()
        return abs(rows), abs(columns)

    def steps(self) -> tuple[float, float]:
        """Pixels from one unit to the next along (rows, columns), negative in a flipped map.

        Where the units are unevenly spaced, as after an interpolation, or reached by global paths
        only, it is the product of the strides on the way.
        """
        row, column = self.central
        rows = _spacing(self.low[0, :, column], self.high[0, :, column])
        columns = _spacing(self.low[1, row, :], self.high[1, row, :])
        return rows or self.nominal[0], columns or self.nominal[1]


def unit_spans(spans: Spans, history: History) -> UnitSpans:
    """Spans of the units of a target (variants, channels, rows, columns); channels are joined."""
    grid = (spans.shape[-2], spans.shape[-1])
    joined = spans.aligned().each(
        lambda end: end.reshape(-1, *end.shape[-2:]).amin(0).expand(grid), grid
    )
    low, high = _pixels(joined.interval)
    first, last = _pixels(joined.read)
    nominal = history.regridded(grid).stride()
    return UnitSpans(low, high, 1 + last - first, nominal, spans.everywhere)


def _pixels(ends: Ends) -> tuple[Array, Array]:
    """First and last pixels, (2, rows, columns) each."""
    return torch.stack(ends[:2]).numpy(), -torch.stack(ends[2:]).numpy()


def _spacing(low: Array, high: Array) -> float | None:
    """The step of both ends from unit to unit; None if it is not the same everywhere.

    A field that stops or goes on at a border, and so keeps the step at its other end only, counts.
    """
    centre = len(low) // 2
    if len(low) < 2 or not np.isfinite(low).all():
        return None
    step = float(low[centre] - low[centre - 1])
    place = np.arange(len(low)) - centre
    on_line = [ends == ends[centre] + place * step for ends in (low, high)]
    even = bool((on_line[0] | on_line[1]).all()) and all(line[centre - 1] for line in on_line)
    return step if even else None
