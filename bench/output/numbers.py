"""Numbers and lists as text; the numbers of one column of a table in one format."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...suites.measuring.findings import join_names
from .text import clean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def format_number(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, with an exponent if it is very small or large."""
    if is_zero(value):
        return "0"
    if not math.isfinite(value):
        return f"{value:g}"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return f"{value:.0f}" if float(text) == round(value) else text


NO_NUMBER = 1e-28
"""Magnitudes below this are rounding: a variance of equal float64 numbers is about 1e-32."""


def is_zero(value: float) -> bool:
    """Whether `value` is 0 but for the rounding of float64."""
    return abs(value) < NO_NUMBER


LOPSIDED = 0.8
"""Both ends of an interval are shown if the nearer is closer than this share of the farther one."""


def is_lopsided(value: float, low: float, high: float) -> bool:
    """Whether ± its half says of an interval what is not so.

    Its ends are at different distances, or it ends at 0 or at 1, where a range may end: what is
    0.038 within [0, 0.079] is nowhere below 0. `page_core.js` asks the same.
    """
    near, far = sorted((value - low, high - value))
    return near < LOPSIDED * far or low == 0 or high == 1


def with_interval_text(value: float, low: float | None, high: float | None) -> str:
    """A value with its interval to two digits: ± half of it, or both ends if it is lopsided."""
    if low is None or high is None:
        return format_number(value)
    half = max(value - low, high - value)
    if half <= abs(value) * 1e-6:
        return format_number(value)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{format_number(value)}\u00a0±\u00a0{format_number(half, 2)}"
    if not is_lopsided(value, low, high):
        return f"{value:.{decimals}f}\u00a0±\u00a0{half:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def column_number(value: float) -> str:
    """A number for a column of a board, with three decimals under 10 and one above.

    Tiny numbers are in scientific notation. `page_core.js` writes the page's numbers in this way.
    """
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def six_digits(value: float) -> float:
    """`value` to six significant digits, as pages and published results have it."""
    return float(f"{value:.6g}")


def join_with_and(items: list[str], most: int = 6) -> str:
    """`a, b and c`, names made safe; of more than `most` the first, and how many others."""
    return join_names([clean(item, 80) for item in items], most)


def short_count(count: int) -> str:
    """A large whole number with three digits: `4.09 G`, `25.6 M`, `312`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


Bounded = tuple[float, float | None, float | None]
"""A value and the ends of its interval, None without one."""

Span = tuple[float, float, float]
"""A value and the ends of its interval."""

DECIMALS = 3

TINY = 0.0005
"""What would be printed as 0 in three decimals."""


def column_texts(
    values: Sequence[Bounded | None],
    *,
    intervals: bool = True,
    signed: bool = False,
    counts: bool = False,
) -> list[str]:
    """Each value as text, empty for None.

    All have the same decimals: three, or one if a value is 10 or more; in scientific notation where
    all are too small for that. `counts` have none if all of them are whole and certain. Intervals
    are all ± their half, or all both ends if one of them is lopsided. A half that would be printed
    as 0 is rounded up.
    """
    known = [value for value in values if value is not None]
    if counts and are_whole(known):
        return ["" if value is None else _whole(value[0], signed=signed) for value in values]
    form = _Format(max((abs(value[0]) for value in known), default=0.0))
    spans = [_span(value) if intervals else None for value in values]
    ends = any(is_lopsided(*span) for span in spans if span is not None)
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


def are_whole(values: Iterable[Bounded]) -> bool:
    """Whether all are whole numbers without an interval."""
    return all(float(value[0]).is_integer() and _span(value) is None for value in values)


def _whole(value: float, *, signed: bool) -> str:
    return f"{value:+.0f}" if signed and value else f"{value:.0f}"


class _Format:
    """How numbers of a column are written whose largest magnitude is `largest`."""

    def __init__(self, largest: float) -> None:
        self.is_tiny = NO_NUMBER <= largest < TINY
        self.places = 1 if largest >= 10 else DECIMALS
        self.least = 10.0**-self.places

    def number(self, value: float, *, signed: bool) -> str:
        """A number of the column; what would read as 0 is below or above the last digit."""
        if is_zero(value):
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
