"""The tables of a report: figures of a suite, its own tables, what kernel padding changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..output.layout import Table
from ..output.numbers import format_number
from ..output.text import clean
from ..statistics.difference import metric_difference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..statistics.difference import Difference
    from .reported import ReportedRecord

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


def record_tables(one: ReportedRecord) -> list[Table]:
    """The tables that the suite has captions for; every table of a suite without captions."""
    captions = {**(one.suite.captions if one.suite else {}), **SCALES}
    shown = (
        captions
        if one.suite and one.suite.captions
        else {name: _head(name).capitalize() for name in one.record.tables}
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
