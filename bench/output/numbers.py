"""Numbers and lists as text."""

from __future__ import annotations

import math
from typing import Protocol

from ...suites.measuring.findings import join_names
from .text import clean


class Interval(Protocol):
    """A value that may have an interval."""

    @property
    def value(self) -> float | None:
        """The value, or None if it is missing."""

    @property
    def low(self) -> float | None:
        """Lower end of the interval."""

    @property
    def high(self) -> float | None:
        """Upper end of the interval."""


def format_number(value: float, digits: int = 3) -> str:
    """`value` to `digits` significant digits, with an exponent if it is very small or large."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if not 1e-4 <= abs(value) < 1e7:
        return f"{value:.{digits - 1}e}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:.{decimals}f}"
    return f"{value:.0f}" if float(text) == round(value) else text


LOPSIDED = 0.8
"""Both ends of an interval are shown if the nearer is closer than this share of the farther one."""


def with_interval_text(estimate: Interval) -> str:
    """A value with its interval to two digits: ± half of it, or both ends if it is lopsided.

    Raises `ValueError` without a value.
    """
    value, low, high = estimate.value, estimate.low, estimate.high
    if value is None:
        raise ValueError("there is no value to show")
    if low is None or high is None:
        return format_number(value)
    half = max(value - low, high - value)
    if half <= abs(value) * 1e-6:
        return format_number(value)
    decimals = max(0, 1 - math.floor(math.log10(half)))
    if decimals > 6:
        return f"{format_number(value)}\u00a0±\u00a0{format_number(half, 2)}"
    if min(value - low, high - value) >= LOPSIDED * half:
        return f"{value:.{decimals}f}\u00a0±\u00a0{half:.{decimals}f}"
    return f"{value:.{decimals}f} ({low:.{decimals}f} to {high:.{decimals}f})"


def column_number(value: float) -> str:
    """A number for a column of a board, with three decimals under 10 and one above.

    Tiny numbers are in scientific notation. `page_core.js` writes the page's numbers in this way.
    """
    if value != 0 and abs(value) < 0.0005:
        return f"{value:.0e}"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def column_interval(text: str, value: float, low: float | None, high: float | None) -> str:
    """`text`, which is the number `value`, with its interval; `text` alone without one."""
    if low is None or high is None:
        return text
    half = max(value - low, high - value)
    if half == 0:
        return text
    if min(value - low, high - value) >= LOPSIDED * half:
        aligned = abs(value) >= 10 and half >= 0.1
        return f"{text} ±{half:.1f}" if aligned else f"{text} ±{column_number(half)}"
    decimals = 3 if half < 0.05 else 2 if abs(value) < 10 else 1
    sign = "+" if text.startswith(("+", "-")) else ""
    return f"{text} ({low:{sign}.{decimals}f} to {high:{sign}.{decimals}f})"


def join_with_and(items: list[str], most: int = 6) -> str:
    """`a, b and c`, names made safe; of more than `most` the first, and how many others."""
    return join_names([clean(item, 80) for item in items], most)


def short_count(count: int) -> str:
    """A large whole number with three digits: `4.09 G`, `25.6 M`, `312`."""
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
