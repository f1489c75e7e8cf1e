"""Which rows and columns of a board are shown, by the options of `perimetry board`.

Rows are chosen and cut off after the board is ranked, so that a rank stays the one among all.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapters.errors import InputError, check_name
from .board import SIZES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .board import Board, BoardRow

ROWS = ("variants", "models")
"""What a row is: a variant (a model with one kernel padding), or a model with all its variants."""

TEXTS = ("family", "input", "library", "target", "precision")
"""Columns of words about a model."""

OTHERS = ("rank", "defects", "change", *TEXTS)
"""Names of columns other than metrics and sizes; `change` is that of the sorted column."""

UNITS = {"k": 1e3, "M": 1e6, "G": 1e9}

COMPARED = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}

CONDITION = re.compile(r"([^<>=]+?)\s*(<=|>=|<|>)\s*([-+.\de]+)([kMG]?)")


@dataclass(frozen=True)
class Condition:
    """A number that a column must be above or below."""

    column: str
    compare: str
    limit: float

    def holds(self, value: float | None) -> bool:
        """Whether `value` satisfies it; a missing value does not."""
        return value is not None and bool(COMPARED[self.compare](value, self.limit))


def split_where(texts: Iterable[str]) -> tuple[list[str], list[Condition]]:
    """Texts KEY=VALUE, which choose records, and conditions such as `deadpixel.weakest<0.5`.

    Limits may end in k, M or G. Raises `InputError` for a limit that is not a number.
    """
    facts, conditions = [], []
    for text in texts:
        found = CONDITION.fullmatch(text.strip())
        if found is None:
            facts.append(text)
            continue
        try:
            limit = float(found[3]) * UNITS.get(found[4], 1.0)
        except ValueError:
            raise InputError(
                f"--where {text!r} was given; expected COLUMN<NUMBER, such as model.parameters<5M"
            ) from None
        conditions.append(Condition(found[1], found[2], limit))
    return facts, conditions


@dataclass(frozen=True)
class View:
    """Rows and columns that are shown.

    `rows` is one of `ROWS`. `columns` are metric columns, `SIZES` or `OTHERS`; None for the main
    ones. `top` models, or variants where these are ranked, are shown, the last first if
    `worst_first`. Without `intervals`, numbers stand alone.
    """

    rows: str = ROWS[0]
    columns: tuple[str, ...] | None = None
    where: tuple[Condition, ...] = ()
    top: int | None = None
    worst_first: bool = False
    intervals: bool = True

    def check(self, board: Board) -> None:
        """Raise `UnknownNameError` for rows or columns that `board` does not have."""
        check_name("kind of rows", self.rows, ROWS)
        known = [*board.columns, *SIZES, *OTHERS]
        for name in [*(self.columns or ()), *(one.column for one in self.where)]:
            check_name("column", name, known)


def shown_groups(board: Board, view: View) -> list[list[BoardRow]]:
    """The rows that are shown, those of one model together where models are ranked or are rows.

    Conditions are on the first row of a group: the model as it is.
    """
    view.check(board)
    together = board.rank == "models" or view.rows == "models"
    groups: dict[object, list[BoardRow]] = {}
    for row in board.rows:
        groups.setdefault(row.model if together else (row.model, row.fill), []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: row.fill != board.base)
    found = [rows for rows in groups.values() if _all_hold(view.where, rows[0])]
    if view.worst_first:
        sorted_by = board.sort or ""
        ranked = [rows for rows in found if rows[0].value(sorted_by) is not None]
        found = ranked[::-1] + [rows for rows in found if rows[0].value(sorted_by) is None]
    return found[: view.top]


def _all_hold(conditions: Sequence[Condition], row: BoardRow) -> bool:
    return all(one.holds(row.value(one.column)) for one in conditions)
