"""The report of a check: text, Markdown, JUnit XML, GitHub annotations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ..output.layout import Section, lay_out
from ..output.text import clean, code
from .detectors import RegressionVerdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .check import RegressionCheck, VariantReport
    from .detectors import DetectorFinding


MOST = 12
"""Number of findings of one kind that are reported in full; JUnit has all."""


def check_to_text(check: RegressionCheck, width: int = 96) -> str:
    """A section for each model variant, and a summary."""
    sections = [_section(report) for report in check.reports]
    return lay_out([*sections, Section("Summary", [check_summary(check)])], width)


def check_summary(check: RegressionCheck) -> str:
    """The number of variants by verdict."""
    counts = [
        f"{sum(r.verdict is verdict for r in check.reports)} {verdict.words}"
        for verdict in RegressionVerdict
    ]
    return f"{clean(check.baseline)}: {', '.join(counts)}: {check.verdict.words}."


def title(report: VariantReport) -> str:
    """The variant and its verdict."""
    return f"{variant(report)}: {report.verdict.words}"


def variant(report: VariantReport) -> str:
    """Reference and kernel padding."""
    padding = "" if report.fill == "none" else f" (kernel padding {report.fill})"
    return clean(f"{report.reference}{padding}")


def _section(report: VariantReport) -> Section:
    section = Section(title(report))
    for verdict in (RegressionVerdict.regressed, RegressionVerdict.unmeasured):
        found = report.of(verdict)
        section.blocks += [_sentence(finding) for finding in found[:MOST]]
        if len(found) > MOST:
            section.blocks.append(f"{len(found) - MOST} more {verdict.words}.")
    section.blocks.append(_looked_at(report))
    section.blocks += [f"Note: {note}." for note in report.notes]
    return section


def _sentence(finding: DetectorFinding) -> str:
    """A sentence about one finding."""
    return f"{finding.verdict.words}: {finding.detector} {finding.where}: {finding.text}."


def _looked_at(report: VariantReport) -> str:
    """A sentence: how many comparisons each detector made."""
    counts: dict[str, int] = {}
    for finding in report.findings:
        counts[finding.detector] = counts.get(finding.detector, 0) + 1
    text = ", ".join(f"{count} by {detector}" for detector, count in counts.items())
    return f"Comparisons: {len(report.findings)} ({text})."


def check_to_markdown(check: RegressionCheck) -> str:
    """The step summary of GitHub Actions: a table of variants, and a summary."""
    from tabulate import tabulate

    rows = [(code(variant(r)), f"**{r.verdict.words}**", _first(r)) for r in check.reports]
    heads = ("model", "verdict", "first finding")
    table = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)
    return f"## perimetry check\n\n{table}\n\n{code(check_summary(check))}\n"


def _first(report: VariantReport) -> str:
    found = [f for f in report.findings if f.verdict is report.verdict]
    if report.verdict is RegressionVerdict.same or not found:
        return ""
    return code(f"{found[0].detector} {found[0].where}: {found[0].text}")


def to_junit(check: RegressionCheck) -> str:
    """JUnit XML: a test suite for each variant, a case for each comparison.

    A regression is a failure, a failed measurement an error.
    """
    root = ET.Element("testsuites", name="perimetry check")
    for report in check.reports:
        found = report.findings
        suite = ET.SubElement(
            root,
            "testsuite",
            name=variant(report),
            tests=str(len(found)),
            failures=str(len(report.of(RegressionVerdict.regressed))),
            errors=str(len(report.of(RegressionVerdict.unmeasured))),
        )
        for finding in found:
            _case(suite, report, finding)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, report: VariantReport, finding: DetectorFinding) -> None:
    name = clean(f"{finding.detector} {finding.where}")
    case = ET.SubElement(suite, "testcase", classname=variant(report), name=name)
    tag = {RegressionVerdict.regressed: "failure", RegressionVerdict.unmeasured: "error"}.get(
        finding.verdict
    )
    if tag is not None:
        ET.SubElement(case, tag, message=clean(finding.text, 2000), type=finding.verdict.words)


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
