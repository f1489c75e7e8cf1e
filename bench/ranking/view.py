"""Which rows and columns of a board are shown, and their numbers as a data frame.

Rows are chosen, by the options of `perimetry board`, and cut off after the board is ranked, so that
a rank stays the one among all.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from itertools import chain, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, check_name
from ..records.selection import choose, load_records
from .board import RANKINGS, Board
from .names import check_column
from .row import FACTS, SIZES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from ...suites.base import Suite
    from ..records.record import Record
    from .row import BoardRow


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
    ones. `top` models, or variants where these are ranked, are shown, the last rank first if
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
            check_column("column", name, known)


def shown_groups(board: Board, view: View) -> list[list[BoardRow]]:
    """The rows that are shown, those of one model together where models are ranked or are rows.

    Conditions are on the first row of a group, the model as it is, and its rank gives the order.
    """
    view.check(board)
    together = board.rank == "models" or view.rows == "models"
    groups: dict[object, list[BoardRow]] = {}
    for row in board.rows:
        groups.setdefault(row.model if together else (row.model, row.fill), []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: row.fill != board.base)
    found = [
        rows
        for rows in groups.values()
        if all(one.holds(rows[0].value(one.column)) for one in view.where)
    ]
    places = {id(row): place for place, row in enumerate(board.rows)}
    found.sort(key=lambda rows: places[id(rows[0])])
    return (_last_rank_first(found) if view.worst_first else found)[: view.top]


def _last_rank_first(groups: Sequence[list[BoardRow]]) -> list[list[BoardRow]]:
    """Groups of rows by falling rank; those of one rank, and those without, keep their order."""
    ranked = [rows for rows in groups if rows[0].rank is not None]
    ties = [list(tied) for _, tied in groupby(ranked, key=lambda rows: rows[0].rank)]
    return [rows for tied in reversed(ties) for rows in tied] + [
        rows for rows in groups if rows[0].rank is None
    ]


ALWAYS = ("model", "fill", "rank", "rank.high")
"""Columns of every frame."""


def leaderboard(
    records: Iterable[Record] | Path | str,
    *,
    sort: str | None = None,
    rank: str = RANKINGS[0],
    where: Iterable[str] = (),
    rows: str = ROWS[0],
    columns: Sequence[str] | None = None,
    top: int | None = None,
    worst_first: bool = False,
    intervals: bool = True,
    suites: Mapping[str, Suite] | None = None,
) -> pd.DataFrame:
    """Rank `records`; see `ranking.board` for rows, columns and ranks.

    `records` may also be the path of a folder of records or of a packed file. `sort` is a metric
    column such as `deadpixel.imbalance`; `rank` is `models` or `variants`. The other options are
    those of `perimetry board`: `where` chooses records by KEY=VALUE and rows by conditions such as
    `deadpixel.weakest<0.5`; with `rows` as `models`, a model is one row, and `COLUMN[box]` is the
    number with kernel padding `box`; without `intervals` there is no `.low` and no `.high`. Missing
    numbers are `pandas.NA`, with the reason in the `.reason` column. Raises `MixedRecordsError`,
    `InputError` for a wrong condition, and `UnknownNameError` for a column that no record has, an
    unknown `rank` or kind of `rows`.

    >>> leaderboard("results/mine", rows="models", top=10)  # doctest: +SKIP
    """
    if isinstance(records, str | Path):
        records = load_records(records, tables=False)
    kept, conditions = split_where(where)
    board = Board(choose(records, kept), sort=sort, rank=rank, suites=suites)
    chosen = None if columns is None else tuple(columns)
    return board_frame(board, View(rows, chosen, tuple(conditions), top, worst_first, intervals))


def board_frame(
    board: Board, view: View | None = None, groups: Sequence[Sequence[BoardRow]] | None = None
) -> pd.DataFrame:
    """The rows of `view` with its columns, or all; numbers have nullable types."""
    import pandas as pd

    view = view or View()
    rows = list(frame_rows(board, view, groups))
    frame = pd.DataFrame(rows, columns=list(dict.fromkeys(chain(*rows))))
    return frame.astype({name: _dtype(name) for name in frame.columns})


def frame_rows(
    board: Board, view: View, groups: Sequence[Sequence[BoardRow]] | None = None
) -> Iterator[dict[str, Any]]:
    """Names and values of each row. Where rows are models, `COLUMN[FILL]` are its variants'."""
    for rows in shown_groups(board, view) if groups is None else groups:
        cells = [_chosen(board, row, view) for row in rows]
        if view.rows != "models":
            yield from cells
            continue
        whole = cells[0]
        for row, other in zip(rows[1:], cells[1:], strict=True):
            named = {f"{name}[{row.fill}]": value for name, value in other.items()}
            whole |= {k: v for k, v in named.items() if k.partition("[")[0] not in ALWAYS}
        yield whole


def _chosen(board: Board, row: BoardRow, view: View) -> dict[str, Any]:
    """The cells of the view's columns, with their intervals if shown, reasons and changes."""
    if view.columns is None:
        cells = board.cells(row)
    else:
        names = [board.sort if name == "change" else name for name in view.columns]
        metrics = [name for name in dict.fromkeys(names) if name in board.columns]
        stems = (*metrics, *(f"model.{name}" if name in FACTS else str(name) for name in names))
        cells = {
            key: value
            for key, value in board.cells(row, metrics).items()
            if key in (*ALWAYS, *stems) or key.startswith(tuple(f"{stem}." for stem in metrics))
        }
    if view.intervals:
        return cells
    ends = {key for key in cells if key.endswith((".low", ".high")) and key not in ALWAYS}
    return {key: value for key, value in cells.items() if key not in ends}


def _dtype(column: str) -> str:
    """The nullable pandas type of a column of the frame."""
    stem = column.partition("[")[0]
    if stem in {"rank", "rank.high", *SIZES}:
        return "Int64"
    words = ("model", "fill", "defects", "reason", "status", "error", "method", *FACTS)
    return "string" if stem.rpartition(".")[2] in words else "Float64"
