"""Layers as seen from the input: windows, unread padding, and the fields of their units.

Pairs are (rows, columns); positions are input pixels, 0 the first.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import lcm, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.torch_calls import each_axis

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...adapters.torch_calls import (
        Convolution,
        MaxPool,
        MeanPool,
        NormPool,
        TransposedConvolution,
    )

Pair = tuple[int, int]


def adaptive_windows(size: int, count: int) -> tuple[list[int], list[int]]:
    """The first of `size` units that each of `count` adaptive windows reads, and the one behind."""
    places = range(count)
    return [i * size // count for i in places], [-(-(i + 1) * size // count) for i in places]


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

    @property
    def overlap(self) -> bool:
        """Whether two windows read one unit."""
        return lcm(self.stride, self.dilation) <= self.dilation * (self.kernel - 1)

    def size(self, n: int) -> int:
        """Number of windows that fit over `n` units."""
        if self.same:
            return -(-n // self.stride)
        spare = n + self.before + self.after - self.extent
        count = -(-spare // self.stride) if self.ceil else spare // self.stride
        if self.ceil and count * self.stride >= n + self.before:
            count -= 1  # a window must not start in the padding at the end
        return round((count + 1) * self.scale)

    def unread_padding(self, n: int) -> int:
        """Number of padded units after `n` units that no window reads."""
        return min(self.remainder(n), max(0, self.after))

    def unread_units(self, n: int) -> int:
        """Number of the `n` units themselves, at their end, that no window reads."""
        return self.remainder(n) - self.unread_padding(n)

    def remainder(self, n: int) -> int:
        """Units at the end, padded or not, that no window reads; 0 is even (Alsallakh)."""
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
class Upsampling:
    """One transposed convolution."""

    name: str
    kernel: Pair
    stride: Pair
    dilation: Pair

    def counts(self) -> tuple[list[int], list[int]]:
        """Number of taps that reach each output phase, along (rows, columns); Odena et al. 2016."""
        rows, columns = (
            [int(n) for n in LayerWindow(kernel=k, stride=s, dilation=d).coverage()]
            for k, s, d in zip(self.kernel, self.stride, self.dilation, strict=True)
        )
        return rows, columns

    @property
    def padded(self) -> Pair:
        """The kernel grown to the next multiple of the stride."""
        rows, columns = (-(-k // s) * s for k, s in zip(self.kernel, self.stride, strict=True))
        return rows, columns


@dataclass(frozen=True)
class History:
    """How a grid of units came about: the windows between the input and it, per axis.

    `grid` is their number along (rows, columns). `padded` is set after a padding alone: the history
    before it, and the units that it added before and after, per axis.
    """

    grid: Pair
    windows: tuple[tuple[LayerWindow, ...], tuple[LayerWindow, ...]] = ((), ())
    padded: tuple[History, tuple[Pair, Pair]] | None = None

    def stride(self) -> tuple[float, float]:
        """Input pixels per unit along (rows, columns), as the product of the windows' strides."""
        rows, columns = (prod(w.stride / w.scale for w in axis) for axis in self.windows)
        return rows, columns

    def after(self, windows: Iterable[LayerWindow], grid: Pair) -> History:
        """The history with those of `windows` that change the size."""
        rows, columns = (
            h if w.keeps_size else (*h, w) for h, w in zip(self.windows, windows, strict=True)
        )
        return History(grid, (rows, columns))

    def after_padding(self, pads: tuple[Pair, Pair]) -> History:
        """The history after (before, after) units were added to each axis; negative for a crop."""
        windows = [LayerWindow(before=before, after=after) for before, after in pads]
        rows, columns = (
            n + before + after for n, (before, after) in zip(self.grid, pads, strict=True)
        )
        return replace(self.after(windows, (rows, columns)), padded=(self, pads))

    def resized(self, grid: Pair) -> History:
        """The history after an interpolation to `grid`."""
        scales = (new / old for new, old in zip(grid, self.grid, strict=True))
        return self.after((LayerWindow(scale=scale) for scale in scales), grid)

    def spread(self, strides: Pair, have: Pair, give: Pair) -> History:
        """The history after a transposed convolution that made `give` units of `have` per part.

        The map is one part, or several of `have` units. What padding, output padding and kernel add
        to `have` times the stride, or crop of it, leaves the step of the units.
        """
        whole = self if _divides(have, self.grid) else self.regridded(have)
        sizes = [
            (n * s, n // h * g) for n, s, h, g in zip(whole.grid, strides, have, give, strict=True)
        ]
        (rows, wide_rows), (columns, wide_columns) = ((new, wide) for wide, new in sizes)
        spread = whole.after((LayerWindow(scale=s) for s in strides), (wide_rows, wide_columns))
        return spread.after((LayerWindow(after=new - wide) for wide, new in sizes), (rows, columns))

    def regridded(self, grid: Pair) -> History:
        """The history after a reshape, slice or merge that changed the grid without a layer.

        A coarser grid is a window as long as the ratio (space to depth), a finer one its inverse.
        """
        if grid == self.grid or 0 in grid or 0 in self.grid:
            return self
        if all(old % new == 0 for old, new in zip(self.grid, grid, strict=True)):
            ratios = [old // new for old, new in zip(self.grid, grid, strict=True)]
            return self.after((LayerWindow(kernel=r, stride=r) for r in ratios), grid)
        return self.resized(grid)


def _divides(parts: Pair, grid: Pair) -> bool:
    return 0 not in parts and all(n % part == 0 for n, part in zip(grid, parts, strict=True))


def joined(histories: Iterable[History]) -> History | None:
    """The history of a tensor in which branches join: that of the first with the largest stride."""
    histories = list(histories)
    return max(histories, key=History.stride) if histories else None


def conv_windows(call: Convolution | TransposedConvolution) -> list[LayerWindow]:
    """The windows of a convolution along each of its axes."""
    sizes = call.weight.shape[2:]
    strides, gaps = each_axis(call.stride, len(sizes)), each_axis(call.dilation, len(sizes))
    windows = [
        LayerWindow(kernel=k, stride=s, dilation=d)
        for k, s, d in zip(sizes, strides, gaps, strict=True)
    ]
    if call.padding == "same":
        spare = [w.extent - 1 for w in windows]
        pads = [(n // 2, n - n // 2) for n in spare]
    else:
        given = 0 if call.padding == "valid" else call.padding
        pads = [(n, n) for n in each_axis(given, len(sizes))]
    return [replace(w, before=b, after=a) for w, (b, a) in zip(windows, pads, strict=True)]


def pool_windows(call: MaxPool | MeanPool | NormPool, axes: int = 2) -> list[LayerWindow]:
    """The windows of a pool along each of its `axes`."""
    options = zip(
        each_axis(call.kernel_size, axes),
        each_axis(call.stride or call.kernel_size, axes),
        each_axis(call.padding, axes),
        each_axis(call.dilation, axes),
        strict=True,
    )
    return [
        LayerWindow(kernel=k, stride=s, before=p, after=p, dilation=d, ceil=call.ceil_mode)
        for k, s, p, d in options
    ]
