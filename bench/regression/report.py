"""What a check found, for people and machines: text, Markdown, JUnit XML, GitHub annotations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from ..output.layout import Section, lay_out
from ..output.text import clean, code
from .detectors import Verdict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .check import Check, Report
    from .detectors import Finding


MOST = 12
"""Findings of one kind that are told in full; JUnit holds all."""


def to_text(check: Check, width: int = 96) -> str:
    """A section for each model variant, and one line for all."""
    sections = [_section(report) for report in check.reports]
    return lay_out([*sections, Section("All together", [summary(check)])], width)


def summary(check: Check) -> str:
    """How many variants have which verdict."""
    counts = [
        f"{sum(r.verdict is verdict for r in check.reports)} {verdict.words}" for verdict in Verdict
    ]
    return f"{clean(check.baseline)}: {', '.join(counts)}: {check.verdict.words}."


def title(report: Report) -> str:
    """Which variant it is, and the verdict."""
    return f"{variant(report)}: {report.verdict.words}"


def variant(report: Report) -> str:
    """Reference and kernel padding."""
    padding = "" if report.fill == "none" else f" (kernel padding {report.fill})"
    return clean(f"{report.reference}{padding}")


def _section(report: Report) -> Section:
    section = Section(title(report))
    for verdict in (Verdict.regressed, Verdict.unmeasured):
        found = report.of(verdict)
        section.blocks += [_sentence(finding) for finding in found[:MOST]]
        if len(found) > MOST:
            section.blocks.append(f"And {len(found) - MOST} more that {verdict.words}.")
    section.blocks.append(_looked_at(report))
    section.blocks += [f"Note: {note}." for note in report.notes]
    return section


def _sentence(finding: Finding) -> str:
    """What one detector found."""
    return f"{finding.verdict.words}: {finding.detector} {finding.where}: {finding.text}."


def _looked_at(report: Report) -> str:
    """How much was compared, and by which detectors."""
    counts: dict[str, int] = {}
    for finding in report.findings:
        counts[finding.detector] = counts.get(finding.detector, 0) + 1
    told = ", ".join(f"{count} by {detector}" for detector, count in counts.items())
    return f"Looked at {len(report.findings)} things: {told}."


def to_markdown(check: Check) -> str:
    """The step summary: a table of variants, then what was found."""
    from tabulate import tabulate

    rows = [(code(variant(r)), f"**{r.verdict.words}**", _first(r)) for r in check.reports]
    heads = ("model", "verdict", "first finding")
    table = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)
    return f"## perimetry check\n\n{table}\n\n{code(summary(check))}\n"


def _first(report: Report) -> str:
    found = [f for f in report.findings if f.verdict is report.verdict]
    if report.verdict is Verdict.same or not found:
        return ""
    return code(f"{found[0].detector} {found[0].where}: {found[0].text}")


def to_junit(check: Check) -> str:
    """JUnit XML: a suite for each variant, a case for each thing looked at.

    What regressed is a failure, what could not be measured an error.
    """
    root = ET.Element("testsuites", name="perimetry check")
    for report in check.reports:
        found = report.findings
        suite = ET.SubElement(
            root,
            "testsuite",
            name=variant(report),
            tests=str(len(found)),
            failures=str(len(report.of(Verdict.regressed))),
            errors=str(len(report.of(Verdict.unmeasured))),
        )
        for finding in found:
            _case(suite, report, finding)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def _case(suite: ET.Element, report: Report, finding: Finding) -> None:
    name = clean(f"{finding.detector} {finding.where}")
    case = ET.SubElement(suite, "testcase", classname=variant(report), name=name)
    tag = {Verdict.regressed: "failure", Verdict.unmeasured: "error"}.get(finding.verdict)
    if tag is not None:
        ET.SubElement(case, tag, message=clean(finding.text, 2000), type=finding.verdict.words)


def github_errors(check: Check) -> list[str]:
    """GitHub workflow commands: an error for each variant that does not pass, with why."""
    found = []
    for report in check.reports:
        if report.verdict is not Verdict.same:
            held = report.of(report.verdict)
            text = "; ".join(f"{f.detector} {f.where}: {f.text}" for f in held[:MOST])
            heading = _property(f"perimetry: {title(report)}")
            found.append(f"::error title={heading}::{_message(clean(text, 2000))}")
    return found


def on_github(check: Check, environment: Mapping[str, str] = os.environ) -> list[str]:
    """Annotations when this is a GitHub action, after adding to its step summary; else none."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    place = environment.get("GITHUB_STEP_SUMMARY")
    if place:
        with Path(place).open("a", encoding="utf-8") as stream:
            stream.write(to_markdown(check))
    return github_errors(check)


def _message(text: str) -> str:
    """Escape what would end a workflow command's message."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    """Escape what would end a workflow command's property too."""
    return _message(text).replace(":", "%3A").replace(",", "%2C")


def failure_text(reports: Sequence[Report]) -> str:
    """What a failing test says."""
    return lay_out([_section(report) for report in reports if report.verdict is not Verdict.same])
