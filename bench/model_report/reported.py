"""One finished record, read with what its suite and metrics say of themselves, and its tables.

A number that its interval does not separate from even is *not shown* to be uneven. Exact numbers
have no interval; they count as even within `TOLERANCE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ...suites.base import Metric
from ...suites.measuring.bootstrap import MIN_SAMPLES
from ...suites.measuring.findings import LEAST_PHASE
from ..execution.all_scales import split_scale
from ..output.files import try_or_none
from ..output.layout import Table
from ..output.numbers import format_number, with_interval_text
from ..output.text import clean
from ..records.selection import prefix_of
from ..statistics.difference import metric_difference, not_sampled, sample_count

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from ..records.parts import Value
    from ..records.record import Record
    from ..statistics.difference import Difference


TOLERANCE = 0.005
"""An exact number this close to even is called even."""


class Evenness(Enum):
    """What a number shows about the difference from its value on an even model."""

    off = "shown"
    even = "none"
    not_shown = "not shown"
    no_interval = "no interval"


@dataclass(frozen=True)
class ReportedRecord:
    """A finished record and its suite; None for a suite that this version does not know."""

    record: Record
    suite: Suite | None = None

    def estimate(self, name: str) -> Value | None:
        """The metric `name` if it has a value, or None."""
        found = self.record.metrics.get(name)
        return found if found is not None and found.value is not None else None

    def metric(self, name: str) -> Metric:
        """The declaration of the metric `name`; one with its name alone if it is not known."""
        known = self.suite.metrics if self.suite else ()
        unknown = Metric(name, "", "", "neither", low=None)
        return next((metric for metric in known if metric.name == name), unknown)

    @property
    def names(self) -> list[str]:
        """The metrics of the target that have a value, in the order of the suite."""
        known = [metric.name for metric in self.suite.metrics] if self.suite else []
        found = dict.fromkeys([*known, *self.record.metrics])
        return [n for n in found if self.estimate(n) and split_scale(n)[1] is None]

    @property
    def headline(self) -> str | None:
        """The suite's headline metric, if it has a value."""
        name = self.suite.headline if self.suite else ""
        return name if self.estimate(name) else None

    @property
    def column(self) -> str:
        """What its columns on a board begin with."""
        known = {self.record.suite: self.suite} if self.suite else {}
        return clean(prefix_of(self.record.suite, self.record.protocol, known), 60)

    @property
    def title(self) -> str:
        """The column and the question that the suite asks."""
        question = self.suite.question if self.suite else ""
        return f"{self.column}: {question}" if question else self.column

    @property
    def defects(self) -> list[str]:
        """Certain defects that the suite names, such as dead regions, in clauses."""
        return try_or_none(self.suite.defects, self.record) or [] if self.suite else []

    @property
    def looked(self) -> bool:
        """Whether it is known which defects there are, such as dead regions, be it none."""
        tables = getattr(self.suite, "defect_tables", None) or ()
        return any(name in self.record.tables for name in tables)

    @property
    def unseen(self) -> str:
        """What kind of defect the suite may have overlooked, in a clause; empty if none."""
        return clean(try_or_none(self.suite.unseen, self.record) or "") if self.suite else ""

    def label(self, name: str) -> str:
        """The words for the metric `name`."""
        return clean(self.metric(name).label or name, 60)

    def exact(self, name: str) -> bool:
        """Whether the metric `name` was not sampled."""
        return not_sampled(self.record, self.metric(name).exact)

    @property
    def few_samples(self) -> bool:
        """Whether it rests on too few samples for intervals; where it does not, all are alike."""
        return self.record.images is not None and sample_count(self.record) < MIN_SAMPLES

    def verdict(self, name: str) -> Evenness | None:
        """What the metric `name` shows; None if it has no value, or none that is even."""
        found, metric = self.estimate(name), self.metric(name)
        if found is None or found.value is None or metric.even is None:
            return None
        if self.exact(name):
            near = abs(found.value - metric.even) <= TOLERANCE
            return Evenness.even if near else Evenness.off
        if found.low == found.high:  # both None, or alike in all draws but a few
            return Evenness.no_interval
        above = metric.better != "higher" and found.low is not None and found.low > metric.even
        below = metric.better != "lower" and found.high is not None and found.high < metric.even
        return Evenness.off if above or below else Evenness.not_shown

    def shows(self, name: str) -> str:
        """The verdict in a word or two, such as `uneven` or `not shown`; empty without one."""
        verdict, (off, even) = self.verdict(name), self.metric(name).verdicts
        words = {None: "", Evenness.off: off, Evenness.even: even}
        return words.get(verdict, verdict.value if verdict else "")

    def text(self, name: str) -> str:
        """The value of the metric `name` with its interval. Raises `KeyError` without a value."""
        found = self.estimate(name)
        if found is None or found.value is None:
            raise KeyError(name)
        return with_interval_text(found.value, found.low, found.high)


def reported(records: Iterable[Record], suites: Mapping[str, Suite]) -> list[ReportedRecord]:
    """The finished ones of `records`, with their suites."""
    return [ReportedRecord(r, suites.get(r.suite)) for r in records if r.status == "ok"]


def defects_of(found: Iterable[ReportedRecord]) -> list[str]:
    """Certain defects in clauses, each with the suites that found it."""
    columns: dict[str, list[str]] = {}
    for one in found:
        for clause in one.defects:
            columns.setdefault(clause, []).append(one.column)
    return [f"{clause} ({', '.join(names)})" for clause, names in columns.items()]


MOST_ROWS = 8

SCALES = {"scales": "The last map of every resolution"}
"""The table of records of all scales, and its caption."""


def figures(one: ReportedRecord) -> Table | None:
    """Every metric that has a value: label, value with interval, unit, even value, verdict."""
    rows = []
    for name in one.names:
        metric = one.metric(name)
        even = "" if metric.even is None else f"{metric.even:g}"
        rows.append((one.label(name), one.text(name), even, one.shows(name), metric.unit))
    return Table("", ("figure", "value", "even", "shows", "unit"), rows) if rows else None


def caveats(one: ReportedRecord) -> list[str]:
    """When the numbers that are shown mislead."""
    known = (one.metric(name) for name in one.names)
    return [f"{one.label(m.name)}: {m.caveat}" for m in known if m.caveat]


def without_interval(one: ReportedRecord) -> list[str]:
    """Which figures have no interval though they are estimates, and why, in a clause."""
    names = [n for n in one.names if one.verdict(n) is Evenness.no_interval]
    if not names:
        return []
    alike = "" if one.few_samples else "alike in all draws, or in nearly all, or of "
    return [f"without an interval ({alike}too few samples): {', '.join(map(one.label, names))}"]


def record_tables(one: ReportedRecord) -> list[Table]:
    """The tables that the suite has captions for; every table of a suite without captions."""
    captions = {**(one.suite.captions if one.suite else {}), **SCALES}
    shown = (
        captions
        if one.suite and one.suite.captions
        else {n: _head(n).capitalize() for n in one.record.tables if n != LEAST_PHASE}
    )
    tables = (_rows_table(caption, one.record.tables.get(name)) for name, caption in shown.items())
    return [table for table in tables if table is not None]


def _rows_table(caption: str, rows: Any) -> Table | None:
    if not (isinstance(rows, list) and rows and all(isinstance(r, dict) and r for r in rows)):
        return None
    heads = list(rows[0])
    count = f", {MOST_ROWS} of {len(rows)} shown" if len(rows) > MOST_ROWS else ""
    cells = [[cell_text(row.get(head)) for head in heads] for row in rows[:MOST_ROWS]]
    return Table(f"{caption}{count}:", [_head(head) for head in heads], cells)


def _head(name: str) -> str:
    return clean(str(name).replace("_", " "), 40)


def cell_text(value: Any) -> str:
    """A value of a table in a few characters: `3`, `3 x 1`, `2/1`, `0.123` or `n/a`."""
    if value is None:
        return "n/a"
    if isinstance(value, float):
        return format_number(value)
    if isinstance(value, list | tuple):
        parts = ["/".join(map(str, v)) if isinstance(v, list | tuple) else str(v) for v in value]
        alike = len(parts) == 2 and parts[0] == parts[1]
        return clean(parts[0] if alike else " x ".join(parts), 40)
    return clean(str(value), 40)


@dataclass(frozen=True)
class Change:
    """A metric of a treated and an untreated model, and what their difference shows."""

    name: str
    before: float
    after: float
    difference: Difference
    shows: str


def metric_change(after: ReportedRecord, before: ReportedRecord, name: str) -> Change | None:
    """How kernel padding changed the metric `name`; None if either has no value."""
    found = metric_difference(after.record, before.record, name)
    old, new = before.estimate(name), after.estimate(name)
    if found is None or old is None or new is None or old.value is None or new.value is None:
        return None
    return Change(name, old.value, new.value, found, _shown(after, before, name, found))


def changes(treated: Sequence[ReportedRecord], untreated: Sequence[ReportedRecord]) -> Table | None:
    """The main metrics of both, the difference, and what it shows."""
    others = {one.column: one for one in untreated}
    cells = [
        (
            f"{after.column}.{name}",
            format_number(change.before),
            format_number(change.after),
            _signed(change.difference),
            change.shows,
        )
        for after in treated
        if (before := others.get(after.column)) is not None
        for name in after.names
        if after.metric(name).main and (change := metric_change(after, before, name)) is not None
    ]
    if not cells:
        return None
    fill = clean(treated[0].record.fill, 20)
    heads = ("metric", "none", fill, "change", "shows")
    return Table("Treated less untreated, on the same images:", heads, cells)


def _signed(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.3g}"
    half = max(found.value - found.low, found.high - found.value)
    return f"{found.value:+.3g} ± {format_number(half, 2)}"


def _shown(after: ReportedRecord, before: ReportedRecord, name: str, found: Difference) -> str:
    """Whether the treated model is shown to be closer to even."""
    exact = after.exact(name) and before.exact(name)
    if not (found.separated or (exact and found.value != 0)):
        if found.method == "none" and not exact:
            return "no interval"
        return "no change" if found.value == 0 else "not shown to differ"
    even = after.metric(name).even
    if even is None:
        return "a difference"
    old, new = before.estimate(name), after.estimate(name)
    distances = [abs((one.value or 0.0) - even) for one in (old, new) if one is not None]
    return "more even" if distances[1] < distances[0] else "less even"
