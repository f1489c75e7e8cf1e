"""The period of the receptive fields along an axis: after how many units they repeat, moved on.

Behind an upsampling neighbouring units have fields that differ in size and place, and repeat from
one unit of the coarser map to the next. Fields that leave the image are cut off at its border;
where that disturbs the period, only those inside the image are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError

if TYPE_CHECKING:
    from ..base import Array
    from .spans import UnitSpans

NO_PERIOD = (
    "the receptive fields do not repeat from cell to cell, as behind a resize by a fraction or an "
    "adaptive pool"
)


@dataclass(frozen=True)
class FieldPeriod:
    """Fields of the units `place` (units,) from pixel `low` to `high`, which repeat.

    They do so after `period` units of `per_unit` pixels each.
    """

    place: Array
    low: Array
    high: Array
    period: int
    per_unit: float


def field_period(units: UnitSpans, axis: int, pixels: int, least: int = 1) -> FieldPeriod | None:
    """The period along `axis` (0 rows, 1 columns) of an image of `pixels`.

    None if fewer than two cells of `least` pixels have fields inside the image. Raises
    `NotApplicableError` where the fields do not repeat.
    """
    low, high = np.min(units.low[axis], 1 - axis), np.max(units.high[axis], 1 - axis)
    place = np.arange(len(low), dtype=np.float64)
    period = _period(low, high, 1) if len(low) > 1 else None
    if period is None:
        inside = (low > 0) & (high < pixels - 1) & np.isfinite(low)
        low, high, place = low[inside], high[inside], place[inside]
        if len(low) < 2 or high[-1] - low[0] < 2 * least + (high - low).max():
            return None
        period = _period(low, high, len(low) // 2)
    if period is None:
        raise NotApplicableError(NO_PERIOD)
    return FieldPeriod(place, low, high, period, float(low[period] - low[0]) / period)


def _period(low: Array, high: Array, most: int) -> int | None:
    """The smallest number of units, at most `most`, after which both ends have moved alike."""
    for period in range(1, most + 1):
        steps = np.concatenate([x[period:] - x[:-period] for x in (low, high)])
        if np.isfinite(steps).all() and steps[0] > 0 and (steps == steps[0]).all():
            return period
    return None
