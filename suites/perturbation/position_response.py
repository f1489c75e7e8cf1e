"""Kim et al.'s position test: one pixel changed in all channels, at each place of a block.

MD(i, j) = mean over the outputs of |y(x + epsilon at pixel (i, j)) - y(x)|, epsilon in normalised
units, averaged over images; y are the logits, or the target of a model without logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import InputError, PerimetryError
from ..base import Estimate, missing
from ..measuring.phases import divide_by_mean
from ..measuring.unbiased import pseudo_values, root_mean_square

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from torch import Tensor

    from ...adapters.model import Model
    from ..architecture.windows import Layer
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap
    from ..measuring.forward import MemberImages
    from ..measuring.phases import Pair

STEM_STRIDE = 4
"""The stem ends where the cumulative stride first reaches this value."""

MIN_PLACES, MAX_PLACES = 5, 8
"""Smallest and largest default number of places along a side of the block."""

ROUNDING = 1e-6
"""Relative spread below which a map varies only by rounding."""


@dataclass(frozen=True)
class Block:
    """The rows and columns of the pixels that are changed."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __iter__(self) -> Iterator[Pair]:
        return ((i, j) for i in self.rows for j in self.columns)

    def of(self, maps: Array) -> Array:
        """Read `maps` (..., height, width) at the places: (..., rows, columns)."""
        found: Array = maps[..., np.array(self.rows)[:, None], np.array(self.columns)]
        return found


def stem_period(model: Model, notes: list[str]) -> Pair:
    """Cumulative stride along (rows, columns) where it first reaches `STEM_STRIDE`, or the total.

    (1, 1) with a note if the architecture cannot be traced.
    """
    from ..architecture.receptive_field import traced

    try:
        return stem_stride(traced(model)[0])
    except PerimetryError as error:
        notes.append(f"stem period unknown, taken as 1: {error}")
        return 1, 1


def stem_stride(layers: Iterable[Layer]) -> Pair:
    """Cumulative stride of the first of `layers` where it reaches `STEM_STRIDE`, or the largest."""
    largest = (1, 1)
    for layer in layers:
        rows, columns = (
            round(math.prod(w.stride / w.scale for w in (*sources, window)))
            for sources, window in zip(layer.sources, layer.windows, strict=True)
        )
        largest = max(largest, (max(1, rows), max(1, columns)))
        if max(largest) >= STEM_STRIDE:
            break
    return largest


def make_block(size: Pair, stem: Pair, side: int | None) -> Block:
    """The block of places in images of `size` (height, width).

    By default it covers whole stem periods with at least 5 places per side; more than 8 are
    replaced by evenly spaced ones. `side` sets the number of adjacent places per side instead.
    Raises `InputError` if it is larger than the image.
    """
    if side is not None and side > min(size):
        raise InputError(
            f"perturbation.block = {side} is larger than the image ({size[0]} x {size[1]} pixels); "
            f"expected at most {min(size)}"
        )
    rows, columns = (_places(n, p, side) for n, p in zip(size, stem, strict=True))
    return Block(rows, columns)


def _places(size: int, period: int, side: int | None) -> tuple[int, ...]:
    extent = side or min(size, -(-MIN_PLACES // period) * period)
    spacing = 1 if side else -(-extent // MAX_PLACES)
    first = (size - extent) // 2 // period * period
    return tuple(range(first, first + extent, spacing))


@dataclass
class PositionTest:
    """Collects MD by image: (rows, columns) of the block."""

    block: Block
    epsilon: float
    images: int
    responses: dict[int, Array] = field(default_factory=dict)

    def observe(self, member: MemberImages) -> None:
        """Measure the images of one weight set that are among the first `images`."""
        for index in member.first(self.images):
            answers = member.passes.answer(self._inputs(member.image(index)))
            plain = next(answers).double()
            found = [float((one.double() - plain).abs().mean()) for one in answers]
            shape = (len(self.block.rows), len(self.block.columns))
            self.responses[index] = np.array(found).reshape(shape)

    def _inputs(self, x: Tensor) -> Iterator[Tensor]:
        """The unchanged image, then the image with the pixel at each place changed."""
        yield x
        for row, column in self.block:
            altered = x.clone()
            altered[:, row, column] += self.epsilon
            yield altered


def position_metrics(
    samples: Array, roots: Array | str, resamples: Bootstrap
) -> dict[str, Estimate]:
    """Spread and R^2 of MD, `samples` (samples, rows, columns), normalised by weight set.

    `roots` (rows, columns) is the root of the energy map at the same places, or the reason why
    there is none.
    """
    if not samples.any():
        why = missing("no change of a pixel of the block changes the output")
        return {"position_cv": why, "position_r2": why}
    places = pseudo_values(samples, divide_by_mean)
    spread = root_mean_square(places.reshape(len(places), -1) - 1, resamples)
    return {
        "position_cv": resamples.estimate(spread, low=0.0),
        "position_r2": missing(roots) if isinstance(roots, str) else _r2(samples, roots),
    }


def mean_response(model: Model, samples: Array, resamples: Bootstrap) -> Estimate:
    """Mean of MD, `samples` (samples, rows, columns); the geometric mean over weight sets.

    It is 0 if one weight set does not respond.
    """
    levels = samples.mean((1, 2))
    if model.members == 1:
        return resamples.estimate(resamples.weights @ levels, low=0.0)
    if not levels.all():
        return Estimate(0.0)
    return resamples.estimate(np.exp(resamples.weights @ np.log(levels)), low=0.0, positive=True)


def _r2(samples: Array, roots: Array) -> Estimate:
    """R^2 of the mean MD's regression line on `roots`: their squared correlation."""
    mean = samples.mean(0)
    for name, one in (("response", mean), ("gradient", roots)):
        if one.std() <= ROUNDING * np.abs(one).mean():
            return missing(f"the {name} is the same at all places of the block")
    return Estimate(float(np.clip(np.corrcoef(mean.ravel(), roots.ravel())[0, 1] ** 2, 0, 1)))
