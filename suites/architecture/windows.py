"""Layers as seen from the input: windows, unread padding, and the fields of their units.

Pairs are (rows, columns); positions are input pixels, 0 the first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Pair = tuple[int, int]


@dataclass(frozen=True)
class LayerWindow:
    """One axis of a convolution or pooling: sizes in its input's units.

    `same` marks TensorFlow's SAME padding, which depends on the input's size; `scale` is above 1
    for an upsampling, and all other fields then have their defaults.
    """

    kernel: int = 1
    stride: int = 1
    before: int = 0
    after: int = 0
    dilation: int = 1
    ceil: bool = False
    same: bool = False
    scale: float = 1.0

    @property
    def extent(self) -> int:
        """Number of units from the first to the last that one window reads."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def keeps_size(self) -> bool:
        """Whether it keeps the number of units, for any input size."""
        filled = self.before + self.after == self.extent - 1
        return self.stride == 1 and self.scale == 1 and (filled or self.same)

    def size(self, n: int) -> int:
        """Number of windows that fit over `n` units."""
        if self.same:
            return -(-n // self.stride)
        spare = n + self.before + self.after - self.extent
        count = -(-spare // self.stride) if self.ceil else spare // self.stride
        if self.ceil and count * self.stride >= n + self.before:
            count -= 1  # a window must not start in the padding at the end
        return round((count + 1) * self.scale)

    def remainder(self, n: int) -> int:
        """Number of padded units after `n` units that no window reads; 0 is even (Alsallakh)."""
        if self.same:
            return 0
        unread = n + self.before + self.after - self.extent - (self.size(n) - 1) * self.stride
        return max(0, unread) if self.scale == 1 else 0

    def coverage(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of windows that read each input phase: (stride,)."""
        taps = np.arange(self.kernel) * self.dilation % self.stride
        return np.bincount(taps, minlength=self.stride)


@dataclass(frozen=True)
class Layer:
    """One convolution or pooling, in execution order.

    `sources` are, per axis, the windows between the input and this layer (along its first branch).
    """

    name: str
    kind: str
    windows: tuple[LayerWindow, LayerWindow]
    groups: int
    input_size: Pair
    output_size: Pair
    sources: tuple[tuple[LayerWindow, ...], tuple[LayerWindow, ...]]
    index: int = 0

    @property
    def strided(self) -> bool:
        """Whether its stride is above 1 along some axis."""
        return any(w.stride > 1 for w in self.windows)

    def coverage(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Number of windows that read each input phase: (row stride, column stride)."""
        rows, columns = (w.coverage() for w in self.windows)
        counts: np.ndarray[Any, np.dtype[np.int64]] = np.multiply.outer(rows, columns)
        return counts

    @property
    def even(self) -> bool:
        """Whether all input phases are read equally often."""
        return len(np.unique(self.coverage())) == 1

    def row(self) -> dict[str, Any]:
        """One line of the layer table."""
        rows, columns = self.windows
        return {
            "name": self.name,
            "kind": self.kind,
            "kernel": (rows.kernel, columns.kernel),
            "stride": (rows.stride, columns.stride),
            "padding_before": (rows.before, columns.before),
            "padding_after": (rows.after, columns.after),
            "dilation": (rows.dilation, columns.dilation),
            "groups": self.groups,
            "input": self.input_size,
            "output": self.output_size,
            "coverage": tuple(tuple(int(n) for n in w.coverage()) for w in self.windows),
        }


@dataclass(frozen=True)
class Field:
    """The receptive fields of the units of a tensor, and the windows passed on the way, per axis.

    Unit i of `grid` reads pixels low + i * stride to high + i * stride; `low` and `high` are None
    if only global paths lead to it.
    """

    grid: Pair
    stride: tuple[float, float] = (1.0, 1.0)
    low: tuple[float, float] | None = (0.0, 0.0)
    high: tuple[float, float] | None = (0.0, 0.0)
    global_: bool = False
    history: tuple[tuple[LayerWindow, ...], tuple[LayerWindow, ...]] = field(default=((), ()))

    def after_layer(self, windows: tuple[LayerWindow, LayerWindow], grid: Pair) -> Field:
        """Fields after one layer: r <- s r + (k - s), in interval form (Araujo et al. 2019)."""
        if self.low is None or self.high is None:
            return replace(self, grid=grid)
        low = _pair(v - w.before * s for v, w, s in self._axes(self.low, windows))
        high = _pair(
            v + (w.extent - 1 - w.before) * s for v, w, s in self._axes(self.high, windows)
        )
        stride = _pair(s * w.stride for s, w in zip(self.stride, windows, strict=True))
        return Field(grid, stride, low, high, self.global_, self._after(windows))

    def _after(
        self, windows: Iterable[LayerWindow]
    ) -> tuple[tuple[LayerWindow, ...], tuple[LayerWindow, ...]]:
        """The history with those of `windows` that change the size."""
        rows, columns = (
            h if w.keeps_size else (*h, w) for h, w in zip(self.history, windows, strict=True)
        )
        return rows, columns

    def _axes(
        self, values: tuple[float, float], windows: tuple[LayerWindow, LayerWindow]
    ) -> Iterable[tuple[float, LayerWindow, float]]:
        return zip(values, windows, self.stride, strict=True)

    def cropped(self, first: tuple[int, int], grid: Pair) -> Field:
        """Fields after a crop that starts at unit `first` (negative for a padding)."""
        if self.low is None or self.high is None:
            return replace(self, grid=grid)
        low, high = (
            _pair(v + f * s for v, f, s in zip(ends, first, self.stride, strict=True))
            for ends in (self.low, self.high)
        )
        windows = tuple(
            LayerWindow(before=-f, after=g - n + f)
            for f, g, n in zip(first, grid, self.grid, strict=True)
        )
        return replace(self, low=low, high=high, grid=grid, history=self._after(windows))

    def resized(self, grid: Pair, reach: float) -> Field:
        """Fields after an interpolation to `grid` that reads `reach` units on either side."""
        if self.low is None or self.high is None:
            return replace(self, grid=grid)
        scale = tuple(new / old for new, old in zip(grid, self.grid, strict=True))
        stride = _pair(s / f for s, f in zip(self.stride, scale, strict=True))
        # A new unit lies at most half an old and half a new unit from the centre of what it reads.
        spread = tuple(
            s * (reach if f == 1 else reach + abs(1 - 1 / f) / 2)
            for s, f in zip(self.stride, scale, strict=True)
        )
        shift = tuple((t - s) / 2 for t, s in zip(stride, self.stride, strict=True))
        low = _pair(v + a - b for v, a, b in zip(self.low, shift, spread, strict=True))
        high = _pair(v + a + b for v, a, b in zip(self.high, shift, spread, strict=True))
        history = self._after(LayerWindow(scale=f) for f in scale)
        return Field(grid, stride, low, high, self.global_, history)

    def regridded(self, grid: Pair) -> Field:
        """Fields after a reshape, slice or merge that changed the grid without a layer.

        A coarser grid is a window as long as the ratio (space to depth), a finer one its inverse.
        """
        if grid == self.grid or self.low is None or 0 in grid:
            return self
        if all(old % new == 0 for old, new in zip(self.grid, grid, strict=True)):
            ratios = [old // new for old, new in zip(self.grid, grid, strict=True)]
            rows, columns = (LayerWindow(kernel=r, stride=r) for r in ratios)
            return self.after_layer((rows, columns), grid)
        return self.resized(grid, 0.0)


def union(fields: Iterable[Field], shape: Sequence[int] = ()) -> Field | None:
    """Union of the fields of the branches that join in a tensor of `shape`; None without any.

    If their grids differ, as those of queries and keys may, only branches whose grid matches
    `shape` count, or else those with the coarsest grid.
    """
    fields = list(dict.fromkeys(fields))
    if len(fields) < 2:
        return fields[0] if fields else None
    anywhere = any(f.global_ for f in fields)
    local = [f for f in fields if f.low is not None]
    if not local:
        return replace(fields[0], global_=anywhere)
    first = max(local, key=lambda f: (_grid_match(shape, f.grid), f.stride))
    local = [f for f in local if f.grid == first.grid and f.stride == first.stride]
    low, high = (
        tuple(pick(getattr(f, end)[axis] for f in local) for axis in (0, 1))
        for end, pick in (("low", min), ("high", max))
    )
    return replace(first, low=_pair(low), high=_pair(high), global_=anywhere)


MAX_PREFIX_TOKENS = 5
"""Most tokens without a position (class, registers) that may precede those of the grid."""


def _grid_match(shape: Sequence[int], grid: Pair) -> int:
    """How well `shape` matches `grid`: 3 for maps, 2 or 1 for tokens, 0 for no match."""
    if grid in (tuple(shape[-2:]), tuple(shape[-3:-1])):
        return 3
    for rank, axis in ((2, -2), (1, -1)):
        spare = shape[axis] - grid[0] * grid[1] if len(shape) > 2 else -1
        if 0 <= spare <= MAX_PREFIX_TOKENS:
            return rank
    return 0


def _pair(values: Iterable[float]) -> tuple[float, float]:
    rows, columns = values
    return rows, columns
