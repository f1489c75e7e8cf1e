"""Sizes, phases and places of the objects that are pasted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ...adapters.model import Model

STREAM = 43

DEFAULT_STRIDE = 32
"""Pixels of a cell where there is no map whose stride could be taken."""

LEAST_LARGEST = 8

SMALLEST_CUTOUT = 8
"""Pixels of the smallest cut-out by default: a smaller picture of a thing is a few blots."""

Pair = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """Sides of the objects in pixels, smallest first, and phases (row, column).

    `start` is the upper left pixel of the largest at phase 0, `stride` the (height, width) of the
    cell. With `centred`, smaller ones lie whole strides further in, near the middle of the largest.
    """

    sizes: tuple[int, ...]
    phases: tuple[Pair, ...]
    start: Pair
    stride: Pair
    centred: bool = False

    @property
    def compared(self) -> int:
        """Which of `sizes` phases are compared by: the largest up to a quarter of the stride.

        Of cut-outs, which need more pixels, the largest up to the stride; else the smallest.
        """
        most = max(self.stride) if self.centred else max(self.stride) / 4
        return max((k for k, size in enumerate(self.sizes) if size <= most), default=0)

    def corner(self, size: int, phase: Pair) -> Pair:
        """The upper left pixel of an object of `size` pixels at `phase`."""
        room = (self.sizes[-1] - size) // 2 if self.centred else 0
        row, column = (
            a + room // s * s + p for a, s, p in zip(self.start, self.stride, phase, strict=True)
        )
        return row, column

    def corners(self) -> Iterator[tuple[int, Pair]]:
        """Size and upper left pixel of every object, size by size."""
        return ((size, self.corner(size, phase)) for size in self.sizes for phase in self.phases)


def with_boxes(image: Tensor, layout: Layout) -> list[Tensor]:
    """`image` (3, height, width) as it is, then with each box, size by size."""
    reach = max(max(p) for p in layout.phases) + layout.sizes[-1]
    rows, columns = (slice(s, s + reach) for s in layout.start)
    colour = (image[:, rows, columns].mean((1, 2)) < 0.5).to(image.dtype)[:, None, None]
    found = [image]
    for size, (row, column) in layout.corners():
        one = image.clone()
        one[:, row : row + size, column : column + size] = colour
        found.append(one)
    return found


def box_layout(model: Model, sizes: Sequence[int] | None, phases: int, seed: int) -> Layout:
    """Boxes from the centre on. Raises `InputError` if they do not fit into the image."""
    pixels, stride = (model.spec.height, model.spec.width), cell_of(model)
    quarter = max(2, min(pixels) // 4)
    largest = min(max(LEAST_LARGEST, *stride), quarter)
    powers = [2**k for k in range(largest.bit_length())]
    start = tuple(-(-(n // 2) // s) * s for n, s in zip(pixels, stride, strict=True))
    chosen = tuple(sorted(set(powers if sizes is None else sizes)))
    return _filled(chosen, pixels, (start[0], start[1]), stride, phases, seed)


def cutout_layout(model: Model, sizes: Sequence[int] | None, phases: int, seed: int) -> Layout:
    """Cut-outs of up to half of the image around its centre. Raises `InputError` as above."""
    pixels, stride = (model.spec.height, model.spec.width), cell_of(model)
    half = max(2, min(pixels) // 2)
    powers = [2**k for k in range(half.bit_length()) if 2**k >= SMALLEST_CUTOUT]
    chosen = tuple(sorted(set([*powers, half] if sizes is None else sizes)))
    start = tuple(
        max(0, (n - chosen[-1] - s + 1) // 2) // s * s for n, s in zip(pixels, stride, strict=True)
    )
    return _filled(chosen, pixels, (start[0], start[1]), stride, phases, seed, centred=True)


def cell_of(model: Model) -> Pair:
    """The stride (height, width) of the target in pixels, or a default without one."""
    if model.why_not_spatial is not None:
        return DEFAULT_STRIDE, DEFAULT_STRIDE
    from ..architecture.receptive_field import target_stride

    return target_stride(model)


def _filled(
    sizes: tuple[int, ...],
    pixels: Pair,
    start: Pair,
    stride: Pair,
    most: int,
    seed: int,
    *,
    centred: bool = False,
) -> Layout:
    """The layout with all phases that fit, or a seeded sample of `most`."""
    room = tuple(n - a - sizes[-1] for n, a in zip(pixels, start, strict=True))
    if min(room) < 0:
        raise InputError(
            f"objects.sizes = {sizes}: {sizes[-1]} pixels from {start} on do not fit into an image "
            f"of {pixels[0]} x {pixels[1]}; expected at most {min(room) + sizes[-1]} pixels"
        )
    rows, columns = (range(min(s, r + 1)) for s, r in zip(stride, room, strict=True))
    every = [(a, b) for a in rows for b in columns]
    if len(every) > most:
        rng = np.random.default_rng([seed, STREAM, len(every)])
        picked = sorted(rng.choice(len(every), most, replace=False))
        every = [every[k] for k in picked]
    return Layout(sizes, tuple(every), start, stride, centred)
