"""Dead pixels and the regions they form, read off sensitivity maps pixel by pixel.

A pixel's *relative sensitivity* q is its sensitivity over what it should have: that of its
neighbourhood times the share of its stride phase. The neighbourhood's level is a moving median over
half the image along each axis (three lines of nine of large ones), kept inside it, so that a hole
up to about half of that area does not set its own standard. Where the level is below `LEAST_LEVEL`
of that of the most sensitive pixels, the neighbourhood is lost, and what its pixels get is compared
with the latter, times `SURELY_LOST`. Towards the borders sensitivity falls off, since fewer units
read there (the last row of an ordinary network may get 1 % of the level), and in a corner it does
so twice: the largest median, over the level, of the rows from the border up to its own belongs to
what a pixel should have, as far as it is below 1, and so for columns. That is never less than
`LEAST_DUE`, and behind an eighth of the image never less than `LEAST_INSIDE`. A border that is read
weakly is therefore no dead region, one that is silent is, and so is a weak row inside.
Phases that are dead as a whole (share below `DEAD_PHASE`) are no holes: their pixels are left out,
and counted apart. But where most pixels of such a phase answer, the silent ones are a hole.

*silent*: the sensitivity is exactly 0 in every sample. Where few units read a pixel it may be 0 in
    one sample and not in the next. With z the share of samples in which the other pixels of its
    phase are 0 (of its row, of its column, or of the map, whichever is largest), n samples are all
    0 with the probability z^n. Silent pixels for which this is above `FALSE_ALARM` over the map are
    not dead but counted apart as *perhaps by chance*, unless their row or column, or a window of
    `WINDOWS` around them, is silent as a whole, for which the same is asked.
*dead at t*: q is below t with certainty. Over ordinary pixels q is spread as a gamma variable whose
    shape k is read off the map's own quartiles; were the true q as large as t, what is observed
    would be so small with a probability below `FALSE_ALARM` over the whole map (see `silence`). The
    same is asked of the means over windows of `WINDOWS` without silent ones: all pixels of a
    window whose mean is below t with certainty are dead, but for those above `MOST_WITHIN` t.
    Pixels that are silent, and not by chance, are dead at every t.

Regions are connected, diagonals included; their boxes are (top, left, bottom, right) in pixels, the
last two exclusive. The same is done for each colour channel, so that a channel that is not read is
found. Definitions are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from .silence import WINDOWS, Zeros, least_surely, window_means, within_windows

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..base import Array
    from .phases import Pair

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Places = np.ndarray[Any, np.dtype[np.intp]]


THRESHOLDS = (0.01, 0.1)
DEAD_PHASE = 0.01
LEAST_LEVEL, SURELY_LOST = 1e-3, 0.1
"""Of the level of the most sensitive twentieth of the pixels. Of all networks in results/timm-init
one has neighbourhoods at 1.2e-3 (resnetv2_50d_frn), the others at 5e-3 and more."""
LEAST_DUE, LEAST_INSIDE, LEAST_IN_CORNERS = 1e-3, 0.1, 1e-4
"""Of the level, in a row or column of a border, behind an eighth of the image, and where two
borders meet. In results/timm-init the least are 0.008, 0.24 and their product."""
BLOCKS = 28
"""The moving median works on about so many blocks along each axis."""
MOST_WITHIN = 5.0
"""Of t: a pixel above this does not belong to the dead window that it lies in, but to its edge."""

BOX = ("top", "left", "bottom", "right")
"""Of a region in a table: first row and column, and one past the last ones."""

ALL, OUTPUT = "all", "output"
"""In a table, beside colour channels: all channels together; what no output reads."""
BEHIND = "which the target reads and the output does not"
"""Of the latter, in a sentence."""

MOST_REGIONS = 8
"""Regions of a channel in a table, largest first."""


@dataclass(frozen=True)
class Region:
    """A connected region of dead pixels: how many, and its box in pixels."""

    pixels: int
    box: tuple[int, int, int, int]

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> Region:
        """The region in a row of the tables `dead_regions` and `silent_regions`.

        The box is in columns of its own, or in one. Raises `KeyError`, `ValueError`.
        """
        box = row["box"] if "box" in row else [row[name] for name in BOX]
        top, left, bottom, right = map(int, box)
        return cls(int(row["pixels"]), (top, left, bottom, right))

    def within(self, other: Region) -> bool:
        """Whether it has no more pixels than `other` and lies in its box."""
        (top, left, bottom, right), box = self.box, other.box
        inside = box[0] <= top and box[1] <= left and bottom <= box[2] and right <= box[3]
        return inside and self.pixels <= other.pixels

    @property
    def text(self) -> str:
        """Such as `484 pixels in rows 40 to 61, columns 100 to 121`."""
        return f"{counted_pixels(self.pixels)} in {self.place}"

    @property
    def place(self) -> str:
        """Such as `rows 40 to 61, columns 100 to 121`."""
        top, left, bottom, right = self.box
        rows = f"row {top}" if bottom - top == 1 else f"rows {top} to {bottom - 1}"
        columns = f"column {left}" if right - left == 1 else f"columns {left} to {right - 1}"
        return f"{rows}, {columns}"


def counted_pixels(count: int) -> str:
    """`1 pixel`, `2 pixels`."""
    return "1 pixel" if count == 1 else f"{count} pixels"


@dataclass(frozen=True)
class DeadPixels:
    """Masks (height, width) of pixels that are silent, and dead at each of `THRESHOLDS`.

    `left_out` counts the pixels of phases that are dead as a whole, `by_chance` the silent ones
    that chance explains.
    """

    silent: Mask
    dead: dict[float, Mask]
    left_out: int
    by_chance: int = 0

    @property
    def regions(self) -> list[Region]:
        """Connected regions of pixels dead at the largest threshold, largest first."""
        return connected_regions(self.dead[max(THRESHOLDS)])


def find_dead_pixels(samples: Array, period: Pair, profile: Array | None) -> DeadPixels:
    """Find them in `samples` (samples, height, width) of one sensitivity.

    `profile` (phase rows, phase columns) is the share of each phase, of mean 1, None where there
    are no phases to tell apart.
    """
    mean: Array = samples.mean(0)
    silent: Mask = np.logical_not(samples.any(0))
    share = phase_shares(mean, period, profile)
    counted = share >= DEAD_PHASE
    holes = silent & (counted | _answering_phases(silent, period))
    zeros = Zeros(samples == 0, period)
    certain = holes & zeros.surely_silent()
    found = dict.fromkeys(THRESHOLDS, certain)
    if counted.any() and mean.any():
        corrected = np.where(counted, mean / np.maximum(share, DEAD_PHASE), np.nan)
        lost = share_where_lost(np.where(silent, np.nan, corrected))
        for t in THRESHOLDS:
            found[t] = found[t] | ((counted | holes) & (lost < t * SURELY_LOST))
        corrected[lost < max(THRESHOLDS) * SURELY_LOST] = np.nan
        relative = np.where(silent, np.nan, relative_sensitivity(corrected))
        relative = relative / fall_off(relative)
        for side in (n for n in WINDOWS if n <= min(mean.shape)):
            means = window_means(relative, side)
            sure = least_surely(means, side, zeros)
            for t in THRESHOLDS:
                within = within_windows(means <= t * sure, side)
                found[t] = found[t] | (counted & within & (relative < MOST_WITHIN * t))
    by_chance = holes & ~found[min(THRESHOLDS)]
    return DeadPixels(holes, found, int((~counted & ~holes).sum()), int(by_chance.sum()))


def _answering_phases(silent: Mask, period: Pair) -> Mask:
    """Which pixels are of phases that answer in most cells in which any pixel does.

    `silent` and the result are (height, width); cells at the end may be cut off.
    """
    rows, columns = (np.arange(n) for n in silent.shape)
    cell = np.add.outer(rows // period[0] * silent.shape[1], columns // period[1])
    phase = np.add.outer(rows % period[0] * period[1], columns % period[1])
    alive = np.zeros(cell.max() + 1, dtype=bool)
    alive[cell[~silent]] = True
    pixels = np.bincount(phase[alive[cell]], minlength=phase.max() + 1)
    answers = np.bincount(phase[~silent], minlength=phase.max() + 1)
    found: Mask = (2 * answers > pixels)[phase]
    return found


def phase_shares(mean: Array, period: Pair, profile: Array | None) -> Array:
    """The share of each pixel's phase (height, width).

    Where the profile says that a phase is almost dead, but some of its pixels are not, the phase is
    not dead: a hole has thinned it out.
    """
    if profile is None:
        return np.ones_like(mean)
    rows, columns = (np.arange(n) % p for n, p in zip(mean.shape, period, strict=True))
    share: Array = profile[rows[:, None], columns[None]]
    return share


def share_where_lost(corrected: Array) -> Array:
    """`corrected` (height, width; NaN where left out) over that of the most sensitive pixels.

    NaN in neighbourhoods of an ordinary level, 0 of what is left out in others.
    """
    most = float(np.nanquantile(corrected, 0.95)) if np.isfinite(corrected).any() else 0.0
    lost = moving_median(corrected) < LEAST_LEVEL * most
    found: Array = np.full_like(corrected, np.nan)
    found[lost] = np.nan_to_num(corrected[lost]) / most
    return found


def relative_sensitivity(corrected: Array) -> Array:
    """`corrected` (height, width; NaN where left out) over its moving median."""
    level = moving_median(corrected)
    everywhere = float(np.nanmedian(corrected))
    level = np.where(level > 0, level, everywhere)
    found: Array = np.divide(corrected, level, out=np.full_like(level, np.nan), where=level > 0)
    return found


def fall_off(relative: Array) -> Array:
    """What each pixel of `relative` (height, width) is due, as rows and columns fall off.

    It rises from either border to the middle, to at most 1.
    """
    axes = []
    for axis in (0, 1):
        medians = _medians(_finite(np.moveaxis(relative, axis, 0)))
        half = -(-len(medians) // 2)
        from_start = np.maximum.accumulate(medians[:half])
        from_end = np.maximum.accumulate(medians[half:][::-1])[::-1]
        least = np.full(len(medians), LEAST_INSIDE)
        least[: len(medians) // 8] = least[len(medians) - len(medians) // 8 :] = LEAST_DUE
        axes.append(np.clip(np.concatenate([from_start, from_end]), least, 1.0))
    due: Array = np.maximum(np.outer(*axes), LEAST_IN_CORNERS)
    return due


def moving_median(values: Array) -> Array:
    """Median over half the image along each axis around every block of pixels; NaN do not count.

    Windows are shifted inwards at the borders, so that all have one size.
    """
    blocks = [np.arange(n) * min(BLOCKS, n) // n for n in values.shape]
    rows, columns = (
        np.array([_window(b, n) for b in range(int(at.max()) + 1)])
        for at, n in zip(blocks, values.shape, strict=True)
    )
    values = _finite(values)
    windows = (values[lines][:, columns].swapaxes(0, 1) for lines in rows)
    level = np.array([_medians(one.reshape(len(columns), -1)) for one in windows])
    found: Array = level[blocks[0][:, None], blocks[1][None]]
    return found


def _window(block: int, size: int) -> Places:
    """The lines that a median looks at in the window around `block`, of half of `size`.

    Of large maps three lines of nine, at unlike distances: they have a share in all phases of a
    stride that is a power of two, and no three lines of a regular pattern hide others.
    """
    half = max(1, size // 2)
    middle = int((block + 0.5) * size / min(BLOCKS, size))
    start = min(max(0, middle - half // 2), size - half)
    lines = np.arange(start, start + half)
    return lines if size < 96 else lines[np.isin((lines - start) % 9, (0, 2, 5))]


def _finite(values: Array) -> Array:
    """`values` with NaN for what is not finite."""
    found: Array = np.where(np.isfinite(values), values, np.nan)
    return found


def _medians(windows: Array) -> Array:
    """The median of each row of `windows` (windows, entries), 0 for one of NaN alone.

    NaN do not count. Many rows at once take a fraction of the time of one after the other.
    """
    ordered = np.sort(windows, axis=1)  # NaN are last
    count = (~np.isnan(ordered)).sum(1)
    places = np.arange(len(count))
    low, high = np.maximum(count - 1, 0) // 2, np.minimum(count // 2, windows.shape[1] - 1)
    middle = (ordered[places, low] + ordered[places, high]) / 2
    found: Array = np.where(count > 0, middle, 0.0).astype(np.float64)
    return found


def connected_regions(mask: Mask) -> list[Region]:
    """Connected regions of `mask` (height, width), diagonals included, largest first."""
    from scipy import ndimage

    labels, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for rows, columns in ndimage.find_objects(labels)
    ]
    found = [Region(int(n), box) for n, box in zip(sizes, boxes, strict=True)]
    return sorted(found, key=lambda region: (-region.pixels, region.box))
