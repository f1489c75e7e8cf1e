"""Shifts of an image, what an output that moves with it would be, and what it is.

A *move* is (rows, columns) in pixels. Three ways to fill what is uncovered: `Circular` wraps
around, `Cropped` takes the pixels beyond the border from a larger image, `Fractional` shifts by
parts of a pixel, as the band-limited interpolation of the periodic image does (a phase in Fourier
space).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ...adapters.errors import NotApplicableError
from ..measuring.gradients import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.batching import Batching

Move = tuple[float, float]

QUARTERS = tuple((a / 4, b / 4) for a in range(4) for b in range(4) if a or b)
"""The fractional moves: all of quarters of a pixel, less than one."""

STREAM = 36


class Mover(Protocol):
    """One way to shift."""

    def moved(self, index: int, move: Move) -> Tensor:
        """Image `index` (channels, height, width), shifted by `move`."""

    def pair(self, f: Tensor, moved: Tensor, units: Move) -> tuple[Tensor, Tensor]:
        """What should be equal, of the outputs of an image and of its shifted copy.

        `f` and `moved` are (channels, rows, columns), `units` the move in units of the output.
        """


@dataclass(frozen=True)
class Circular:
    """Pixels that leave at one side come in at the other; `x` is (images, channels, h, w)."""

    x: Tensor

    def moved(self, index: int, move: Move) -> Tensor:
        """The image rolled; see `Mover`."""
        return self.x[index].roll((int(move[0]), int(move[1])), (1, 2))

    def pair(self, f: Tensor, moved: Tensor, units: Move) -> tuple[Tensor, Tensor]:
        """The output rolled, and that of the rolled image."""
        return f.roll((round(units[0]), round(units[1])), (1, 2)), moved


@dataclass(frozen=True)
class Cropped:
    """Crops at `move` of images that are larger by `margin` (rows, columns) than the input."""

    large: Tensor
    margin: tuple[int, int]

    def moved(self, index: int, move: Move) -> Tensor:
        """The crop that begins at `move`."""
        height, width = (n - m for n, m in zip(self.large.shape[2:], self.margin, strict=True))
        top, left = int(move[0]), int(move[1])
        return self.large[index, :, top : top + height, left : left + width]

    def pair(self, f: Tensor, moved: Tensor, units: Move) -> tuple[Tensor, Tensor]:
        """The units that both crops have."""
        down, right = round(units[0]), round(units[1])
        height, width = f.shape[1] - down, f.shape[2] - right
        return f[:, down:, right:], moved[:, :height, :width]


@dataclass(frozen=True)
class Fractional:
    """Shifts by parts of a pixel, around the periodic image; `x` is (images, channels, h, w)."""

    x: Tensor

    def moved(self, index: int, move: Move) -> Tensor:
        """The image shifted in Fourier space."""
        return fourier_shift(self.x[index], move)

    def pair(self, f: Tensor, moved: Tensor, units: Move) -> tuple[Tensor, Tensor]:
        """The output shifted in Fourier space, and that of the shifted image."""
        return fourier_shift(f, units), moved


def fourier_shift(maps: Tensor, move: Move) -> Tensor:
    """`maps` (..., height, width) shifted by `move` in pixels, each frequency by its phase.

    Of an even side the Nyquist frequency keeps its real part, so that the result is real.
    """
    import torch

    found = torch.fft.fft2(maps.double())
    for axis, amount in zip((-2, -1), move, strict=True):
        n = maps.shape[axis]
        turn = -2 * math.pi * amount * torch.fft.fftfreq(n, dtype=torch.float64)
        phase = torch.polar(torch.ones_like(turn), turn)
        if n % 2 == 0:
            phase[n // 2] = math.cos(math.pi * amount)
        found = found * (phase[:, None] if axis == -2 else phase).to(found.device)
    shifted: Tensor = torch.fft.ifft2(found).real.to(maps.dtype)
    return shifted


def moves_within(cell: tuple[int, int], step: tuple[int, int], most: int, seed: int) -> list[Move]:
    """The moves by multiples of `step` within `cell` pixels, (0, 0) left out, in order.

    Where the step is the cell, the moves by one cell. More than `most` are a seeded sample.
    """
    rows, columns = (
        list(range(0, n, s)) if n > s else [0, n] for n, s in zip(cell, step, strict=True)
    )
    every: list[Move] = [(a, b) for a in rows for b in columns if a or b]
    if len(every) <= most:
        return every
    rng = np.random.default_rng([seed, STREAM, *cell])
    return [every[k] for k in sorted(rng.choice(len(every), most, replace=False))]


Ratio = tuple[float, float]


def classes(
    model: Model, mover: Mover, index: int, moves: Sequence[Move], batching: Batching
) -> tuple[Tensor, Array]:
    """Logits of the image (1, classes), and whether each move keeps its class (moves,)."""
    import torch

    def one(chunk: slice) -> Tensor:
        x = torch.stack([mover.moved(index, move) for move in every[chunk]])
        with torch.no_grad():
            out = model.run(x.to(model.device), target=False, logits=True)
        return require(out.logits, "logits")

    every = [(0.0, 0.0), *moves]
    logits = torch.cat(batching.run(len(every), one))
    top = logits.argmax(1)
    same: Array = (top[1:] == top[0]).cpu().numpy().astype(np.float64)
    return logits[:1], same


def distances(
    model: Model,
    mover: Mover,
    index: int,
    moves: Sequence[Move],
    batching: Batching,
    per_pixel: Ratio,
) -> Array:
    """Sums of |f(S x) - S f(x)| and of |f(x)| for each move: (moves, 2).

    `model` has the map f as its target, of `per_pixel` units per pixel. Raises
    `NotApplicableError` if a map is not finite.
    """
    import torch

    def one(chunk: slice) -> Tensor:
        x = torch.stack([mover.moved(index, move) for move in every[chunk]])
        with torch.no_grad():
            return require(model.run(x.to(model.device)).target, "target").double()

    every = [(0.0, 0.0), *moves]
    maps = torch.cat(batching.run(len(every), one))
    if not bool(maps.isfinite().all()):
        raise NotApplicableError("the output is not finite (NaN or infinite) on these images")
    rows = []
    for move, moved in zip(moves, maps[1:], strict=True):
        units = (move[0] * per_pixel[0], move[1] * per_pixel[1])
        expected, got = mover.pair(maps[0], moved, units)
        rows.append([float((got - expected).abs().sum()), float(expected.abs().sum())])
    return np.array(rows)
