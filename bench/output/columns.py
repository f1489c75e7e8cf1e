"""The numbers of one column of a table in one format: the same decimals, one kind of interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .numbers import LOPSIDED

if TYPE_CHECKING:
    from collections.abc import Sequence

Bounded = tuple[float, float | None, float | None]
"""A value and the ends of its interval, None without one."""

Span = tuple[float, float, float]
"""A value and the ends of its interval."""

DECIMALS = 3

TINY = 0.0005
"""What would be printed as 0 in three decimals."""


def column_texts(
    values: Sequence[Bounded | None], *, intervals: bool = True, signed: bool = False
) -> list[str]:
    """Each value as text, empty for None.

    All have the same decimals: three, or one if a value is 10 or more; in scientific notation where
    all are too small for that. Intervals are all ± their half, or all both ends if one of them is
    lopsided. A half that would be printed as 0 is rounded up.
    """
    form = _Format(max((abs(value[0]) for value in values if value is not None), default=0.0))
    spans = [_span(value) if intervals else None for value in values]
    ends = any(span is not None and _is_lopsided(span) for span in spans)
    found = []
    for value, span in zip(values, spans, strict=True):
        shown = "" if value is None else form.number(value[0], signed=signed)
        if span is not None and ends:
            low, high = (form.number(end, signed=signed) for end in span[1:])
            shown += f" ({low} to {high})"
        elif span is not None:
            shown += f" ±{form.half(max(span[0] - span[1], span[2] - span[0]))}"
        found.append(shown)
    return found


class _Format:
    """How numbers of a column are written whose largest magnitude is `largest`."""

    def __init__(self, largest: float) -> None:
        self.is_tiny = 0 < largest < TINY
        self.places = 1 if largest >= 10 else DECIMALS
        self.least = 10.0**-self.places

    def number(self, value: float, *, signed: bool) -> str:
        """A number of the column; what would read as 0 is below or above the last digit."""
        if value == 0:
            return "0" if self.is_tiny else f"{0:.{self.places}f}"
        plus = "+" if signed else ""
        if self.is_tiny:
            return f"{value:{plus}.1e}"
        if abs(value) < self.least / 2:
            return f"{'>-' if value < 0 else '<'}{self.least:.{self.places}f}"
        return f"{value:{plus}.{self.places}f}"

    def half(self, wide: float) -> str:
        """Half of an interval, rounded up where it would be 0."""
        return f"{wide:.1e}" if self.is_tiny else f"{max(wide, self.least):.{self.places}f}"


def _span(value: Bounded | None) -> Span | None:
    """Value and ends, if they are known and not one number."""
    if value is None or value[1] is None or value[2] is None or value[1] == value[2]:
        return None
    return value[0], value[1], value[2]


def _is_lopsided(span: Span) -> bool:
    below, above = span[0] - span[1], span[2] - span[0]
    return min(below, above) < LOPSIDED * max(below, above)
