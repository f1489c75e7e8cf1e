"""The phase comb: its pixels, and its period, which divides the target's stride."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...adapters.errors import InputError
from ..measuring import phases

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ...adapters.model import Model
    from ..measuring.phases import Pair


@dataclass(frozen=True)
class Comb:
    """The interior pixels of each phase: `rows` and `columns` are whole cells of `period`."""

    period: Pair
    rows: slice
    columns: slice

    @property
    def pixels(self) -> int:
        """Number of pixels of each phase."""
        inner = (self.rows.stop - self.rows.start) * (self.columns.stop - self.columns.start)
        return int(inner // (self.period[0] * self.period[1]))

    def impulses(self) -> Iterator[tuple[slice, slice]]:
        """Rows and columns of the pixels of each phase, phase row by phase row."""
        for a in range(self.period[0]):
            for b in range(self.period[1]):
                yield (
                    slice(self.rows.start + a, self.rows.stop, self.period[0]),
                    slice(self.columns.start + b, self.columns.stop, self.period[1]),
                )

    def sums(self, maps: Tensor) -> Tensor:
        """Sums of `maps` (..., height, width) over the pixels of each phase: (..., p, q)."""
        inner = maps[..., self.rows, self.columns]
        cells = inner.unflatten(-1, (-1, self.period[1])).unflatten(-3, (-1, self.period[0]))
        sums: Tensor = cells.sum((-4, -2))
        return sums

    def scattered(self, rng: np.random.Generator, size: Pair) -> Tensor:
        """Ones at one pixel of a random phase in each cell, as many as a phase has: (h, w)."""
        mask = np.zeros(size, dtype=np.float32)
        for top in range(self.rows.start, self.rows.stop, self.period[0]):
            lefts = np.arange(self.columns.start, self.columns.stop, self.period[1])
            a = rng.integers(self.period[0], size=len(lefts))
            mask[top + a, lefts + rng.integers(self.period[1], size=len(lefts))] = 1
        return torch.from_numpy(mask)


def make_comb(size: Pair, period: Pair) -> Comb:
    """The comb of `period` in the interior (see `phases`) of images of `size`."""
    return Comb(period, *phases.interior(size, period))


LARGEST_PERIOD = 4
"""Largest default period of the comb; the cost grows with its square."""


def choose_comb(model: Model, period: int | None, notes: list[str]) -> Comb | str:
    """The comb for `model`, or the reason why there are no phases.

    Raises `InputError` if `period` does not divide the total stride, or does not fit the image.
    """
    from ..architecture.receptive_field import total_stride

    size = (model.spec.height, model.spec.width)
    total = None if model.target is None else phases.whole_stride(total_stride(model))
    if isinstance(total, str):
        return total
    if total is None:
        notes.append(
            "no spatial map: F are the logits, and the comb's period is not a stride of the model"
        )
    if total == (1, 1):
        return "the target has stride 1: there are no phases"
    if period is not None:
        _check_period(period, size, total)
        return make_comb(size, (period, period))
    wanted = _default_period(total)
    if wanted == (1, 1):
        return f"no divisor of the total stride {total} is 2, 3 or 4; set perturbation.period"
    fitted = phases.fit_period(size, wanted)
    if fitted == (1, 1):
        return f"{phases.NO_PERIOD_FITS}: there are no phases"
    if fitted != wanted:
        notes.append(f"comb's period lowered from {wanted} to {fitted}: too few interior cells")
    return make_comb(size, fitted)


def _default_period(total: phases.Pair | None) -> phases.Pair:
    rows, columns = (
        max(d for d in range(1, LARGEST_PERIOD + 1) if n % d == 0)
        for n in total or (LARGEST_PERIOD, LARGEST_PERIOD)
    )
    return rows, columns


def _check_period(period: int, size: phases.Pair, total: phases.Pair | None) -> None:
    """Raise `InputError` unless `period` is above 1, divides `total`, and fits."""
    fits = [n for n in range(2, min(size)) if phases.fit_period(size, (n, n)) == (n, n)]
    allowed = [n for n in fits if total is None or all(t % n == 0 for t in total)]
    if period not in allowed:
        what = "a period" if total is None else f"a divisor of the target's stride {total}"
        raise InputError(
            f"perturbation.period = {period}; expected {what} that leaves three cells in the "
            f"interior of {size[0]} x {size[1]} pixels: one of {allowed or 'none'}"
        )
