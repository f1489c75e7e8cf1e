"""One finished record, read with what its suite and metrics say of themselves.

A number that its interval does not separate from even is *not shown* to be uneven. Exact numbers
have no interval; they count as even within `TOLERANCE`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ...suites.base import Metric
from ..output.files import try_or_none
from ..output.numbers import with_interval_text
from ..output.text import clean
from ..records.scales import split_scale
from ..records.selection import prefix_of
from ..statistics.difference import not_sampled

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...suites.base import Suite
    from ..records.record import Record, Value

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

    def label(self, name: str) -> str:
        """The words for the metric `name`."""
        return clean(self.metric(name).label or name, 60)

    def exact(self, name: str) -> bool:
        """Whether the metric `name` was not sampled."""
        return not_sampled(self.record, self.metric(name).exact)

    def verdict(self, name: str) -> Evenness | None:
        """What the metric `name` shows; None if it has no value, or none that is even."""
        found, metric = self.estimate(name), self.metric(name)
        if found is None or found.value is None or metric.even is None:
            return None
        if self.exact(name):
            near = abs(found.value - metric.even) <= TOLERANCE
            return Evenness.even if near else Evenness.off
        if found.low is None and found.high is None:
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
        if found is None:
            raise KeyError(name)
        return with_interval_text(found)


def reported(records: Iterable[Record], suites: Mapping[str, Suite]) -> list[ReportedRecord]:
    """The finished ones of `records`, with their suites."""
    return [ReportedRecord(r, suites.get(r.suite)) for r in records if r.status == "ok"]


def defects_of(found: Iterable[ReportedRecord]) -> list[str]:
    """Certain defects in clauses, each with the suite that found it."""
    return [f"{clause} ({one.column})" for one in found for clause in one.defects]
