"""Heads and cells of a board for people: the columns of a `View`, each in one format."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..output.numbers import column_texts, short_count
from ..output.text import clean
from ..records.selection import why_missing
from .row import SIZES, row_facts

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..output.numbers import Bounded
    from .board import Board
    from .row import BoardRow
    from .view import View

    Groups = Sequence[Sequence[BoardRow]]

MAIN = {
    "deadpixel.weakest": "weakest",
    "deadpixel.imbalance": "imbalance",
    "structure.weakest": "expected",
    "erf.luo_size": "ERF px",
    "erf.r_squared": "R²",
    "fidelity.top1_agreement": "agreement",
}
"""Main columns and their short heads."""

SIZE_HEADS = {"model.parameters": "parameters", "model.macs": "MACs"}
"""Heads of the columns of `SIZES`, which a board that is sorted by one of them has."""

NO_SIZE = (
    "the record has no size of the model: it was made by an older release, or none was counted"
)

DROPPED_FIRST = ("R²", "ERF px", "expected", "imbalance", "agreement")
"""Columns that a narrow terminal does not show, the first to go first."""


@dataclass
class Footnotes:
    """Reasons, numbered in order of appearance; the same reason keeps its number."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The mark `[n]` that stands for `text`."""
        return f"[{self.numbers.setdefault(text, len(self.numbers) + 1)}]"


def table_cells(
    board: Board, groups: Groups, view: View, notes: Footnotes, names: Sequence[str]
) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table; `names` are those of the groups' models."""
    table = _Table(board, groups, view, notes)
    lines = table.lines
    found = [("model", [name for name, rows in zip(names, groups, strict=True) for _ in rows])]
    if view.rows == "models":
        found = [("model", list(names))]
    else:
        marks = [f" {notes.mark(why)}" if (why := untouched(rows[0])) else "" for rows in lines]
        fills = [f"{rows[0].fill}{mark}" for rows, mark in zip(lines, marks, strict=True)]
        found.append(("padding", fills))
    for column in table.columns():
        found += table.column(column)
    heads = [head for head, _ in found]
    return heads, [list(row) for row in zip(*(cells for _, cells in found), strict=True)]


class _Table:
    """The columns of one table. A line of it is a row of the board, or the rows of a model."""

    def __init__(self, board: Board, groups: Groups, view: View, notes: Footnotes) -> None:
        self.board, self.view, self.notes = board, view, notes
        by_model = view.rows == "models"
        self.lines = list(groups) if by_model else [[row] for rows in groups for row in rows]
        self.fills = list(dict.fromkeys(row.fill for rows in groups for row in rows))
        self.treated = [fill for fill in self.fills if fill != board.base] if by_model else []

    def columns(self) -> list[str]:
        """The columns of the view, or the main ones that the board has."""
        if self.view.columns is not None:
            return list(self.view.columns)
        board, sort = self.board, self.board.sort
        main = [column for column in MAIN if column in board.columns]
        if sort in SIZES:
            main = [*SIZES, *main]
        elif sort is not None and sort not in main:
            main = [sort, *main]
        rows = [row for rows in self.lines for row in rows]
        defects = ["defects"] if any(board.defects(row) for row in rows) else []
        changed = any(row.fill != "none" for row in rows) and self.view.rows != "models"
        changed = changed and sort is not None and sort not in SIZES
        return ["rank", *defects, *main, *(["change"] if changed else [])]

    def column(self, name: str) -> list[tuple[str, list[str]]]:
        """The column of this name with its head; where rows are models, one for each variant."""
        if name == "rank":
            ranks = (rows[0].rank for rows in self.lines)
            return [("rank", ["" if rank is None else str(rank) for rank in ranks])]
        if name == "defects":
            return [("defects", [self._defects(rows) for rows in self.lines])]
        if name == "change":
            return self._changes(self.board.sort or "")
        if name in SIZES:
            return [(SIZE_HEADS[name], [self._size(rows[0], name) for rows in self.lines])]
        if "." not in name:
            return [(name, [clean(row_facts(rows[0])[name] or "", 80) for rows in self.lines])]
        return self._metric(name)

    def _metric(self, name: str) -> list[tuple[str, list[str]]]:
        head = MAIN.get(name, name)
        if self.view.rows != "models":
            return [(head, self._numbers([rows[0] for rows in self.lines], name))]
        base = [rows[0] if rows[0].fill == self.board.base else None for rows in self.lines]
        found = [] if name.startswith("fidelity") else [(head, self._numbers(base, name))]
        if name == self.board.sort or not found:
            found += [
                (
                    f"with {fill}" if found else f"{head} with {fill}",
                    self._numbers([self._variant(rows, fill) for rows in self.lines], name),
                )
                for fill in self.treated
            ]
        return found

    @staticmethod
    def _variant(rows: Sequence[BoardRow], fill: str) -> BoardRow | None:
        return next((row for row in rows if row.fill == fill), None)

    def _numbers(self, rows: Sequence[BoardRow | None], column: str) -> list[str]:
        """The values in `column`, in one format, or what is said in place of one."""
        values = [bounded(row, column) for row in rows]
        texts = self._texts(values, column)
        found = []
        for row, value, text in zip(rows, values, texts, strict=True):
            why = untouched(row) if row and self.view.rows == "models" else None
            if why is not None:
                found.append(f"unchanged {self.notes.mark(why)}")
            elif value is not None or row is None:
                found.append(text)
            else:
                found.append(self._missing(row, column))
        return found

    def _texts(
        self, values: Sequence[Bounded | None], column: str, *, signed: bool = False
    ) -> list[str]:
        """Numbers of a column, or changes of them."""
        return column_texts(
            values,
            intervals=self.view.intervals,
            signed=signed,
            counts=self.board.counts(column),
        )

    def _changes(self, column: str) -> list[tuple[str, list[str]]]:
        """Treated less untreated in the sorted column; where rows are models, for each variant."""
        if self.view.rows != "models":
            cells = self._change([rows[0] for rows in self.lines], column)
            return [(f"change of {MAIN.get(column, column)}", cells)]
        variants = {f: [self._variant(rows, f) for rows in self.lines] for f in self.treated}
        return [(f"change with {f}", self._change(v, column)) for f, v in variants.items()]

    def _change(self, rows: Sequence[BoardRow | None], column: str) -> list[str]:
        values = [self.board.change(row, column) if row else None for row in rows]
        bounded = [None if c is None else (c.value, c.low, c.high) for c in values]
        texts = self._texts(bounded, column, signed=True)
        return [
            text
            if text or row is None or row.fill == "none"
            else f"n/a {self.notes.mark('no value to compare')}"
            for row, text in zip(rows, texts, strict=True)
        ]

    def _size(self, row: BoardRow, name: str) -> str:
        size = row.value(name)
        return f"n/a {self.notes.mark(NO_SIZE)}" if size is None else short_count(int(size))

    def _defects(self, rows: Sequence[BoardRow]) -> str:
        """The kinds of a row's defects, such as `dead`; the clauses are in a footnote."""
        clauses = self.board.defects(rows[0])
        kinds = dict.fromkeys(clean(clause.partition(":")[0], 24) for clause in clauses)
        return f"{', '.join(kinds)} {self.notes.mark('; '.join(clauses))}" if clauses else ""

    def _missing(self, row: BoardRow, column: str) -> str:
        record, metric = row.find(column)
        if record is None and column.startswith("fidelity") and row.fill == "none":
            return ""
        word = "failed" if record is not None and record.status == "failed" else "n/a"
        return f"{word} {self.notes.mark(why_missing(record, metric) or '')}"


def bounded(row: BoardRow | None, column: str) -> Bounded | None:
    """The value of a row in a column with the ends of its interval; None without a value."""
    record, metric = row.find(column) if row else (None, "")
    found = record.metrics.get(metric) if record else None
    return None if found is None or found.value is None else (found.value, found.low, found.high)


def untouched(row: BoardRow) -> str | None:
    """Why the kernel padding had no layer to pad; None where it had one, or there is none."""
    treatments = [r.model.treatment for r in row.records.values() if r.model.treatment]
    if not treatments or treatments[0]["layers"]:
        return None
    reasons = dict.fromkeys((treatments[0].get("left") or {}).values())
    return f"untouched: {'; '.join(reasons) or _why_untouched(row)}"


def _why_untouched(row: BoardRow) -> str:
    """Of a network with no uneven layer that kernel padding knows: `structure` may see others.

    It has read the layers: where the kernels of all divide, each reads all of its map equally.
    """
    found = row.records.get("structure")
    coverage = found.metrics.get("coverage") if found else None
    if coverage is not None and coverage.value == 1:
        return "every strided kernel is divisible by its stride"
    return "no strided kernel that it could grow"
