"""Numbers and lists as text."""

from __future__ import annotations

import math
from typing import Protocol

from .text import clean


class Interval(Protocol):
    """A value that may have an interval."""

    @property
    def value(self) -> float | None:
        """The value, None where it is missing."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""


def format_number(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, without an exponent where it is readable."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return f"{value:.0f}" if float(text) == round(value) else text


def with_interval_text(held: Interval, scale: float = 1.0) -> str:
    """A value with its interval: ± half of it, or both ends where it is lopsided."""
    if held.value is None:
        raise ValueError("there is no value to show")
    value = held.value * scale
    if held.low is None or held.high is None:
        return format_number(value)
    low, high = held.low * scale, held.high * scale
    below, above = value - low, high - value
    half = max(below, above)
    if half <= abs(value) * 1e-6:
        return format_number(value)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{format_number(value)}\u00a0±\u00a0{format_number(half, 2)}"
    if min(below, above) >= 0.8 * half:
        return f"{value:.{decimals}f}\u00a0±\u00a0{half:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def join_with_and(items: list[str], most: int = 6) -> str:
    """`a, b and c`, names made safe; of more than `most` the first, and how many others."""
    shown = [clean(item, 80) for item in items]
    if len(shown) > most:
        return f"{', '.join(shown[:most])} and {len(shown) - most} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)
