"""One reference beside our value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Value = float | str | tuple[float, ...]


Verdict = Literal["agrees", "differs, explained", "falls short", "differs"]


VERDICTS: tuple[Verdict, ...] = ("agrees", "differs, explained", "falls short", "differs")


@dataclass(frozen=True)
class ReferenceCheck:
    """One reference beside our value.

    Numbers, and tuples entry by entry, may differ by `tolerance`; texts not at all. With
    `relation` ">=" or "<=" the reference is a bound. `predicted` is what `because`, the
    explanation of a difference, says that our value must be, within `tolerance` and `slack`.
    `shortfall` says what is known of a goal that is missed: no excuse, and no surprise either.
    """

    group: str
    what: str
    source: str
    reference: Value
    ours: Value
    how: str
    tolerance: float = 0.0
    relation: Literal["=", ">=", "<="] = "="
    because: str = ""
    predicted: Value | None = None
    slack: float = 0.0
    shortfall: str = ""

    def __post_init__(self) -> None:
        if bool(self.because) != (self.predicted is not None):
            raise ValueError(f"{self.what}: an explanation and its prediction go together")

    @property
    def verdict(self) -> Verdict:
        """What follows from the values."""
        if _holds(self.ours, self.reference, self.relation, self.tolerance):
            return "agrees"
        slack = self.tolerance + self.slack
        if self.predicted is not None and _holds(self.ours, self.predicted, "=", slack):
            return "differs, explained"
        return "falls short" if self.shortfall else "differs"


def _holds(ours: Value, reference: Value, relation: str, tolerance: float) -> bool:
    if isinstance(ours, str) or isinstance(reference, str):
        return ours == reference
    a, b = np.atleast_1d(ours).astype(np.float64), np.atleast_1d(reference).astype(np.float64)
    if a.shape != b.shape:
        return False
    slack = {"=": -np.abs(a - b), ">=": a - b, "<=": b - a}[relation]
    return bool((slack >= -tolerance).all())


def value_text(value: Value) -> str:
    """A value for a reader: four significant digits, whole numbers in full."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple):
        return ", ".join(map(value_text, value))
    if abs(value) < 1e-9:
        return "0"
    return str(round(value)) if float(value).is_integer() else f"{value:.4g}"
