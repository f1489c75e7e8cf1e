"""The micro-object task (Kim et al. 2023): is a tiny box somewhere in the image red or black?

The range of the images is limited first: a value v in [0, 1] becomes 0.1 + 0.8 v, so that neither
colour occurs in them. A box of `side` x `side` pixels, red (1, 0, 0) or black (0, 0, 0), is then
painted on each, at a uniformly random place where it fits, with a colour independent of the place;
half of the boxes are red. Every epoch of training draws new boxes.

The task is solvable by construction: R - G - B is 1 in a red box and at most 0.7 elsewhere, so a
linear colour detector (that weight at one pixel, the maximum over all pixels, a threshold) makes no
errors. There is no other cue: every test image is shown twice, with a red and a black box at the
same place, so a classifier that uses only the image, the place or the size has an accuracy of 1/2.

Places of test images are spread evenly over phases: image i has its box's upper left pixel in
phase i mod P^2 of the P x P stride cell, in a cell drawn uniformly. `by_phase` is the mean over
the images of each phase: (P, P), rows first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...adapters.errors import InputError
from ..measuring.phases import nested_periods

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ..base import Array
    from ..measuring.phases import Pair

DARKEST, BRIGHTEST = 0.1, 0.9

CLASSES = ("black", "red")

Places = np.ndarray[tuple[int, int], np.dtype[np.int64]]
"""Upper left pixels of boxes, (images, 2) as (row, column)."""


@dataclass(frozen=True)
class Boxes:
    """Where boxes are, and which of them are red (images,)."""

    places: Places
    red: np.ndarray[tuple[int], np.dtype[np.bool_]]


def limit_range(images: Tensor) -> Tensor:
    """Map `images` from [0, 1] to a range in which neither colour of a box occurs."""
    return DARKEST + (BRIGHTEST - DARKEST) * images


def draw_boxes(count: int, size: Pair, side: int, rng: np.random.Generator) -> Boxes:
    """Draw `count` boxes in images of `size`; half of them, rounded down, are red.

    Raises `InputError` if a box does not fit.
    """
    rows, columns = _room(size, side)
    places = np.stack([rng.integers(0, rows, count), rng.integers(0, columns, count)], 1)
    return Boxes(places, rng.permutation(np.arange(count) < count // 2))


def spread_places(
    count: int, size: Pair, side: int, period: Pair, rng: np.random.Generator
) -> Places:
    """Draw places that cycle through all phases of `period`. Raises `InputError` as above."""
    cells = np.arange(count) % (period[0] * period[1])
    phases = (cells // period[1], cells % period[1])
    axes = [
        phase + step * rng.integers(0, (room - 1 - phase) // step + 1)
        for phase, step, room in zip(phases, period, _room(size, side), strict=True)
    ]
    return np.stack(axes, 1)


def _room(size: Pair, side: int) -> Pair:
    """Number of places along rows and columns."""
    if not 1 <= side <= min(size) // 2:
        raise InputError(
            f"a box of {side} pixels in images of {size[0]} x {size[1]}; expected 1 to half a side"
        )
    return size[0] - side + 1, size[1] - side + 1


def paint_boxes(images: Tensor, boxes: Boxes, side: int) -> Tensor:
    """A copy of `images` (images, 3, height, width) with a box of `side` pixels on each."""
    rows, columns = (
        _inside(start, length, side)
        for start, length in zip(boxes.places.T, images.shape[2:], strict=True)
    )
    inside = (rows[:, :, None] & columns[:, None, :]).to(images.device)[:, None]
    colour = images.new_zeros(len(images), 3, 1, 1)
    colour[:, 0, 0, 0] = torch.from_numpy(boxes.red).to(colour)
    return torch.where(inside, colour, images)


def _inside(start: Places, length: int, side: int) -> Tensor:
    """Which of `length` pixels lie within `side` of each start: (images, length)."""
    ahead = torch.arange(length)[None] - torch.from_numpy(start)[:, None]
    return (ahead >= 0) & (ahead < side)


def by_phase(values: Array, places: Places, period: Pair) -> Array:
    """Mean of `values` (images,) over the boxes of each phase: `period` rows and columns."""
    cell = places[:, 0] % period[0] * period[1] + places[:, 1] % period[1]
    phases = period[0] * period[1]
    total = np.bincount(cell, values, phases) / np.bincount(cell, minlength=phases)
    return total.reshape(period)


def resolved_period(period: Pair, count: int, least: int = 8) -> Pair:
    """The largest divisors of `period` with `least` or more of `count` images in each phase.

    >>> resolved_period((32, 32), 512)
    (8, 8)
    """
    chain = [(1, 1), *nested_periods(period)]
    return [pair for pair in chain if pair == (1, 1) or pair[0] * pair[1] * least <= count][-1]


def box_mean(profile: Array, side: int) -> Array:
    """Mean of a phase profile over a box of `side` pixels, for each phase of its upper left."""
    shifts: Sequence[Array] = [
        np.roll(profile, (-row, -column), (0, 1)) for row in range(side) for column in range(side)
    ]
    mean: Array = np.mean(shifts, 0)
    return mean
