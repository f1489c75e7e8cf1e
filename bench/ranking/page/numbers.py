"""The numbers of a page: for each metric and kernel padding a column with one entry per model.

Models are in the order of the board. Numbers have six significant digits; the records that a
panel offers for download have all digits. Ranks are by the board's rule, for every metric.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from ....suites.deadpixel.suite import NOT_ALWAYS_BETTER
from ...output.numbers import are_whole, column_number, six_digits
from ...output.templates import asset
from ...output.text import clean
from ...records.selection import family, input_size, why_missing
from ..caption import caption
from ..cells import MAIN
from ..row import SIZES
from ..view import View

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...records.record import Record
    from ..board import Board
    from ..row import BoardRow
    from .join import Joined


Grid = dict[str, dict[str, "BoardRow"]]
"""Rows by model and kernel padding."""


Side = list["BoardRow | None"]
"""The row of each model with one kernel padding."""


SCREEN = 16
"""The number of rows that are in sight when a page opens."""


COSTS = {
    "gradients": ("seconds of gradients", "gradients_s"),
    "measure": ("seconds of measuring, beside gradients", "measure_s"),
    "memory": ("peak memory (MiB)", "peak_memory_mib"),
}
"""The costs of measuring: their titles and the fields of `Timing`."""


def content(
    board: Board, joined: Joined | None = None, *, lean: bool = False, view: View | None = None
) -> dict[str, Any]:
    """Everything the page needs before a model is opened.

    If it is to be `lean`, draws are read for the ranks and the differences of the sorted column
    alone; those of exact columns need none.
    """
    grid = _grid(board)
    fills = list(dict.fromkeys([board.base, *(row.fill for row in board.rows)]))
    sides = {fill: [rows.get(fill) for rows in grid.values()] for fill in fills}
    reasons: dict[str, int] = {}  # texts that many cells share, with their places
    columns = board.columns
    numbers = {fill: _numbers(side, columns, reasons) for fill, side in sides.items()}
    sampled = _sampled(board) if lean else set()
    for column in columns:
        if column == board.sort or column.partition(".")[0] not in sampled:
            for fill, side in sides.items():
                numbers[fill][column] |= _compared(board, side, column)
    view = view or View()
    lines = caption(board, board.shown, intervals=view.intervals)
    return {
        "fills": fills,
        "sort": board.sort,
        "ranked": board.rank,
        "places_ranked": len(board.ranked_rows),
        "shown": [c for c in MAIN if c in columns],
        "caption": [clean(line, 4000) for line in lines if line != NOT_ALWAYS_BETTER],
        "note": NOT_ALWAYS_BETTER,
        "metrics": [
            _metric(board, column) | {"counts": _counts(board, column, numbers.values())}
            for column in columns
        ],
        "models": _models(board, grid),
        "defects": {fill: _defects(board, side) for fill, side in sides.items()},
        "untouched": {f: _untouched(side) for f, side in sides.items() if f != "none"},
        "numbers": [{fill: found[column] for fill, found in numbers.items()} for column in columns],
        "reasons": [clean(text, 600) for text in reasons],
        "costs": _costs(grid),
        "joined": _joined(joined),
        "columns": list(view.columns or ()),
        "worst_first": view.worst_first or _says_little(board),
        "intervals": view.intervals,
        "words": json.loads(asset("page_words.json")),
    }


def variants(board: Board) -> list[dict[str, list[Record]]]:
    """The records of each model by kernel padding, in the page's order."""
    order = {name: place for place, name in enumerate(board.suites)}
    return [
        {
            fill: sorted(row.records.values(), key=lambda r: order.get(r.suite, len(order)))
            for fill, row in sorted(rows.items(), key=lambda item: item[0] != "none")
        }
        for rows in _grid(board).values()
    ]


def representative_records(board: Board) -> list[Record]:
    """One record of each model, the one that says most of it, in the page's order."""
    return [_best(rows.values()) for rows in _grid(board).values()]


def _says_little(board: Board) -> bool:
    """Whether the first screen of the ranking would have one and the same number in every row."""
    values = [row.value(board.sort or "") for row in board.shown if row.rank is not None]
    first = {column_number(value) for value in values[:SCREEN] if value is not None}
    return len(values) > SCREEN and len(first) == 1


def _grid(board: Board) -> Grid:
    """Rows by model and kernel padding; models in the order of their untreated rows, then others.

    A page has a line for each model, so its order is that of the models as they are.
    """
    first = sorted(board.shown, key=lambda row: row.fill != board.base)
    grid: Grid = {}
    for row in first:
        grid.setdefault(row.model, {})[row.fill] = row
    return grid


def _metric(board: Board, column: str) -> dict[str, Any]:
    """What the metric of a column says of itself, for headers and menus."""
    prefix, _, name = column.partition(".")
    known = board.metric(column)
    suite = board.suites.get(prefix.partition(":")[0])
    return {
        "id": clean(column, 120),
        "suite": clean(prefix, 60),
        "name": clean(name, 60),
        "label": known.label if known else "",
        "caveat": known.caveat if known else "",
        "definition": known.definition if known else "",
        "unit": known.unit if known else "",
        "better": known.better if known else "neither",
        "even": known.even if known else None,
        "headline": suite is not None and suite.headline == name,
    }


def _models(board: Board, grid: Grid) -> dict[str, list[Any]]:
    references = list(grid)
    best = [_best(rows.values()) for rows in grid.values()]
    sources = [record.model.source for record in best]
    return {
        "reference": [clean(reference, 1000) for reference in references],
        "name": [clean(board.names[reference], 200) for reference in references],
        "family": [clean(family(record), 60) for record in best],
        "input": [input_size(record) for record in best],
        "weights": [clean(s.get("weights") or s.get("file") or "", 80) for s in sources],
    }


def _best(rows: Iterable[BoardRow]) -> Record:
    """The record that says most of its model."""
    records = [record for row in rows for record in row.records.values()]
    return next((r for r in records if r.model.spec), records[0])


def _defects(board: Board, side: Side) -> list[str | None] | None:
    """What is certainly wrong with each model, in one text; None for a model without defects."""
    return _unless_empty(["; ".join(board.defects(row)) or None if row else None for row in side])


def _untouched(side: Side) -> list[int]:
    """Places of the models in which the kernel padding found nothing to grow."""
    return [
        place
        for place, row in enumerate(side)
        if row
        and any((t := r.model.treatment) and not t.get("layers") for r in row.records.values())
    ]


def _sampled(board: Board) -> set[str]:
    """Prefixes of the columns of which some numbers rest on images."""
    rows = (row.records.items() for row in board.rows)
    return {prefix for records in rows for prefix, one in records if one.images is not None}


def _numbers(
    side: Side, columns: Iterable[str], reasons: dict[str, int]
) -> dict[str, dict[str, Any]]:
    """Each column of one kernel padding: values, intervals, and reasons where there is no value.

    They are filled model by model, so that each record is visited once.
    """
    ends = ("v", "low", "high")
    found: dict[str, dict[str, Any]] = {
        column: {"why": {}, **{end: [None] * len(side) for end in ends}} for column in columns
    }
    for place, row in enumerate(side):
        if row is None:
            continue
        for column, cells in found.items():
            record, metric = row.find(column)
            held = record.metrics.get(metric) if record else None
            if held is not None and held.value is not None:
                cells["v"][place] = _short(held.value)
                cells["low"][place] = _short(held.low)
                cells["high"][place] = _short(held.high)
            elif why := why_missing(record, metric):
                cells["why"][str(place)] = reasons.setdefault(why, len(reasons))
    for cells in found.values():
        cells |= {end: _unless_empty(cells[end]) for end in ends[1:]}
    return found


def _counts(board: Board, column: str, sides: Iterable[Mapping[str, dict[str, Any]]]) -> bool:
    """Whether a column counts things, and all of its numbers are whole and without intervals."""
    held = [side[column] for side in sides]
    if not board.counts(column) or any(cells["low"] for cells in held):
        return False
    return are_whole((v, None, None) for cells in held for v in cells["v"] if v is not None)


def _compared(board: Board, side: Side, column: str) -> dict[str, Any]:
    """The board's ranks in one column, and treated less untreated with its interval."""
    known = board.ranks(column)
    ranks = [known.get((row.model, row.fill)) if row else None for row in side]
    changes = [board.change(row, column) if row else None for row in side]
    return {
        "rank": _unless_empty([rank.low if rank else None for rank in ranks]),
        "rank_high": _unless_empty([rank.high if rank else None for rank in ranks]),
        "change": _unless_empty([_short(c.value) if c else None for c in changes]),
        "changeLow": _unless_empty([_short(c.low) if c else None for c in changes]),
        "changeHigh": _unless_empty([_short(c.high) if c else None for c in changes]),
    }


def _costs(grid: Grid) -> dict[str, dict[str, Any]]:
    """The costs of measuring the untreated variant, and its size, if known."""
    rows = [variants.get("none") or next(iter(variants.values())) for variants in grid.values()]
    found = {
        name: {"title": title, "v": [_cost(row, field) for row in rows]}
        for name, (title, field) in COSTS.items()
    }
    found |= {
        name.partition(".")[2]: {"title": title, "v": [row.value(name) for row in rows]}
        for name, title in zip(SIZES, ("parameters", "MACs of one image"), strict=True)
    }
    return {name: cost for name, cost in found.items() if any(cost["v"])}


def _cost(row: BoardRow, field: str) -> float | None:
    """Seconds add up over the suites; gradients are shared by them, and memory is a peak."""
    timings = (getattr(record.timing, field) for record in row.records.values())
    values = [value for value in timings if value is not None and math.isfinite(value)]
    if not values:
        return None
    return _short(sum(values) if field == "measure_s" else max(values))


def _joined(joined: Joined | None) -> dict[str, Any] | None:
    if joined is None:
        return None
    columns = {clean(n, 60): [_short(v) for v in vs] for n, vs in joined.columns.items()}
    tables = [clean(table.text, 2000) for table in joined.tables]
    return {"columns": columns, "note": clean(joined.note, 600), "tables": tables}


def _short(value: float | None) -> float | None:
    return None if value is None else six_digits(value)


def _unless_empty(column: Sequence[Any]) -> list[Any] | None:
    """`column`, or None if all its entries are None."""
    return list(column) if any(value is not None for value in column) else None
