"""Silent pixels: their change leaves F as it is.

Cells of pixels are changed all at once, on a plain background and, of blocks or where that changes
nothing, on one of uniform noise, of which every level moves by half the range. A cell is silent if
F moves both times by at most `LEAST_CHANGE` of what the blocks of step 1 do, per root of a pixel,
which is a millionth of their energy: 0 where pixels are cut off, and not where they are multiplied
by a very small number. Each batch contains the background, so that both sides are rounded alike.

F is the target, or the logits of a model without a map. Some logits answer few changes, such as
class numbers or boxes above a threshold: unless `MOST_ANSWER` of the blocks change them on each
background, nothing is said.

1. Blocks of a fourteenth of the shorter side, which leave no gap.
2. Every row and every column as a whole, which finds dead borders and lines however narrow, and
   the places at which the stimulus of the blind spots changed nothing.
3. Each colour channel alone, at a random half of all pixels.
4. Around what is silent, cells that are not are halved along both axes, down to single pixels, the
   largest first, until none that touches a silent pixel is left, or `MOST_REFINING` are tried.

A hole that contains no whole block, line or place can hide.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from ...adapters.errors import NotApplicableError
from ..measuring.batching import Batching
from ..measuring.gradients import require

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from .blind_spots import Stimulus

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

BLOCKS_A_SIDE = 14
"""Blocks along the shorter side that cover the whole image."""

MOST_REFINING = 1000
"""Most cells that are tried around silent ones; a round hole of 22 pixels takes about half."""

LEAST_CHANGE = 1e-3
MOST_ANSWER = 0.75
STREAM = 41


class PixelBlock(NamedTuple):
    """Pixels that are changed together: rows `top` to `bottom`, columns `left` to `right`."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def pixels(self) -> tuple[slice, slice]:
        """Index of a map (height, width)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def area(self) -> int:
        """The number of its pixels."""
        return (self.bottom - self.top) * (self.right - self.left)

    @property
    def side(self) -> int:
        """The longer side in pixels."""
        return max(self.bottom - self.top, self.right - self.left)

    def quarters(self) -> list[PixelBlock]:
        """Its two or four parts, halved along each axis of more than one pixel."""
        rows, columns = (
            [(a, b)] if b - a == 1 else [(a, (a + b) // 2), ((a + b) // 2, b)]
            for a, b in ((self.top, self.bottom), (self.left, self.right))
        )
        return [PixelBlock(t, left, b, right) for t, b in rows for left, right in columns]


@dataclass(frozen=True)
class SilentPixels:
    """What is silent: a mask (height, width), and the colour channels that are as a whole.

    `block` is the side of the blocks, `finest` that of the largest cell at the edge of a silent
    region that was not halved: 1 unless `MOST_REFINING` was reached.
    """

    mask: Mask
    channels: tuple[int, ...]
    block: int
    finest: int = 1


def find_silent_pixels(
    model: Model, stimulus: Stimulus, batching: Batching, places: Sequence[tuple[int, int]] = ()
) -> SilentPixels:
    """Look for silent pixels of the selected weight set; see this module.

    `places` are the upper left pixels of stimuli that changed nothing on the plain background.
    Raises `NotApplicableError` if an output is not finite, or if logits answer too few changes.
    """
    probe = _Probe(model, stimulus, batching)
    height, width = model.spec.height, model.spec.width
    side = max(1, math.ceil(min(model.spec.height, model.spec.width) / BLOCKS_A_SIDE))
    live: list[PixelBlock] = []
    mask = np.zeros((height, width), dtype=bool)
    blocks = [
        PixelBlock(top, left, min(height, top + side), min(width, left + side))
        for top in range(0, height, side)
        for left in range(0, width, side)
    ]
    _mark(mask, live, blocks, probe.silent_blocks(blocks))
    lines = [PixelBlock(row, 0, row + 1, width) for row in range(height)]
    lines += [PixelBlock(0, column, height, column + 1) for column in range(width)]
    span = stimulus.side
    lines += [PixelBlock(row, column, row + span, column + span) for row, column in places]
    lines = [line for line in lines if not mask[line.pixels].all()]
    _mark(mask, [], lines, probe.silent_cells(lines))
    if mask.all():
        return SilentPixels(mask, (), side)
    return SilentPixels(mask, probe.silent_channels(), side, _refine(mask, live, probe))


def _mark(
    mask: Mask, live: list[PixelBlock], cells: Sequence[PixelBlock], silent: Sequence[bool]
) -> None:
    """Add silent `cells` to `mask` and the others to `live`."""
    for cell, is_silent in zip(cells, silent, strict=True):
        if is_silent:
            mask[cell.pixels] = True
        else:
            live.append(cell)


def _refine(mask: Mask, live: list[PixelBlock], probe: _Probe) -> int:
    """Halve `live` cells that touch `mask`, adding to it; return the largest side that is left."""
    from scipy import ndimage

    room = MOST_REFINING
    while True:
        near = ndimage.binary_dilation(mask, np.ones((3, 3)))
        edge = [
            cell
            for cell in live
            if cell.side > 1 and near[cell.pixels].any() and not mask[cell.pixels].all()
        ]
        edge.sort(key=lambda cell: -cell.side)
        chosen = edge[: room // 4]
        if not chosen:
            return max((cell.side for cell in edge), default=1)
        kept = set(chosen)
        live[:] = [cell for cell in live if cell not in kept]
        parts = [part for cell in chosen for part in cell.quarters() if not mask[part.pixels].all()]
        room -= len(parts)
        _mark(mask, live, parts, probe.silent_cells(parts))


class _Probe:
    """Changes parts of two backgrounds and finds the changes that leave F as it is."""

    def __init__(self, model: Model, stimulus: Stimulus, batching: Batching) -> None:
        self.model = model
        # The background is the first image of every batch.
        self.batching = Batching(max(1, batching.size - 1), batching.device, batching.notes)
        spec = model.spec
        shape = (1, 3, spec.height, spec.width)
        self.random = np.random.default_rng(STREAM)
        noise = torch.from_numpy(self.random.random(shape, dtype=np.float32))
        paint = torch.tensor(stimulus.colour)[None, :, None, None].expand(shape)
        plain = torch.full(shape, stimulus.background)
        self.backgrounds = [
            (spec.prepare(base)[0], spec.prepare(changed)[0])
            for base, changed in ((plain, paint), (noise, (noise + 0.5) % 1))
        ]
        self.levels = [0.0] * len(self.backgrounds)

    def silent_blocks(self, blocks: Sequence[PixelBlock]) -> list[bool]:
        """Whether a change of each of `blocks` leaves F as it is; what they do in the mean is kept.

        Raises `NotApplicableError` if logits answer too few of them.
        """
        roots = np.sqrt([block.area for block in blocks])
        moved = [self._changes(blocks, *ground, _fill) / roots for ground in self.backgrounds]
        self.levels = [float(np.quantile(changes, 0.95)) for changes in moved]
        still = [m <= LEAST_CHANGE * n for m, n in zip(moved, self.levels, strict=True)]
        if self.model.why_not_spatial and max(map(np.mean, still)) > 1 - MOST_ANSWER:
            raise NotApplicableError("the outputs answer too few changes to look for silent pixels")
        return [bool(silent) for silent in np.all(still, 0)]

    def silent_cells(self, cells: Sequence[PixelBlock]) -> list[bool]:
        """Whether a change of each of `cells`, in all channels, leaves F as it is."""
        silent = [True] * len(cells)
        for ground, level in zip(self.backgrounds, self.levels, strict=True):
            left = [i for i, is_silent in enumerate(silent) if is_silent]
            tried = [cells[i] for i in left]
            least = LEAST_CHANGE * level * np.sqrt([cell.area for cell in tried])
            for i, same in zip(left, self._changes(tried, *ground, _fill) <= least, strict=True):
                silent[i] = bool(same)
        return silent

    def silent_channels(self) -> tuple[int, ...]:
        """The channels whose change alone, at a random half of the pixels, leaves F as it is."""
        spec = self.model.spec
        if spec.channels == 1:
            return ()
        half = torch.from_numpy(self.random.random((spec.height, spec.width)) < 0.5)

        def edit(x: Tensor, changed: Tensor, channel: int) -> None:
            x[channel] = torch.where(half, changed[channel], x[channel])

        channels = range(spec.channels)
        moved = [self._changes(channels, *ground, edit) for ground in self.backgrounds]
        silent = np.all([changes <= LEAST_CHANGE * changes.max() for changes in moved], 0)
        return tuple(c for c in channels if silent[c])

    def _changes(
        self,
        parts: Sequence[Any],
        base: Tensor,
        changed: Tensor,
        edit: Callable[[Tensor, Tensor, Any], None],
    ) -> Array:
        """How far a change of each of `parts` of `base` moves F."""
        altered = partial(self._moved, parts, base, changed, edit)
        found = self.batching.run(len(parts), altered)
        return np.array([distance for chunk in found for distance in chunk], dtype=np.float64)

    def _moved(
        self,
        changes: Sequence[Any],
        base: Tensor,
        changed: Tensor,
        edit: Callable[[Tensor, Tensor, Any], None],
        chunk: slice,
    ) -> list[float]:
        """The distance of F of `base` with each of `changes[chunk]` from that of `base`."""
        own = changes[chunk]
        x = base.repeat(1 + len(own), 1, 1, 1)
        for one, change in zip(x[1:], own, strict=True):
            edit(one, changed, change)
        spatial = self.model.why_not_spatial is None
        out = self.model.run(x.to(self.model.device), target=spatial, logits=not spatial)
        found = require(out.target if spatial else out.logits, "target" if spatial else "logits")
        f = found.double().flatten(1)
        if not bool(f.isfinite().all()):
            raise NotApplicableError("the model's output is not finite on a plain background")
        distances: list[float] = (f[1:] - f[:1]).norm(dim=1).tolist()
        return distances


def _fill(x: Tensor, changed: Tensor, cell: PixelBlock) -> None:
    """Change the pixels of `cell` in the image `x`."""
    rows, columns = cell.pixels
    x[:, rows, columns] = changed[:, rows, columns]
