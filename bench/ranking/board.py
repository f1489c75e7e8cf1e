"""The leaderboard: a row for each model and kernel padding, ranked, with tie groups.

A column has numbers of one suite, protocol, version and settings; records that would mix them
are refused. Columns are called `SUITE.METRIC`, or `SUITE:PROTOCOL.METRIC` off the default protocol,
with `.low`, `.high` and `.reason` beside them. Treated rows also have `.untreated` (the value of
the untreated model) and `.change` (treated less untreated) with `.change.low`, `.change.high`, both
missing where all draws agree, and `.change.method`. `defects` names what is certainly wrong with a
row, such as dead regions with their boxes, whatever its rank.

What is ranked is chosen by one of `RANKINGS`: models as they are, each followed by its rows with
kernel padding, which have no rank; or every variant. Ranks are intervals, such as 2 to 5, and hold
for the whole board at once (see `statistics.ranks`): the chance that two equal rows get different
ranks is at most 5 %. Rows are in order of their ranks; rows of one rank are ordered by the name
that is shown, never by noise. Exact values share a rank if their printed digits agree. Rows without
a value have no rank and come last, in order of the next sort column.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ...adapters.errors import check_name
from ..execution.all_scales import split_scale
from ..model_report.reported import defects_of, reported
from ..output.text import clean
from ..records.selection import check_unmixed, meaningless, newest, prefix_of, why_missing
from ..statistics.difference import metric_difference
from ..statistics.ranks import Rank, rank_rows
from .names import check_column, short_names
from .row import SIZES, BoardRow, ranked_value, row_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Metric, Suite
    from ..records.record import Record
    from ..statistics.difference import Difference


SORT_ORDER = ("deadpixel.weakest", "structure.weakest")
"""Default sort columns: the first that any row has gives the ranks, the next orders the rest."""

BLACK_BOXES = "perturbation.comb_weakest"
"""The column by which models without gradients are ranked where they are all that there is."""

RANKINGS = ("models", "variants")
"""What is ranked: models as they are (the default), or every variant."""


class Board:
    """Rows in rank order, and what the columns mean."""

    def __init__(
        self,
        records: Iterable[Record],
        *,
        sort: str | None = None,
        rank: str = RANKINGS[0],
        suites: Mapping[str, Suite] | None = None,
        first: Sequence[str] = (),
    ) -> None:
        """`first` are suites, as named for a run, by whose headlines rows are ranked by default."""
        if suites is None:
            from ...suites.registry import SUITES

            suites = SUITES
        self.suites = suites
        self.rank = check_name("ranking", rank, RANKINGS)
        self.records = newest(records)
        check_unmixed(self.records)
        self.rows = self._rows()
        self._untreated = {row.model: row for row in self.rows if row.fill == "none"}
        self.sort = self._sort_column(sort, first)
        self._known_ranks: dict[str, dict[tuple[str, str], Rank]] = {}
        self._rank()
        self.shown = self.rows
        """The rows that a page shows; ranks are among all."""

    @cached_property
    def columns(self) -> list[str]:
        """Metric columns in the order of the suites and their metrics."""
        measured: dict[tuple[str, str], set[str]] = defaultdict(set)
        for record in self.records:
            measured[record.suite, record.protocol].update(record.metrics)
        found = []
        for name, suite in self.suites.items():
            for protocol in suite.protocols:
                cell = name, protocol
                names = measured.get(cell, set())
                # of a suite that failed in all rows, too
                known = [m.name for m in suite.metrics] if cell in measured else []
                prefix = self.prefix(name, protocol)
                found += [f"{prefix}.{m}" for m in [*known, *sorted(names - set(known))]]
        return found

    def prefix(self, suite: str, protocol: str) -> str:
        """What the columns of a suite and protocol begin with."""
        return prefix_of(suite, protocol, self.suites)

    def metric(self, column: str) -> Metric | None:
        """The declaration of a column's metric, None if it is not known."""
        prefix, _, name = split_scale(column)[0].partition(".")
        suite = self.suites.get(prefix.partition(":")[0])
        return next((m for m in suite.metrics if m.name == name), None) if suite else None

    def counts(self, column: str) -> bool:
        """Whether the values of a column are numbers of things, such as layers or pixels."""
        known = self.metric(column)
        return known is not None and known.counts

    @cached_property
    def names(self) -> dict[str, str]:
        """The names of models that are shown, by reference."""
        references = list(dict.fromkeys(row.model for row in self.rows))
        return dict(zip(references, short_names(references), strict=True))

    def untreated(self, row: BoardRow) -> BoardRow | None:
        """The row of the same model without kernel padding; None for such a row itself."""
        return None if row.fill == "none" else self._untreated.get(row.model)

    def defects(self, row: BoardRow) -> list[str]:
        """Certain defects of a row: what is NaN or constant, dead regions with their boxes ...

        Each is a clause with its kind before a colon.
        """
        records = list(row.records.values())
        found = defects_of(reported(records, self.suites))
        return [clean(clause) for clause in [*meaningless(records), *found]]

    def cells(self, row: BoardRow, columns: Sequence[str] | None = None) -> dict[str, Any]:
        """One row of the frame, with these metric columns or all."""
        rank = row.rank
        cells: dict[str, Any] = {
            "model": row.model,
            "fill": row.fill,
            "rank": rank.low if rank else None,
            "rank.high": rank.high if rank else None,
            "defects": "; ".join(self.defects(row)) or None,
            **{column: row.value(column) for column in SIZES},
            **{f"model.{name}": text for name, text in row_facts(row).items()},
        }
        for prefix, record in row.records.items():
            cells[f"{prefix}.status"] = record.status
            cells[f"{prefix}.error"] = record.error.message if record.error else None
            if record.reason:
                cells[f"{prefix}.reason"] = record.reason
        for column in self.columns if columns is None else columns:
            cells.update(self.cells_of(row, column))
        untreated = self.untreated(row)
        for record in (*row.records.values(), *(untreated.records.values() if untreated else ())):
            record.forget()
        return cells

    def cells_of(self, row: BoardRow, column: str) -> dict[str, Any]:
        """Value, interval, reason, and the change against the untreated model, in one column."""
        record, metric = row.find(column)
        found = record.metrics.get(metric) if record else None
        cells: dict[str, Any] = {
            column: found.value if found else None,
            f"{column}.low": found.low if found else None,
            f"{column}.high": found.high if found else None,
            f"{column}.reason": why_missing(record, metric),
        }
        untreated = self.untreated(row)
        if record is not None and untreated is not None and untreated.find(column)[0] is not None:
            cells[f"{column}.untreated"] = untreated.value(column)
            change = self.change(row, column)
            if change is not None:
                cells[f"{column}.change"] = change.value
                wide = change.low != change.high  # one number is no interval of estimates
                cells[f"{column}.change.low"] = change.low if wide else None
                cells[f"{column}.change.high"] = change.high if wide else None
                cells[f"{column}.change.method"] = change.method
        return cells

    def change(self, row: BoardRow, column: str) -> Difference | None:
        """Treated less untreated, of a treated row; None where either has no value."""
        untreated = self.untreated(row)
        if untreated is None:
            return None
        (record, metric), (other, _) = row.find(column), untreated.find(column)
        return metric_difference(record, other, metric) if record and other else None

    def _rows(self) -> list[BoardRow]:
        rows: dict[tuple[str, str], BoardRow] = {}
        for record in self.records:
            key = (record.model.reference, record.fill)
            row = rows.setdefault(key, BoardRow(*key, {}))
            row.records[self.prefix(record.suite, record.protocol)] = record
        return list(rows.values())

    def _sort_column(self, wanted: str | None, first: Sequence[str]) -> str | None:
        if wanted is not None:
            return check_column("metric", wanted, [*self.columns, *SIZES])
        usual = [column for column in SORT_ORDER if column in self.columns]
        if usual and not any(self._has_values(column) for column in usual):
            usual = [c for c in (BLACK_BOXES,) if self._has_values(c)] or usual
        headlines = [c for c in self.columns if self._is_headline(c)]
        named = [name.partition(":")[0] for name in first]
        headlines.sort(key=lambda c: [*named, _suite_of(c)].index(_suite_of(c)))
        valued = [column for column in usual if self._has_values(column)]
        return next(iter([*valued, *usual, *headlines, *self.columns]), None)

    def _has_values(self, column: str) -> bool:
        """Whether any of the rows that are ranked has a value in `column`."""
        return any(row.value(column) is not None for row in self.ranked_rows)

    def _is_headline(self, column: str) -> bool:
        suite = self.suites.get(_suite_of(column))
        return suite is not None and suite.headline == column.partition(".")[2]

    @cached_property
    def base(self) -> str:
        """The kernel padding of models as they are: `none`, or the first one without such rows."""
        return next(iter(sorted({row.fill for row in self.rows}, key=_none_first)), "none")

    @property
    def ranked_rows(self) -> list[BoardRow]:
        """The rows that have ranks, if they have values: by `RANKINGS`, some or all."""
        every = self.rank == "variants"
        return [row for row in self.rows if every or row.fill == self.base]

    def _rank(self) -> None:
        """Give the rows ranks and put them in order."""
        ranks = self.ranks(self.sort)
        for row in self.rows:
            row.rank = ranks.get((row.model, row.fill))
        heads = {} if self.rank == "variants" else {row.model: row for row in self.ranked_rows}
        names = self.names
        self.rows.sort(
            key=lambda row: [
                self._order(heads.get(row.model, row)),
                names[row.model],
                row.model,
                _none_first(row.fill),
            ]
        )

    def ranks(self, column: str | None) -> dict[tuple[str, str], Rank]:
        """The ranks by `column` of the ranked rows that have a value, by model and padding."""
        if column is None:
            return {}
        if column not in self._known_ranks:
            metric, sign = self.metric(column), self._sign(column)
            values = {
                (row.model, row.fill): value
                for row in self.ranked_rows
                if (value := ranked_value(row, column, metric, sign)) is not None
            }
            ranks = rank_rows(list(values.values()))
            self._known_ranks[column] = dict(zip(values, ranks, strict=True))
        return self._known_ranks[column]

    def _order(self, row: BoardRow) -> list[tuple[bool, float, float]]:
        """By rank; rows without one come last, by the next sort columns."""
        if row.rank is not None:
            return [(False, row.rank.low, row.rank.high)]
        rest = [column for column in SORT_ORDER if column != self.sort]
        return [(True, 0, 0), *((*self.sort_key(row, column), 0) for column in rest)]

    def sort_key(self, row: BoardRow, column: str) -> tuple[bool, float]:
        """Sorts rows by `column`, the best first and those without a value last."""
        value = row.value(column)
        return (value is None, 0.0 if value is None else -self._sign(column) * value)

    def _sign(self, column: str) -> int:
        """1 where higher values rank first."""
        metric = self.metric(column)
        if column in SIZES:
            return -1
        return -1 if metric is not None and metric.better == "lower" else 1


def _suite_of(column: str) -> str:
    """The suite of a metric's column."""
    return column.partition(".")[0].partition(":")[0]


def _none_first(fill: str) -> tuple[bool, str]:
    return fill != "none", fill
