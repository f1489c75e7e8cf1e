"""What a comparison found, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TYPE_CHECKING

from .divergence import StageDifference
from .nodes import NodeTable
from .sides import Side

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Metric, Suite
    from ..records.parts import Value
    from ..statistics.significance import Evidence


NOT_LOOKED = "not looked at"


RELATIVE = 0.02
"""Two values that are this share of the larger one apart are alike for any use."""

ABSOLUTE = 0.01
"""And so are ratios, shares and cosines that are this far apart."""

UNITLESS = ("ratio", "share", "cosine")


class RowVerdict(Enum):
    """What the values of one metric show; each metric of a pair has exactly one verdict."""

    differs = "differ"
    alike = "are alike"
    unknown = "not shown to differ"
    missing = "not comparable"


@dataclass(frozen=True)
class ComparisonRow:
    """One metric of a pair; without `evidence` there is no difference, and `reason` says why.

    A `leading` metric is a main one of its suite: a row of the table of all models, and compared
    together with the others of these (see `statistics.significance`). In an `identical` pair all
    values and intervals are equal, bit for bit.
    """

    column: str
    metric: Metric | None
    first: Value | None
    second: Value | None
    evidence: Evidence | None = None
    reason: str | None = None
    leading: bool = False
    identical: bool = False

    @property
    def equal(self) -> bool:
        """Whether values and intervals are equal, bit for bit."""
        return self.first is not None and self.second is not None and self.first == self.second

    @property
    def scales(self) -> bool:
        """Whether the metric grows with the scale of the output."""
        return self.metric is not None and self.metric.scales

    @property
    def shown(self) -> bool:
        """Whether the two are shown to differ."""
        return self.evidence is not None and self.evidence.shown

    @property
    def verdict(self) -> RowVerdict:
        """Differ, alike (within `margin`), not shown to differ, or not comparable."""
        if self.evidence is None:
            return RowVerdict.missing
        if self.evidence.shown:
            return RowVerdict.differs
        return RowVerdict.alike if self.small or self.identical else RowVerdict.unknown

    @property
    def small(self) -> bool:
        """Whether the difference, shown or not, is within `margin` for certain."""
        return self.evidence is not None and self.evidence.within(self.margin)

    @property
    def margin(self) -> float:
        """How far apart two values may be and still be alike."""
        sizes = [abs(v.value) for v in (self.first, self.second) if v and v.value is not None]
        unit = self.metric.unit if self.metric else ""
        return max(ABSOLUTE if unit in UNITLESS else 0.0, RELATIVE * max(sizes, default=0.0))


@dataclass(frozen=True)
class Pair:
    """Two sides and their differences.

    `stages` are the differences of features stage by stage, and of outputs, or the reason why there
    are none, and `outputs` those of outputs alone; `unread` are clauses about outputs that were not
    looked at. `forced` says how the records differ if the comparison was forced. `defects` are the
    certain defects of the first side and those of the second, in clauses. `nodes` are the
    differences node by node, or the reason why there are none; None where they were not asked for.
    """

    first: Side
    second: Side
    rows: tuple[ComparisonRow, ...]
    gaps: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    stages: tuple[StageDifference, ...] | str = NOT_LOOKED
    outputs: tuple[StageDifference, ...] = ()
    unread: tuple[str, ...] = ()
    defects: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    nodes: NodeTable | str | None = None

    @property
    def differing(self) -> list[ComparisonRow]:
        """The metrics that are shown to differ."""
        return self.of(RowVerdict.differs)

    def of(self, verdict: RowVerdict) -> list[ComparisonRow]:
        """The metrics with this verdict."""
        return [row for row in self.rows if row.verdict is verdict]

    @cached_property
    def by_column(self) -> Mapping[str, ComparisonRow]:
        """The metrics by their names."""
        return {row.column: row for row in self.rows}


@dataclass(frozen=True)
class ComparisonResult:
    """All pairs of the sides of each group; `problems` says what could not be read.

    Sides of one group are compared with one another: the models of the command, or, of runs, one
    model variant in each of them. `headlines` are the headline metrics of the `suites`.
    """

    pairs: tuple[Pair, ...]
    problems: tuple[str, ...] = ()
    groups: tuple[tuple[Side, ...], ...] = ()
    headlines: frozenset[str] = frozenset()
    suites: Mapping[str, Suite] = field(default_factory=dict)

    @property
    def tests(self) -> tuple[int, int]:
        """How many differences of leading metrics are compared together, and how many of others."""
        return family_size(self.pairs, leading=True), family_size(self.pairs, leading=False)


def family_size(pairs: Iterable[Pair], *, leading: bool) -> int:
    """The number of differences that are compared together: of leading metrics, or of others."""
    return sum(
        row.evidence is not None and row.evidence.is_test and row.leading is leading
        for pair in pairs
        for row in pair.rows
    )


def pair_of(pairs: Sequence[Pair], one: Side, other: Side) -> Pair | None:
    """The pair of two sides, in either order."""
    return next(
        (
            p
            for p in pairs
            if (p.first is one and p.second is other) or (p.first is other and p.second is one)
        ),
        None,
    )
