"""Reports of the regression gate: text, JUnit, annotations of GitHub, exit codes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.regression.report import check_to_text, github_errors, on_github, to_junit
from perimetry.bench.regression.result import (
    DetectorFinding,
    RegressionCheck,
    RegressionVerdict,
    VariantReport,
)

HOSTILE = 'x"><script>&\x1b[31m\n::error::%0A`|'


def hostile_check():
    """A check whose every text is hostile."""
    findings = (
        DetectorFinding("metric", HOSTILE, RegressionVerdict.regressed, HOSTILE),
        DetectorFinding("map", "m", RegressionVerdict.unmeasured, HOSTILE),
        DetectorFinding("metric", "fine", RegressionVerdict.same),
    )
    return RegressionCheck("base", (VariantReport(HOSTILE, "none", findings, (HOSTILE,)),))


def test_junit_counts_and_escapes():
    """A suite a variant, a case a finding, failure and error by verdict; hostile text is text."""
    root = ET.fromstring(to_junit(hostile_check()).encode())  # noqa: S314 - our own
    (suite,) = root
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("3", "1", "1")
    assert [[child.tag for child in case] for case in suite] == [["failure"], ["error"], []]
    assert "<script>" in suite.get("name")
    assert "\x1b" not in to_junit(hostile_check())


def test_github_annotations_are_one_command_each_and_the_summary_is_written(tmp_path):
    """Only under GITHUB_ACTIONS; what a name holds ends neither command nor table."""
    summary = tmp_path / "summary.md"
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    assert on_github(hostile_check(), {}) == []
    (line,) = on_github(hostile_check(), environment)
    assert line.startswith("::error title=perimetry%3A ")
    assert "\n" not in line
    assert "\r" not in line
    assert "%250A" in line
    assert "\x1b" not in summary.read_text()
    assert "**FAIL**" in summary.read_text()
    assert github_errors(RegressionCheck("base", ())) == []


def test_the_terminal_report_shows_no_control_character():
    """Nothing that a record holds moves the cursor."""
    text = check_to_text(hostile_check())
    assert "\x1b" not in text
    assert "regressed" in text


def test_the_command_has_three_exit_codes(tmp_path, monkeypatch):
    """0 for the same model, 1 for another under its name, 2 where there is nothing to judge by."""
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)

    def perimetry(*arguments):
        return CliRunner().invoke(app, [str(a) for a in arguments])

    common = ["--suite", "deadpixel", "--count", "4", "--members", "4", "--device", "cpu"]
    made = perimetry(
        "run", "timm:test_resnet@init", "--kernel-padding", "none", "--out", tmp_path, *common
    )
    assert made.exit_code == 0, made.output
    gate_ = ["check", "--baseline", tmp_path, "--device", "cpu"]
    same = perimetry(*gate_, "timm:test_resnet@init", "--junit", tmp_path / "junit.xml")
    assert same.exit_code == 0, same.output
    assert (tmp_path / "junit.xml").read_text().count("<testsuite ") == 1
    other = perimetry(*gate_, "timm:test_vit@init", "--as", "timm:test_resnet@init")
    assert other.exit_code == 1, other.output
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    lacks = perimetry(*gate_, "timm:test_vit@init")
    assert lacks.exit_code == 2
    assert "--as" in lacks.output
    nowhere = perimetry(*gate_, "none.onnx", "--as", "timm:test_resnet@init")
    assert nowhere.exit_code == 2
    assert "::error title=perimetry" in nowhere.output
    assert "**ERROR**" in (tmp_path / "summary.md").read_text()
