"""The report of a check: text, Markdown, JSON, JUnit XML, GitHub annotations."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from ...adapters.errors import SAID_FIRST
from ..output.layout import WIDTH, Section, lay_out, tabulated
from ..output.text import clean, code
from .result import RegressionVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .result import DetectorFinding, RegressionCheck, VariantReport


MOST = 12
"""Number of findings of one kind that are reported in full; JUnit has all."""


def check_to_text(check: RegressionCheck, width: int = 96) -> str:
    """A line for each model variant, the counts, and then the reasons."""
    lines = "\n".join(clean(title(report)) for report in check.reports)
    reasons = lay_out([_section(report, width) for report in check.reports], width)
    return f"{lines}\n\n{check_summary(check)}\n\n{reasons}"


def check_summary(check: RegressionCheck) -> str:
    """The verdict, and the number of variants by verdict: `FAIL: 3 passed, 1 failed`."""
    place = clean(check.baseline)
    found = f"{check.verdict.word}: {', '.join(counts(check).values())}"
    more = f"; {check.called.more}" if check.called.more else ""
    return f"{found}; {check.called.place} {place}{more}"


COUNTED = {
    RegressionVerdict.same: ("passed", "passed"),
    RegressionVerdict.regressed: ("failed", "failed"),
    RegressionVerdict.unmeasured: ("error", "errors"),
}
"""How one and several variants of a verdict are called."""


def counts(check: RegressionCheck) -> dict[RegressionVerdict, str]:
    """Phrases such as `1 failed` for the verdicts that occur."""
    found = {verdict: check.count(verdict) for verdict in COUNTED}
    return {v: f"{n} {COUNTED[v][n != 1]}" for v, n in found.items() if n}


def title(report: VariantReport) -> str:
    """The verdict and the variant."""
    return f"{report.verdict.word} {variant(report)}"


def variant(report: VariantReport) -> str:
    """Reference and kernel padding."""
    padding = "" if report.fill == "none" else f" (kernel padding {report.fill})"
    return clean(f"{report.reference}{padding}")


def _section(report: VariantReport, width: int = WIDTH) -> Section:
    """The reasons; a name that is too long for one line with the words has a line of its own."""
    section = Section(f"{title(report)}: {report.words}")
    if len(section.title) > width:
        section = Section(title(report), [f"{report.words[:1].upper()}{report.words[1:]}."])
    first = [note for note in report.notes if note.startswith(SAID_FIRST)]
    section.blocks += [f"{note}." for note in first]
    for verdict in (RegressionVerdict.regressed, RegressionVerdict.unmeasured):
        found = report.of(verdict)
        section.blocks += [_sentence(finding) for finding in found[:MOST]]
        if len(found) > MOST:
            section.blocks.append(f"{len(found) - MOST} more {verdict.words}.")
    section.blocks.append(_looked_at(report))
    section.blocks += [
        f"Looked at: {finding.text}."
        for finding in report.of(RegressionVerdict.same)
        if finding.detector == "fingerprint"
    ]
    section.blocks += [f"Note: {note}." for note in report.notes if note not in first]
    return section


def _sentence(finding: DetectorFinding) -> str:
    """A sentence about one finding."""
    text = finding.text.rstrip(".")
    return f"{finding.verdict.words}: {finding.detector} {finding.where}: {text}."


def _looked_at(report: VariantReport) -> str:
    """A sentence: how many comparisons each detector made."""
    counts = Counter(finding.detector for finding in report.findings)
    text = ", ".join(f"{count} by {detector}" for detector, count in counts.items())
    return f"Comparisons: {len(report.findings)} ({text})."


def check_to_markdown(check: RegressionCheck) -> str:
    """The step summary of GitHub Actions: a table of variants, and a summary."""
    rows = [(code(variant(r)), f"**{r.verdict.word}**", _first(r)) for r in check.reports]
    heads = ("model", "verdict", "first finding")
    table = tabulated(heads, rows, "pipe")
    return f"## perimetry {check.called.command}\n\n{table}\n\n{code(check_summary(check))}\n"


def _first(report: VariantReport) -> str:
    found = [f for f in report.findings if f.verdict is report.verdict]
    if report.verdict is RegressionVerdict.same or not found:
        return ""
    return code(f"{found[0].detector} {found[0].where}: {found[0].text}")


def to_junit(check: RegressionCheck) -> str:
    """JUnit XML: a test suite for each variant, a case for each comparison.

    A regression is a failure, a failed measurement an error.
    """
    findings = [finding for report in check.reports for finding in report.findings]
    seconds = sum(report.seconds for report in check.reports)
    named = {"name": f"perimetry {check.called.command}", "time": f"{seconds:.3f}"}
    root = ET.Element("testsuites", named | _tally(findings))
    for report in check.reports:
        named = {"name": variant(report), "time": f"{report.seconds:.3f}"}
        suite = ET.SubElement(root, "testsuite", named | _tally(report.findings))
        for finding in report.findings:
            _case(suite, report, finding)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _tally(findings: Sequence[DetectorFinding]) -> dict[str, str]:
    """The counts that JUnit has of a number of cases."""
    verdicts = [finding.verdict for finding in findings]
    return {
        "tests": str(len(verdicts)),
        "failures": str(verdicts.count(RegressionVerdict.regressed)),
        "errors": str(verdicts.count(RegressionVerdict.unmeasured)),
    }


def check_to_json(check: RegressionCheck) -> str:
    """Verdict, exit code, counts, and every finding of every model variant."""
    content = {
        check.called.place: clean(check.baseline),
        "verdict": check.verdict.word,
        "exit_code": check.verdict.value,
        "counts": {COUNTED[v][1]: check.count(v) for v in COUNTED},
        "models": [_report_as_data(report) for report in check.reports],
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


def _report_as_data(report: VariantReport) -> dict[str, Any]:
    return {
        "model": clean(report.reference),
        "kernel_padding": report.fill,
        "verdict": report.verdict.word,
        "seconds": round(report.seconds, 3),
        "findings": [
            {
                "verdict": finding.verdict.word,
                "detector": finding.detector,
                "where": clean(finding.where),
                "text": clean(finding.text, 4000),
            }
            for finding in report.findings
        ],
        "notes": [clean(note, 4000) for note in report.notes],
    }


def _case(suite: ET.Element, report: VariantReport, finding: DetectorFinding) -> None:
    name = clean(f"{finding.detector} {finding.where}")
    case = ET.SubElement(suite, "testcase", classname=variant(report), name=name)
    tag = {RegressionVerdict.regressed: "failure", RegressionVerdict.unmeasured: "error"}.get(
        finding.verdict
    )
    if tag is not None:
        ET.SubElement(case, tag, message=clean(finding.text, 2000), type=finding.verdict.word)


def github_errors(check: RegressionCheck) -> list[str]:
    """GitHub workflow commands: an error for each variant that does not pass, with the reason."""
    errors = []
    for report in check.reports:
        if report.verdict is not RegressionVerdict.same:
            found = report.of(report.verdict)
            text = "; ".join(f"{f.detector} {f.where}: {f.text}" for f in found[:MOST])
            heading = _property(f"perimetry: {title(report)}")
            errors.append(f"::error title={heading}::{_message(clean(text, 2000))}")
    return errors


def on_github(check: RegressionCheck, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Annotations in a GitHub action, after adding to its step summary; elsewhere none."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    place = environment.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as stream:
            stream.write(check_to_markdown(check))
    return github_errors(check)


def _message(text: str) -> str:
    """Escape the characters that would end the message of a workflow command."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape the characters that would end a property of a workflow command."""
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def failure_text(reports: Sequence[VariantReport]) -> str:
    """The message of a failing test."""
    return lay_out(
        [_section(report) for report in reports if report.verdict is not RegressionVerdict.same]
    )
