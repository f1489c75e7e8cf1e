"""What a comparison found, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..statistics.significance import Evidence
from .divergence import StageDifference
from .sources import Side

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ...suites.base import Metric
    from ..records.record import Value


NOT_LOOKED = "not looked at"


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of a pair; without `evidence` there is no difference, and `reason` says why."""

    column: str
    metric: Metric | None
    first: Value | None
    second: Value | None
    evidence: Evidence | None = None
    reason: str | None = None

    @property
    def shown(self) -> bool:
        """Whether the two are shown to differ."""
        return self.evidence is not None and self.evidence.shown


@dataclass(frozen=True)
class Pair:
    """Two sides and their differences.

    `stages` are the differences of features stage by stage, and of outputs, or the reason why there
    are none; `unread` are clauses about outputs that were not looked at.
    `forced` says how the records differ if the comparison was forced. `defects` are the certain
    defects of the first side and those of the second, in clauses.
    """

    first: Side
    second: Side
    rows: tuple[ComparisonRow, ...]
    gaps: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    stages: tuple[StageDifference, ...] | str = NOT_LOOKED
    unread: tuple[str, ...] = ()
    defects: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    @property
    def differing(self) -> list[ComparisonRow]:
        """The metrics that are shown to differ."""
        return [row for row in self.rows if row.shown]


@dataclass(frozen=True)
class ComparisonResult:
    """All pairs of the first side and another one; `problems` says what could not be read."""

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()
    headlines: frozenset[str] = field(default_factory=frozenset)

    @property
    def tests(self) -> int:
        """How many p-values were corrected together."""
        return len(_p_values(self.pairs))


def _p_values(pairs: Iterable[Pair]) -> list[float]:
    found = [row.evidence for pair in pairs for row in pair.rows]
    return [one.p for one in found if one is not None and one.p is not None]
