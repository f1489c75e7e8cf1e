"""Ranks that hold for a whole board at once.

All pairs of rows are tested together by Holm's method, so that the chance of telling any two equal
models of a board apart is at most 5 %, however many there are. A row's rank is then known to an
interval: above it are at least as many rows as are shown to be better, below it at least as many as
are shown to be worse (confidence sets for ranks; Mogstad, Romano, Shaikh and Wilhelm 2024).

A pair's difference is divided by its standard error, the spread of the difference of the rows'
draws, and compared with Student's t of one degree of freedom less than the samples behind them;
draws of rows that rest on the same samples are paired, those of others are independent.
Exact values, and those of an estimate with an exact one, differ where their printed digits do.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.stats import t as student

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from ...suites.base import Array

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

LEVEL = 0.05
"""Chance that any two equal rows of a board are told apart."""

DIGITS = 3
"""Decimals to which exact values are printed; values that agree in them tie."""

REPLICATES = 200


@dataclass(frozen=True)
class Ranked:
    """One value to rank: higher is better.

    `draws` are its replicates, None without them; `error` is its standard error then, 0 for an
    exact value, None for an estimate whose error is unknown. `samples` are behind an estimate;
    values of one `group` rest on the same ones.
    """

    value: float
    draws: Array | None = None
    error: float | None = 0.0
    samples: int = 1000
    group: str = ""


@dataclass(frozen=True)
class Rank:
    """The best and the worst rank that a row may have, from 1."""

    low: int
    high: int

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low} to {self.high}"


def rank_rows(rows: Sequence[Ranked]) -> list[Rank]:
    """The rank of each row, in their order."""
    if not rows:
        return []
    if all(row.draws is None and row.error == 0 for row in rows):
        return _exact_ranks(np.round([row.value for row in rows], DIGITS))
    better = better_pairs(rows)
    above, below = better.sum(0), better.sum(1)
    return [Rank(1 + int(a), len(rows) - int(b)) for a, b in zip(above, below, strict=True)]


def _exact_ranks(values: Array) -> list[Rank]:
    """Ranks of exact values, which are rounded already."""
    ordered = np.sort(values)
    above = len(values) - np.searchsorted(ordered, values, side="right")
    below = np.searchsorted(ordered, values, side="left")
    return [Rank(1 + int(a), len(values) - int(b)) for a, b in zip(above, below, strict=True)]


def better_pairs(rows: Sequence[Ranked]) -> Mask:
    """Where row i is shown to be better than row j: (rows, rows)."""
    values = np.array([row.value for row in rows])
    gaps = values[:, None] - values[None]
    errors = _errors(rows)
    exact = errors == 0
    freedom = np.array([max(row.samples - 1, 1) for row in rows])
    freedom = np.minimum(freedom[:, None], freedom[None])
    ratios = np.abs(gaps) / np.where(exact, 1.0, errors)
    p = np.where(exact, 1.0, 2 * student.sf(ratios, freedom))
    shown = _holm(np.nan_to_num(p, nan=1.0))
    digits = np.round(values, DIGITS)
    shown |= exact & (digits[:, None] != digits[None])
    better: Mask = shown & (gaps > 0)
    return better


def _errors(rows: Sequence[Ranked]) -> Array:
    """Standard errors of all differences (rows, rows); NaN where one is unknown."""
    draws = _replicates(rows)
    spread = draws.var(1, ddof=1)
    products = (draws - draws.mean(1, keepdims=True)) @ (draws - draws.mean(1, keepdims=True)).T
    square = spread[:, None] + spread[None] - 2 * products / (draws.shape[1] - 1)
    errors: Array = np.sqrt(np.maximum(square, 0.0))
    scale = np.sqrt(spread[:, None] + spread[None])
    errors[errors < 1e-9 * scale] = 0.0  # identical draws: what is left is rounding
    unknown = np.array([row.draws is None and row.error is None for row in rows])
    errors[unknown[:, None] | unknown[None]] = np.nan
    np.fill_diagonal(errors, np.nan)
    return errors


def _replicates(rows: Sequence[Ranked]) -> Array:
    """Replicates (rows, draws): a row's own, shuffled alike within its group, or normal ones."""
    counts = [len(row.draws) for row in rows if row.draws is not None]
    count = min(counts, default=REPLICATES)
    found = np.empty((len(rows), count))
    groups = sorted({row.group for row in rows})
    orders = {g: np.random.default_rng([1, k]).permutation(count) for k, g in enumerate(groups)}
    for place, row in enumerate(rows):
        if row.draws is not None:
            found[place] = row.draws[:count][orders[row.group]]
        else:
            noise = np.random.default_rng([2, place]).standard_normal(count)
            noise = (noise - noise.mean()) / noise.std(ddof=1)
            found[place] = row.value + (row.error or 0.0) * noise
    return found


def _holm(p: Array) -> Mask:
    """Which pairs of the symmetric `p` (rows, rows) differ at `LEVEL`, all of them together."""
    upper = np.triu_indices(len(p), 1)
    flat = p[upper]
    order = np.argsort(flat, kind="stable")
    limits = LEVEL / (len(flat) - np.arange(len(flat)))
    failed = flat[order] > limits
    last = int(failed.argmax()) if failed.any() else len(flat)
    shown = np.zeros(p.shape, dtype=bool)
    rows, columns = upper[0][order[:last]], upper[1][order[:last]]
    shown[rows, columns] = shown[columns, rows] = True
    return shown
