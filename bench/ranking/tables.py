"""The board for people and programs: terminal table, Markdown, LaTeX, CSV, JSON.

The table and Markdown show the main columns, with `n/a [1]` or `failed [1]` and the reason in a
footnote where a number is missing. CSV and JSON hold all columns; there, what is missing is empty
or null, with its reason beside it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...adapters.reference import Reference
from ..output.numbers import column_interval, column_number, short_count
from ..output.text import clean, code, spreadsheet
from ..records.selection import said_first, why_missing
from .board import SIZES, BoardRow
from .caption import caption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .board import Board


FORMATS = ("table", "md", "csv", "json", "tex")


MAIN = {
    "deadpixel.weakest": "weakest",
    "deadpixel.imbalance": "imbalance",
    "structure.weakest": "expected",
    "erf.luo_size": "ERF px",
    "erf.r_squared": "R²",
    "fidelity.top1_agreement": "agreement",
}
"""Columns of the table and their short heads."""


SIZE_HEADS = {"model.parameters": "parameters", "model.macs": "MACs"}
"""Heads of the columns of `SIZES`, which a board that is sorted by one of them has."""

NO_SIZE = (
    "the record has no size of the model: it was made by an older release, or none was counted"
)

CHANGES = ("deadpixel.weakest",)


DROPPED_FIRST = ("R²", "ERF px", "expected", "imbalance", "agreement")
"""Columns that a narrow terminal does not show, the first to go first."""


MODEL_WIDTH = 32


@dataclass
class Footnotes:
    """Reasons, numbered in order of appearance; the same reason keeps its number."""

    numbers: dict[str, int] = field(default_factory=dict)

    def mark(self, text: str) -> str:
        """The mark `[n]` that stands for `text`."""
        return f"[{self.numbers.setdefault(text, len(self.numbers) + 1)}]"


def render_board(board: Board, form: str, *, width: int | None = None) -> str:
    """The board as `form`, one of `FORMATS`; a table drops columns until it fits `width`."""
    if form == "csv":
        return to_csv(board)
    if form == "json":
        return to_json(board)
    if form == "md":
        return _to_markdown(board)
    if form == "tex":
        return _to_latex(board)
    return _to_table(board, width)


def to_csv(board: Board) -> str:
    """All columns; text that a spreadsheet could read as a formula is quoted."""
    frame = board.frame()
    for name in frame.columns:
        values = frame[name]
        if values.map(lambda v: isinstance(v, str)).any():
            frame[name] = values.map(lambda v: spreadsheet(v) if isinstance(v, str) else v)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def to_json(board: Board) -> str:
    """All columns, rows in rank order, with the caption."""
    content = {
        "sort": board.sort,
        "ranked": board.rank,
        "caption": caption(board),
        "rows": [board.cells(row) for row in board.rows],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _to_markdown(board: Board) -> str:
    notes = Footnotes()
    heads, rows = _main_cells(board, notes, code)
    parts = [_tabulated(heads, rows, "pipe"), *map(code, _warnings(board)), *caption(board)]
    parts += [f"[{n}] {code(text)}" for text, n in notes.numbers.items()]
    return "\n\n".join(parts) + "\n"


def _to_latex(board: Board) -> str:
    """A `tabular` for the booktabs package, with the caption and footnotes as comments above it."""
    from tabulate import tabulate

    notes = Footnotes()
    heads, rows = _main_cells(board, notes, _short_name)
    notes_above = [
        *map(clean, _warnings(board)),
        *caption(board),
        *(f"[{n}] {clean(text)}" for text, n in notes.numbers.items()),
    ]
    align = ["left", "left"] + ["right"] * (len(heads) - 2)
    table = tabulate(
        [[cell.replace("±", "$PM$") for cell in row] for row in rows],
        heads,
        tablefmt="latex_booktabs",
        disable_numparse=True,
        colalign=align,
    )
    body = table.replace(r"\$PM\$", r"$\pm$")
    return (
        "\n".join([*(f"% {line}" for line in notes_above), r"% \usepackage{booktabs}", body]) + "\n"
    )


def _to_table(board: Board, width: int | None) -> str:
    notes = Footnotes()
    heads, rows = _main_cells(board, notes, _short_name)
    text, hidden = _fitted(heads, rows, width)
    lines = [text, "", *(clean(line) for line in _warnings(board)), *caption(board)]
    if hidden:
        lines.append(f"Hidden to fit the terminal: {', '.join(hidden)}.")
    lines += [f"[{n}] {clean(text)}" for text, n in notes.numbers.items()]
    return "\n".join(lines) + "\n"


def _fitted(heads: list[str], rows: list[list[str]], width: int | None) -> tuple[str, list[str]]:
    """The table without the columns that do not fit `width`, and these columns."""
    hidden: list[str] = []
    candidates = [head for head in DROPPED_FIRST if head in heads]
    while True:
        kept = [i for i, head in enumerate(heads) if head not in hidden]
        text = _tabulated([heads[i] for i in kept], [[r[i] for i in kept] for r in rows], "simple")
        if width is None or not candidates or len(text.split("\n", 1)[0]) <= width:
            return text, hidden
        hidden.append(candidates.pop(0))


def _tabulated(heads: Sequence[str], rows: Sequence[Sequence[str]], form: str) -> str:
    from tabulate import tabulate

    align = ["left", "left"] + ["right"] * (len(heads) - 2)
    text: str = tabulate(rows, heads, tablefmt=form, disable_numparse=True, colalign=align)
    return text


def _main_cells(
    board: Board, notes: Footnotes, name: Callable[[str], str]
) -> tuple[list[str], list[list[str]]]:
    """Heads and cells of the main columns that some row has."""
    columns = {c: head for c, head in MAIN.items() if c in board.columns}
    if board.sort in SIZES:
        columns = {**SIZE_HEADS, **columns}
    elif board.sort is not None and board.sort not in columns:
        columns = {board.sort: board.sort, **columns}
    treated = any(row.fill != "none" for row in board.rows)
    changes = [c for c in CHANGES if treated and c in columns]
    defective = any(board.defects(row) for row in board.rows)
    heads = [
        "model",
        "padding",
        "rank",
        *(["defects"] if defective else []),
        *columns.values(),
        *(f"change of {columns[c]}" for c in changes),
    ]
    rows = [
        [
            name(row.model),
            _fill_cell(row, notes),
            "" if row.rank is None else str(row.rank),
            *([_defects_cell(board, row, notes)] if defective else []),
            *(_cell(board, row, column, notes) for column in columns),
            *(_change_cell(board, row, column, notes) for column in changes),
        ]
        for row in board.rows
    ]
    return heads, rows


def _short_name(reference: str) -> str:
    """The reference without `timm:`; of a long path its end, of another long one both ends."""
    parsed = Reference.parse_any(reference)
    name = clean(parsed.short, 10_000)
    if len(name) > MODEL_WIDTH and parsed.runtime == "onnx":
        return f"...{name[3 - MODEL_WIDTH :]}"
    return clean(name, MODEL_WIDTH)


def _fill_cell(row: BoardRow, notes: Footnotes) -> str:
    """The kernel padding; marked if it had no layer to pad."""
    treatments = [r.model.treatment for r in row.records.values() if r.model.treatment]
    if treatments and not treatments[0]["layers"]:
        reasons = dict.fromkeys((treatments[0].get("left") or {}).values())
        why = "; ".join(reasons) or "every strided kernel is divisible by its stride"
        return f"{row.fill} {notes.mark(f'untouched: {why}')}"
    return row.fill


def _defects_cell(board: Board, row: BoardRow, notes: Footnotes) -> str:
    """The kinds of a row's defects, such as `dead`; the clauses are in a footnote."""
    clauses = board.defects(row)
    kinds = dict.fromkeys(clean(clause.partition(":")[0], 24) for clause in clauses)
    return f"{', '.join(kinds)} {notes.mark('; '.join(clauses))}" if clauses else ""


def _cell(board: Board, row: BoardRow, column: str, notes: Footnotes) -> str:
    if column in SIZES:
        size = row.value(column)
        return f"n/a {notes.mark(NO_SIZE)}" if size is None else short_count(int(size))
    record, metric = row.find(column)
    estimate = record.metrics.get(metric) if record else None
    if estimate is None or estimate.value is None:
        return _missing_cell(row, column, notes)
    if column != board.sort and column not in CHANGES:
        return column_number(estimate.value)
    return column_interval(
        column_number(estimate.value), estimate.value, estimate.low, estimate.high
    )


def _warnings(board: Board) -> list[str]:
    """A line for each row whose notes change what all of its numbers mean."""
    found: dict[str, None] = {}
    for row in board.rows:
        for note in said_first(row.records.values()):
            found[f"{row.model}: {note}."] = None
    return list(found)


def _missing_cell(row: BoardRow, column: str, notes: Footnotes) -> str:
    record, metric = row.find(column)
    if record is None and column.startswith("fidelity") and row.fill == "none":
        return ""
    word = "failed" if record is not None and record.status == "failed" else "n/a"
    return f"{word} {notes.mark(why_missing(record, metric) or '')}"


def _change_cell(board: Board, row: BoardRow, column: str, notes: Footnotes) -> str:
    cells: dict[str, Any] = board.cells_of(row, column)
    value = cells.get(f"{column}.change")
    if value is None:
        return "" if row.fill == "none" else f"n/a {notes.mark('no value to compare')}"
    low, high = cells[f"{column}.change.low"], cells[f"{column}.change.high"]
    return column_interval(f"{value:+.3f}", value, low, high)
