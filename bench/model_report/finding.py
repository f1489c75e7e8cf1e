"""One record as an account reads it: numbers as text, and what they show against even.

A number that its interval does not separate from even is *not shown* to be uneven. Exact numbers
have no interval; they count as even within `TOLERANCE`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from ..output.damaged import try_or_none
from ..output.numbers import with_interval_text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from ...suites.base import Metric, Suite
    from ..records.record import Record, Value

    Words = Mapping[str, Callable[["ReportedRecord"], str | None]]


TOLERANCE = 0.005
"""An exact number this near to even is called even."""


LEVELS = 255
"""Grey levels of an 8-bit image, in which small steps are told."""


ALWAYS_EXACT = ("uneven_layers",)


OF_ONE_WEIGHT_SET = ("blind_", "border_drop", "constant_", "filter_", "exchange_")
"""Metrics of `padding` that are exact for what one weight set makes of one stimulus."""


FIELD = re.compile(r"\{([^{}:]+)(?::([^{}]+))?\}")
"""A place in a sentence: `{metric}`, `{metric:form}` or `{word}`."""


class EvennessVerdict(Enum):
    """What a number shows against its value on an even model."""

    off = "shown to be uneven"
    even = "even"
    not_shown = "not shown to be uneven"
    no_interval = "too few samples to tell"


@dataclass(frozen=True)
class ReportedRecord:
    """A finished record; `beside` names the other suites of the same account."""

    record: Record
    suite: Suite | None = None
    beside: frozenset[str] = frozenset()

    def held(self, name: str) -> Value | None:
        """A metric that has a value, or None."""
        held = self.record.metrics.get(name)
        return held if held is not None and held.value is not None else None

    def value(self, name: str) -> float:
        """The number of a metric. Raises `KeyError` where there is none."""
        held = self.held(name)
        if held is None or held.value is None:
            raise KeyError(name)
        return held.value

    def metric(self, name: str) -> Metric | None:
        """What a metric says of itself; None for one that this version does not know."""
        known = self.suite.metrics if self.suite else ()
        return next((m for m in known if m.name == name), None)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of a table, none where the record has no such table."""
        return self.record.tables.get(table, [])

    def map(self, name: str) -> np.ndarray[Any, Any]:
        """A map of the record. Raises `KeyError` where there is none."""
        return self.record.maps[name]

    @property
    def initial(self) -> bool:
        """Whether the weights are a seeded initial state."""
        return self.record.model.source.get("weights") == "initial state"

    def exact(self, name: str) -> bool:
        """Whether a metric is no estimate."""
        if self.record.images is None or name in ALWAYS_EXACT:
            return True
        of_weights = self.record.suite == "padding" and name.startswith(OF_ONE_WEIGHT_SET)
        return of_weights and (self.record.model.members or 1) == 1

    def verdict(self, name: str) -> EvennessVerdict | None:
        """What a metric shows against even; None without a value, or where nothing is even."""
        held, metric = self.held(name), self.metric(name)
        if held is None or held.value is None or metric is None or metric.even is None:
            return None
        if self.exact(name):
            return (
                EvennessVerdict.off
                if abs(held.value - metric.even) > TOLERANCE
                else EvennessVerdict.even
            )
        if held.low is None and held.high is None:
            return EvennessVerdict.no_interval
        above = metric.better != "higher" and held.low is not None and held.low > metric.even
        below = metric.better != "lower" and held.high is not None and held.high < metric.even
        return EvennessVerdict.off if above or below else EvennessVerdict.not_shown

    def text(self, name: str, form: str = "") -> str | None:
        """A metric in words: with its interval, as `%`, grey `levels`, or the `doubt` about it."""
        held = self.held(name)
        if held is None or held.value is None:
            return None
        if form == "doubt":
            return self._doubt(name)
        scale = {"%": 100.0, "levels": float(LEVELS)}.get(form, 1.0)
        return with_interval_text(held, scale) + ("\u00a0%" if form == "%" else "")

    def _doubt(self, name: str) -> str | None:
        """Why a metric shows nothing."""
        verdict, metric = self.verdict(name), self.metric(name)
        if (
            metric is None
            or metric.even is None
            or verdict is None
            or verdict is EvennessVerdict.off
        ):
            return None
        if verdict is EvennessVerdict.no_interval:
            return "not shown to be uneven: too few samples for an interval"
        if verdict is EvennessVerdict.even:
            return "even"
        return f"not shown to be uneven, the interval holds {metric.even:g}"


@dataclass(frozen=True)
class Rule:
    """A sentence, said when `when` holds and everything in its braces is known."""

    text: str
    when: Callable[[ReportedRecord], bool] = lambda _: True


Topic = tuple[Rule, ...]
"""Rules about one thing; the first that can be said is said."""


def sentences(finding: ReportedRecord, topics: tuple[Topic, ...], words: Words) -> list[str]:
    """What `topics` say of `finding`, a sentence or none for each."""
    found = []
    for topic in topics:
        said = (try_or_none(_say, rule, finding, words) for rule in topic)
        found += [text for text in said if text is not None][:1]
    return found


def _say(rule: Rule, finding: ReportedRecord, words: Words) -> str | None:
    """The sentence of `rule`, or None when it does not apply."""
    if not rule.when(finding):
        return None
    parts = {m[0]: _fill(finding, words, m[1], m[2] or "") for m in FIELD.finditer(rule.text)}
    if None in parts.values():
        return None
    return FIELD.sub(lambda m: parts[m[0]] or "", rule.text)


def _fill(finding: ReportedRecord, words: Words, name: str, form: str) -> str | None:
    return words[name](finding) if name in words else finding.text(name, form)


def off(*names: str) -> Callable[[ReportedRecord], bool]:
    """Whether any of `names` is shown to be uneven."""
    return lambda finding: any(finding.verdict(name) is EvennessVerdict.off for name in names)


def settled(name: str) -> Callable[[ReportedRecord], bool]:
    """Whether `name` has a value that is not shown to be uneven."""
    return lambda finding: finding.verdict(name) not in (None, EvennessVerdict.off)
