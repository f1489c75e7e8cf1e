"""Tiled against whole inference: the error by distance to the edge at which the image was cut.

Four tiles are cut from each image, one at each corner, at multiples of the alignment, so that each
has one cut edge per axis. The *distance* of a unit is the number of pixels between its own pixels
and the nearer cut edge: with overlap o a tile contributes the units of distance o and more.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ...adapters.errors import InputError, NotApplicableError
from ..measuring.gradients import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.batching import Batching

Pair = tuple[int, int]


def tile_size(pixels: Pair, alignment: Pair, tile: int | None) -> Pair:
    """(height, width) of a tile: `tile`, or the smallest above half that leaves whole cells over.

    Raises `NotApplicableError` for an image of one cell, `InputError` for a `tile` that cannot be
    cut at both ends at multiples of the alignment.
    """
    rows, columns = (_along(n, a, tile) for n, a in zip(pixels, alignment, strict=True))
    return rows, columns


def _along(pixels: int, alignment: int, tile: int | None) -> int:
    if pixels <= alignment:
        raise NotApplicableError(
            f"the image of {pixels} pixels is not larger than the alignment of tiles, {alignment} "
            "pixels, so it cannot be cut: choose a larger --size"
        )
    allowed = range(pixels - alignment, 0, -alignment)
    if tile is None:
        return allowed[max(1, pixels // (2 * alignment)) - 1]
    if tile not in allowed:
        raise InputError(
            f"halo.tile = {tile} for an image of {pixels} pixels and tiles at multiples of "
            f"{alignment}; expected one of {', '.join(map(str, allowed[:6]))}, ..."
        )
    return tile


class Cut(NamedTuple):
    """A tile along one axis of an image of `pixels`: first pixel, length, and pixels per unit."""

    start: int
    length: int
    pixels: int
    per_unit: float

    def distances(self, units: int) -> Array:
        """Pixels between each of the tile's `units` and the nearer cut end, if there is one."""
        place, size = np.arange(units), self.per_unit
        ends = []
        if self.start > 0:
            ends.append(place * size)
        if self.start + self.length < self.pixels:
            ends.append(self.length - (place + 1) * size)
        return np.min(ends, axis=0) if ends else np.full(units, np.inf)

    def units(self, own: int) -> slice:
        """The units of the whole map at the place of the tile's `own` units."""
        first = self.start / self.per_unit
        if abs(first - round(first)) > 1e-9:
            raise NotApplicableError("a tile does not begin between two units of the output")
        return slice(round(first), round(first) + own)


@dataclass(frozen=True)
class TileTest:
    """Sums of |tiled - whole| and of |whole| at each of `overlaps`, in pixels.

    `ring` is the width in pixels of the ring of units that counts as the seam at an overlap,
    `per_unit` the pixels of a unit along (rows, columns).
    """

    tile: Pair
    overlaps: Sequence[int]
    ring: int
    per_unit: tuple[float, float]

    def errors(self, whole: Model, tiled: Model, x: Tensor, batching: Batching) -> Array:
        """Sums (images, 4, overlaps) for the prepared images `x` (images, channels, h, w).

        They are the error and the magnitude of the ring at each overlap, then those of all units
        from it on, as means over channels and units.
        """
        parts = batching.run(len(x), lambda chunk: self._compare(whole, tiled, x[chunk]))
        return np.concatenate(parts)

    def _compare(self, whole: Model, tiled: Model, x: Tensor) -> Array:
        x = x.to(whole.device)
        full = _target(whole, x)
        sums = np.zeros((len(x), 4, len(self.overlaps)))
        for rows, columns in self._cuts((x.shape[2], x.shape[3])):
            piece = x[
                ...,
                rows.start : rows.start + rows.length,
                columns.start : columns.start + columns.length,
            ]
            out = _target(tiled, piece)
            same = full[..., rows.units(out.shape[2]), columns.units(out.shape[3])]
            if same.shape != out.shape:
                raise NotApplicableError(
                    f"a tile has {tuple(out.shape[2:])} units where the whole has "
                    f"{tuple(same.shape[2:])}: the output does not follow the size of the input"
                )
            error, size = ((t.abs().mean(1)).cpu().numpy() for t in (out - same, same))
            distance = np.minimum(
                rows.distances(out.shape[2])[:, None], columns.distances(out.shape[3])
            )
            sums += self._sums(error, size, distance)
        return sums

    def _cuts(self, pixels: Pair) -> list[tuple[Cut, Cut]]:
        rows, columns = (
            [Cut(start, t, n, s) for start in (0, n - t)]
            for n, t, s in zip(pixels, self.tile, self.per_unit, strict=True)
        )
        return list(product(rows, columns))

    def _sums(self, error: Array, size: Array, distance: Array) -> Array:
        found = []
        for overlap in self.overlaps:
            kept = distance >= overlap
            seam = kept & (distance < overlap + self.ring)
            found.append([v[:, m].sum(1) for m in (seam, kept) for v in (error, size)])
        return np.moveaxis(np.array(found), 2, 0).swapaxes(1, 2)


def _target(model: Model, x: Tensor) -> Tensor:
    with torch.no_grad():
        out = require(model.run(x).target, "target").double()
    if not bool(out.isfinite().all()):
        raise NotApplicableError("the output is not finite (NaN or infinite) on these images")
    return out


def default_overlaps(tile: Pair, alignment: Pair) -> list[int]:
    """0, and the alignment times powers of 2, as long as units of every tile remain."""
    step, most = max(alignment), min(tile)
    found = [0]
    while found[-1] + step < most:
        found.append(max(step, 2 * found[-1]))
        if found[-1] + step > most:
            found.pop()
            break
    return found
