"""The numbers of a board for programs: a data frame, or a mapping for each row."""

from __future__ import annotations

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records.selection import choose, load_records
from .board import FACTS, RANKINGS, SIZES, Board
from .view import ROWS, View, shown_groups, split_where

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import pandas as pd

    from ...suites.base import Suite
    from ..records.record import Record
    from .board import BoardRow

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
    return cells if view.intervals else {k: v for k, v in cells.items() if not _is_end(k)}


def _is_end(key: str) -> bool:
    """Whether a cell is an end of the interval of an estimate or of a change."""
    return key.endswith((".low", ".high")) and key not in ALWAYS


def _dtype(column: str) -> str:
    """The nullable pandas type of a column of the frame."""
    stem = column.partition("[")[0]
    if stem in {"rank", "rank.high", *SIZES}:
        return "Int64"
    words = ("model", "fill", "defects", "reason", "status", "error", "method", *FACTS)
    return "string" if stem.rpartition(".")[2] in words else "Float64"
