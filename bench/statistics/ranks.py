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
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any

    from ...suites.base import Array

    Mask = np.ndarray[Any, np.dtype[np.bool_]]
    Places = np.ndarray[Any, np.dtype[np.intp]]

LEVEL = 0.05
"""Chance that any two equal rows of a board get different ranks."""

DIGITS = 3
"""Decimals to which exact values are printed; values that agree in them tie."""

AT_ONCE = 2**20
"""About how many pairs are compared at once: those of all rows do not fit into memory."""

REMEMBERED = 2**24
"""The largest number of pairs that are kept between Holm's steps, and not computed again."""

ROUNDING = 1e-6
"""Draws whose difference spreads by less than this share of themselves are of one function, in two
formats or runtimes: float32 sums in another order."""

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
    above, below = np.zeros(len(rows), dtype=int), np.zeros(len(rows), dtype=int)
    for better, worse in better_pairs(rows):
        above += np.bincount(worse, minlength=len(rows))
        below += np.bincount(better, minlength=len(rows))
    return [Rank(1 + int(a), len(rows) - int(b)) for a, b in zip(above, below, strict=True)]


def _exact_ranks(values: Array) -> list[Rank]:
    """Ranks of exact values, which are rounded already."""
    ordered = np.sort(values)
    above = len(values) - np.searchsorted(ordered, values, side="right")
    below = np.searchsorted(ordered, values, side="left")
    return [Rank(1 + int(a), len(values) - int(b)) for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True)
class _Pairs:
    """Pairs of rows in order of their values: row `first` + i with row `first` + j, j > i.

    `squares` (i, j) are their t statistics squared: infinite where they are shown to differ
    whatever the level, -1 where nothing can show it, or where the pair is not one of these.
    """

    first: int
    squares: Array

    def beyond(self, limits: Array) -> Mask:
        """Which pairs are beyond the limits of t squared (rows,); of a pair the larger counts."""
        own, others = limits[self.first :][: len(self.squares)], limits[self.first :]
        found: Mask = self.squares >= others
        if np.ptp(limits):
            found &= self.squares >= own[:, None]
        return found


def better_pairs(rows: Sequence[Ranked]) -> Iterator[tuple[Places, Places]]:
    """Places of rows and of rows that each is shown to be better than, some pairs at a time."""
    order = np.argsort([-row.value for row in rows], kind="stable")
    ordered = [rows[place] for place in order]
    compare = partial(_all_pairs, ordered, _replicates(rows)[order])
    count = len(rows) * (len(rows) - 1) // 2
    kept = list(compare()) if count <= REMEMBERED else None
    freedom = np.array([max(row.samples - 1, 1) for row in ordered])
    limits = _holm(lambda: kept if kept is not None else compare(), count, freedom)
    for pairs in kept if kept is not None else compare():
        i, j = np.nonzero(pairs.beyond(limits))
        yield order[i + pairs.first], order[j + pairs.first]


def _all_pairs(rows: Sequence[Ranked], draws: Array) -> Iterator[_Pairs]:
    """All pairs of `rows`, the highest value first, with their replicates (rows, draws)."""
    values = np.array([row.value for row in rows])
    digits = np.round(values, DIGITS)
    unknown = np.array([row.draws is None and row.error is None for row in rows])
    centred = draws - draws.mean(1, keepdims=True)
    spread = (centred**2).sum(1) / (draws.shape[1] - 1)
    step = max(1, AT_ONCE // len(rows))
    for first in range(0, len(rows), step):
        own, others = slice(first, first + step), slice(first, None)
        products = centred[own] @ centred[others].T / (draws.shape[1] - 1)
        scale = spread[own, None] + spread[None, others]
        error = np.maximum(scale - 2 * products, 0.0)
        exact = error < ROUNDING**2 * scale  # one function: what is left is rounding
        exact |= error == 0
        squares = (values[own, None] - values[None, others]) ** 2 / np.where(exact, 1.0, error)
        printed = digits[own, None] != digits[None, others]
        squares[exact] = np.where(printed[exact], np.inf, -1.0)
        squares[unknown[own]] = -1.0
        squares[:, unknown[others]] = -1.0
        squares[:, : len(squares)][np.tri(len(squares), dtype=bool)] = -1.0
        yield _Pairs(first, squares)


def _holm(all_pairs: Callable[[], Iterable[_Pairs]], count: int, freedom: Array) -> Array:
    """Limits of t squared (rows,) beyond which pairs differ at `LEVEL`, all of them together.

    Holm's steps: after `shown` of `count` pairs, the next ones are tested at the level over the
    number of pairs that is left. `freedom` (rows,) are the degrees of freedom; a pair has
    those of the row with fewer, whose limit is the larger.
    """
    shown = 0
    while True:
        limits: Array = stdtrit(freedom, LEVEL / 2 / max(count - shown, 1)) ** 2
        found = sum(
            int(np.count_nonzero(pairs.beyond(limits) & np.isfinite(pairs.squares)))
            for pairs in all_pairs()
        )
        if found == shown:
            return limits
        shown = found


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
