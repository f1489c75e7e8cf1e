"""The leaderboard: a row for each model and kernel padding, ranked, with tie groups.

A column holds numbers of one suite, protocol, version and settings; records that would mix them
are refused. Columns are called `SUITE.METRIC`, or `SUITE:PROTOCOL.METRIC` off the default protocol,
with `.low`, `.high` and `.reason` beside them. Treated rows also have `.untreated` (the twin's
value) and `.change` (treated less untreated) with `.change.low`, `.change.high` and
`.change.method`.

Ranks: rows in order of the sort column. The first row leads a tie group; the rows after it share
its rank as long as the interval of their difference to that leader does not separate them; the
first one that it separates leads the next group, whose rank counts all rows above it. (Chaining
from neighbour to neighbour instead would let one wide interval join rows that are far apart.) Exact
values tie when they differ by no more than rounding (`NEGLIGIBLE`). Rows without a value have no
rank.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.errors import check_name
from ..records.selection import check_unmixed, load_records, newest, why_missing
from ..statistics.difference import metric_difference
from ..statistics.significance import NEGLIGIBLE, SMALLEST

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pandas as pd

    from ...suites.base import Metric, Suite
    from ..records.record import Record


SORT_ORDER = ("deadpixel.weakest", "structure.weakest")
"""Default sort columns: the first that any row has gives the ranks, the next orders the rest."""


def leaderboard(
    records: Iterable[Record] | Path | str,
    *,
    sort: str | None = None,
    suites: Mapping[str, Suite] | None = None,
) -> pd.DataFrame:
    """Rank `records`; see the module's text for rows, columns and ranks.

    `records` may also be the path of a folder of records or of a packed file.
    `sort` is a metric column such as `deadpixel.imbalance`. Missing numbers are `pandas.NA`, with
    the reason in the `.reason` column. Raises `MixedRecordsError`, and `UnknownNameError` for a
    `sort` that no record has.
    """
    if isinstance(records, str | Path):
        records = load_records(records)
    return Board(records, sort=sort, suites=suites).frame()


@dataclass
class BoardRow:
    """One model variant and its records by column prefix, such as `erf` or `erf:kim2023`."""

    model: str
    fill: str
    records: dict[str, Record]
    rank: int | None = None

    def find(self, column: str) -> tuple[Record | None, str]:
        """The record behind a column, and the metric's name in it."""
        prefix, _, metric = column.partition(".")
        return self.records.get(prefix), metric

    def value(self, column: str) -> float | None:
        """The number in `column`, or None."""
        record, metric = self.find(column)
        held = record.metrics.get(metric) if record else None
        return held.value if held else None


class Board:
    """Rows in rank order, and what the columns mean."""

    def __init__(
        self,
        records: Iterable[Record],
        *,
        sort: str | None = None,
        suites: Mapping[str, Suite] | None = None,
    ) -> None:
        if suites is None:
            from ...suites.registry import SUITES

            suites = SUITES
        self.suites = suites
        self.records = newest(records)
        check_unmixed(self.records)
        self.rows = self._rows()
        self._untreated = {row.model: row for row in self.rows if row.fill == "none"}
        self.sort = self._sort_column(sort)
        self._rank()

    @cached_property
    def columns(self) -> list[str]:
        """Metric columns in the order of the suites and their metrics."""
        found = []
        for name, suite in self.suites.items():
            for protocol in suite.protocols:
                held = [r for r in self.records if (r.suite, r.protocol) == (name, protocol)]
                names = {metric for record in held for metric in record.metrics}
                known = [m.name for m in suite.metrics] if held else []  # failed rows show too
                prefix = self.prefix(name, protocol)
                found += [f"{prefix}.{m}" for m in [*known, *sorted(names - set(known))]]
        return found

    def prefix(self, suite: str, protocol: str) -> str:
        """`SUITE`, or `SUITE:PROTOCOL` off the default protocol."""
        known = self.suites.get(suite)
        default = next(iter(known.protocols)) if known else None
        return suite if protocol == default else f"{suite}:{protocol}"

    def metric(self, column: str) -> Metric | None:
        """What a column's metric says of itself."""
        prefix, _, name = column.partition(".")
        suite = self.suites.get(prefix.partition(":")[0])
        return next((m for m in suite.metrics if m.name == name), None) if suite else None

    def twin(self, row: BoardRow) -> BoardRow | None:
        """The untreated row of a treated one's model."""
        return None if row.fill == "none" else self._untreated.get(row.model)

    def frame(self) -> pd.DataFrame:
        """All columns of all rows."""
        import pandas as pd

        frame = pd.DataFrame([self.cells(row) for row in self.rows])
        return frame.astype({name: _dtype(name) for name in frame.columns})

    def cells(self, row: BoardRow) -> dict[str, Any]:
        """One row of the frame."""
        cells: dict[str, Any] = {"model": row.model, "fill": row.fill, "rank": row.rank}
        for prefix, record in row.records.items():
            cells[f"{prefix}.status"] = record.status
            cells[f"{prefix}.error"] = record.error.message if record.error else None
            if record.reason:
                cells[f"{prefix}.reason"] = record.reason
        for column in self.columns:
            cells.update(self.cells_of(row, column))
        return cells

    def cells_of(self, row: BoardRow, column: str) -> dict[str, Any]:
        """Value, interval, reason, and the change against the untreated twin, in one column."""
        record, metric = row.find(column)
        held = record.metrics.get(metric) if record else None
        cells: dict[str, Any] = {
            column: held.value if held else None,
            f"{column}.low": held.low if held else None,
            f"{column}.high": held.high if held else None,
            f"{column}.reason": why_missing(record, metric),
        }
        twin = self.twin(row)
        other = twin.find(column)[0] if twin else None
        if record is not None and other is not None:
            cells[f"{column}.untreated"] = twin.value(column) if twin else None
            change = metric_difference(record, other, metric)
            if change is not None:
                cells[f"{column}.change"] = change.value
                cells[f"{column}.change.low"] = change.low
                cells[f"{column}.change.high"] = change.high
                cells[f"{column}.change.method"] = change.method
        return cells

    def _rows(self) -> list[BoardRow]:
        rows: dict[tuple[str, str], BoardRow] = {}
        for record in self.records:
            key = (record.model.reference, record.fill)
            row = rows.setdefault(key, BoardRow(*key, {}))
            row.records[self.prefix(record.suite, record.protocol)] = record
        return list(rows.values())

    def _sort_column(self, wanted: str | None) -> str | None:
        if wanted is not None:
            return check_name("metric", wanted, self.columns)
        held = [column for column in SORT_ORDER if column in self.columns]
        headlines = [c for c in self.columns if self._is_headline(c)]
        return next(iter([*held, *headlines, *self.columns]), None)

    def _is_headline(self, column: str) -> bool:
        prefix, _, name = column.partition(".")
        suite = self.suites.get(prefix.partition(":")[0])
        return suite is not None and suite.headline == name

    def _rank(self) -> None:
        """Order the rows and give them ranks."""
        order = [c for c in (self.sort, *SORT_ORDER) if c is not None]
        self.rows.sort(key=lambda row: [*(self._sort_key(row, c) for c in order), *_names(row)])
        for row, rank in zip(self.rows, self.ranks(self.rows, self.sort), strict=True):
            row.rank = rank

    def ranks(self, rows: Sequence[BoardRow], column: str | None) -> list[int | None]:
        """The ranks of `rows`, which are in order of `column`; None for those without a value."""
        found: list[int | None] = []
        leader: BoardRow | None = None
        rank = 0
        for place, row in enumerate(rows, start=1):
            if column is None or row.value(column) is None:
                found.append(None)
                continue
            if leader is None or self._separated(leader, row, column):
                leader, rank = row, place
            found.append(rank)
        return found

    def ranking(self, rows: Sequence[BoardRow], column: str) -> dict[str, int | None]:
        """Rank by model of `rows` of one kernel padding, by any column."""
        order = sorted(rows, key=lambda row: (self._sort_key(row, column), *_names(row)))
        return dict(zip((r.model for r in order), self.ranks(order, column), strict=True))

    def _sort_key(self, row: BoardRow, column: str) -> tuple[bool, float]:
        value = row.value(column)
        metric = self.metric(column)
        best_first = 1 if metric is not None and metric.better == "lower" else -1
        return (value is None, 0.0 if value is None else best_first * value)

    def _separated(self, leader: BoardRow, row: BoardRow, column: str) -> bool:
        (first, metric), (second, _) = leader.find(column), row.find(column)
        if first is None or second is None:
            return True
        found = metric_difference(first, second, metric)
        if found is not None and found.method == "exact":
            size = max(abs(one.value(column) or 0.0) for one in (leader, row))
            return abs(found.value) > max(SMALLEST, NEGLIGIBLE * size)
        return found is None or found.separated


def _names(row: BoardRow) -> tuple[str, str]:
    return row.model, row.fill


def _dtype(column: str) -> str:
    """The nullable pandas type of a column of the frame."""
    if column == "rank":
        return "Int64"
    words = ("model", "fill", "reason", "status", "error", "method")
    return "string" if column.rpartition(".")[2] in words else "Float64"
