"""What a check found: findings with verdicts, a report for each model variant, and all of them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

from ...adapters.errors import PerimetryError
from ..output.numbers import join_with_and

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


class RegressionVerdict(Enum):
    """The outcome of a check; the value is the exit code."""

    same = 0
    regressed = 1
    unmeasured = 2

    @property
    def word(self) -> str:
        """The verdict as test runners have it."""
        return {0: "PASS", 1: "FAIL", 2: "ERROR"}[self.value]

    @property
    def words(self) -> str:
        """The verdict in the words of the reports."""
        return {0: "not shown to differ", 1: "regressed", 2: "could not measure"}[self.value]


SAME, REGRESSED, UNMEASURED = RegressionVerdict


def worst(verdicts: Sequence[RegressionVerdict]) -> RegressionVerdict:
    """The worst verdict: regressed, then could not measure, then not shown to differ."""
    return next((v for v in (REGRESSED, UNMEASURED, SAME) if v in verdicts), UNMEASURED)


@dataclass(frozen=True)
class DetectorFinding:
    """One comparison by a detector: where, and the verdict."""

    detector: str
    where: str
    verdict: RegressionVerdict
    text: str = ""


@dataclass(frozen=True)
class VariantReport:
    """All findings about one model variant; `seconds` is the time that it took, or its share.

    `changed` says what was done to the baseline, if anything was, or has other words for the
    verdict.
    """

    reference: str
    fill: str
    findings: tuple[DetectorFinding, ...]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    changed: str | None = None

    @property
    def verdict(self) -> RegressionVerdict:
        """The worst of its findings."""
        return worst([finding.verdict for finding in self.findings])

    @property
    def words(self) -> str:
        """The verdict in words."""
        return self.changed or self.verdict.words

    def of(self, verdict: RegressionVerdict) -> list[DetectorFinding]:
        """The findings of one verdict."""
        return [finding for finding in self.findings if finding.verdict is verdict]


@dataclass(frozen=True)
class Words:
    """What a report calls its command and what it compares with, and what else it says first."""

    command: str = "check"
    place: str = "baseline"
    more: str = ""


@dataclass(frozen=True)
class RegressionCheck:
    """All reports of a check, and a sentence for each unreadable file of the baseline."""

    baseline: str
    reports: tuple[VariantReport, ...]
    problems: tuple[str, ...] = ()
    called: Words = Words()

    @property
    def verdict(self) -> RegressionVerdict:
        """The worst of the models' verdicts."""
        return worst([report.verdict for report in self.reports])

    def count(self, verdict: RegressionVerdict) -> int:
        """The number of model variants with this verdict."""
        return sum(report.verdict is verdict for report in self.reports)


def said_once(findings: Sequence[DetectorFinding]) -> list[DetectorFinding]:
    """The same findings; a failure with one text in several places is one, which names them all."""
    found: dict[tuple[Any, ...], list[DetectorFinding]] = {}
    for place, finding in enumerate(findings):
        failed = finding.verdict is RegressionVerdict.unmeasured
        found.setdefault((finding.text,) if failed else (place,), []).append(finding)
    return [
        replace(f[0], where=join_with_and([one.where for one in f])) if len(f) > 1 else f[0]
        for f in found.values()
    ]


def reason_of(error: BaseException) -> str:
    """The text of an error; of one that no user is meant to see, with its type."""
    return str(error) if isinstance(error, PerimetryError) else f"{type(error).__name__}: {error}"


def refused(name: str, fill: str, why: str) -> VariantReport:
    """The report on a variant that could not be measured."""
    return VariantReport(
        name, fill, (DetectorFinding("record", "model", RegressionVerdict.unmeasured, why),)
    )


def failed_check(baseline: Path, error: BaseException, called: Words) -> RegressionCheck:
    """The result of a check that `error` ended before it compared anything."""
    shown = reason_of(error)
    report = failed_report(str(baseline), [shown], called.place)
    return RegressionCheck(str(baseline), (report,), (shown,), called)


def failed_report(place: str, problems: Sequence[str], kind: str = "baseline") -> VariantReport:
    """The report on a baseline with `problems`: whatever its models say, it does not pass."""
    findings = [
        DetectorFinding(kind, place, RegressionVerdict.unmeasured, text) for text in problems
    ]
    return VariantReport(place, "none", tuple(findings))
