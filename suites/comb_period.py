"""Which period the phase comb gets: a divisor of the target's stride that fits the image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..adapters.errors import InputError
from . import phases
from .comb import Comb, make_comb
from .deadpixel import stride

if TYPE_CHECKING:
    from ..adapters.model import Model

LARGEST_PERIOD = 4
"""Of the comb, unless the user says otherwise: its cost grows with the square."""


def choose_comb(model: Model, period: int | None, notes: list[str]) -> Comb | str:
    """The comb for `model`, or the reason why there are no phases to tell apart.

    Raises `InputError` when `period` does not divide the total stride, or leaves no room.
    """
    size = (model.spec.height, model.spec.width)
    total = None if model.target is None else stride(model)
    if total is None:
        notes.append(
            "no spatial map: F are the logits, and the comb's period is not a stride of theirs"
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
        return "no period fits three interior cells: there are no phases"
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
