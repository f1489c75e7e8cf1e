"""The numbers of one column of a table in one format: the same decimals, one kind of interval."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from .numbers import LOPSIDED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Bounded = tuple[float, float | None, float | None]
"""A value and the ends of its interval, None without one."""

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
    known = [value for value in values if value is not None]
    text = _text(known, signed)
    spans = [_span(value) for value in values]
    if not intervals or not any(spans):
        return ["" if value is None else text(value[0]) for value in values]
    ends = any(span is not None and _is_lopsided(span) for span in spans)
    found = []
    for value, span in zip(values, spans, strict=True):
        shown = "" if value is None else text(value[0])
        if span is not None:
            shown += f" ({text(span[1])} to {text(span[2])})" if ends else f" ±{_half(span, known)}"
        found.append(shown)
    return found


def _text(known: Sequence[Bounded], signed: bool) -> Callable[[float], str]:
    largest = max((abs(value[0]) for value in known), default=0.0)
    plus = "+" if signed else ""
    if 0 < largest < TINY:
        return lambda value: f"{value:{plus}.1e}" if value else "0"
    places = _places(known)
    least = 10.0**-places

    def text(value: float) -> str:
        if value and abs(value) < least / 2:
            return f"{'>-' if value < 0 else '<'}{least:.{places}f}"
        return f"{value:{plus}.{places}f}" if value or not signed else f"{0:.{places}f}"

    return text


def _places(known: Sequence[Bounded]) -> int:
    """Decimals of a column."""
    return 1 if any(abs(value[0]) >= 10 for value in known) else DECIMALS


def _span(value: Bounded | None) -> tuple[float, float, float] | None:
    """Value and ends, if they are known and not one number."""
    if value is None or value[1] is None or value[2] is None or value[1] == value[2]:
        return None
    return value[0], value[1], value[2]


def _is_lopsided(span: tuple[float, float, float]) -> bool:
    below, above = span[0] - span[1], span[2] - span[0]
    return min(below, above) < LOPSIDED * max(below, above)


def _half(span: tuple[float, float, float], known: Sequence[Bounded]) -> str:
    """The wider half, rounded up where it would be 0."""
    half, places = max(span[0] - span[1], span[2] - span[0]), _places(known)
    if 0 < max(abs(value[0]) for value in known) < TINY:
        return f"{half:.1e}"
    least = 10.0**-places
    return f"{math.ceil(half / least) * least if half < least / 2 else half:.{places}f}"
