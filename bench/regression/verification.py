"""What `verify` found: rows, variants and the whole set, which is reported as a check is."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from ..output.text import clean
from .detectors import REGRESSED, SAME, UNMEASURED, DetectorFinding
from .report import check_to_text
from .result import RegressionCheck, VariantReport, Words

if TYPE_CHECKING:
    from ..records.record import Record


class Outcome(Enum):
    """How well a row reproduces."""

    exact = "bit for bit"
    close = "within tolerance"
    differs = "not"
    unmeasured = "could not measure"


VERDICTS = {
    Outcome.exact: SAME,
    Outcome.close: SAME,
    Outcome.differs: REGRESSED,
    Outcome.unmeasured: UNMEASURED,
}


@dataclass(frozen=True)
class ReproducedRecord:
    """One stored record and how well it reproduces; `why` says what differs."""

    reference: str
    fill: str
    cell: str
    outcome: Outcome
    why: str = ""

    @classmethod
    def of(cls, old: Record, outcome: Outcome, why: str = "") -> ReproducedRecord:
        """How well the stored record `old` reproduces."""
        return cls(old.model.reference, old.fill, f"{old.suite}:{old.protocol}", outcome, why)

    @property
    def label(self) -> str:
        """Which record it is, for a person."""
        return clean(f"{self.reference} ({self.fill}) {self.cell}")

    def finding(self) -> DetectorFinding:
        """The row as one comparison of a check."""
        text = {
            Outcome.exact: "reproduces bit for bit",
            Outcome.close: "reproduces within tolerance",
            Outcome.differs: "does not reproduce",
            Outcome.unmeasured: "could not be measured",
        }[self.outcome]
        why = f": {self.why}" if self.why else ""
        return DetectorFinding("record", self.cell, VERDICTS[self.outcome], f"{text}{why}")


@dataclass(frozen=True)
class ReproducedVariant:
    """All rows of one model variant, and the seconds that measuring them took."""

    rows: tuple[ReproducedRecord, ...]
    seconds: float

    def report(self) -> VariantReport:
        """The variant as `check` reports it."""
        counts = {one: sum(row.outcome is one for row in self.rows) for one in Outcome}
        text = ", ".join(f"{count} {one.value}" for one, count in counts.items() if count)
        close = [
            f"{row.cell} {row.why}" for row in self.rows if row.outcome is Outcome.close and row.why
        ]
        return VariantReport(
            self.rows[0].reference,
            self.rows[0].fill,
            tuple(row.finding() for row in self.rows),
            tuple(close),
            self.seconds,
            changed=text,
        )


@dataclass(frozen=True)
class Verification:
    """All variants of a sample, and a sentence for each unreadable file."""

    place: str
    measured: tuple[ReproducedVariant, ...]
    of: int
    problems: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[ReproducedRecord, ...]:
        """The rows of all variants."""
        return tuple(row for variant in self.measured for row in variant.rows)

    @property
    def variants(self) -> int:
        """The number of variants that were measured."""
        return len(self.measured)

    @property
    def exit_code(self) -> int:
        """0: all rows reproduce; 1: some do not, or are unreadable; 2: some were not measured."""
        return int(self.report().verdict.value)

    def report(self) -> RegressionCheck:
        """The result as that of a check: a report for each variant, and for unreadable files."""
        reports = [variant.report() for variant in self.measured]
        unreadable = [
            DetectorFinding("file", self.place, REGRESSED, problem) for problem in self.problems
        ]
        if unreadable:
            words = "files that cannot be read do not reproduce"
            reports.append(VariantReport(self.place, "none", tuple(unreadable), changed=words))
        return RegressionCheck(
            self.place, tuple(reports), self.problems, Words("verify", "set", self._sampled)
        )

    @property
    def _sampled(self) -> str:
        return f"{self.variants} of {self.of} model variants measured again"

    def text(self, width: int = 96) -> str:
        """The report for a terminal."""
        return check_to_text(self.report(), width)
