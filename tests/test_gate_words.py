"""The words of CI: one line per model with its verdict, counts, then reasons; in every format."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest
from small_nets import NAME, TOOLS, baseline, net, opened, perturbed
from typer.testing import CliRunner

from perimetry.adapters.errors import UnknownNameError
from perimetry.bench.cli.main import app
from perimetry.bench.records.store import Store
from perimetry.bench.regression import check as gate
from perimetry.bench.regression.detectors import DetectorSet
from perimetry.bench.regression.model_check import NO_FINGERPRINT
from perimetry.bench.regression.report import check_to_json, check_to_text, to_junit
from perimetry.bench.regression.result import (
    DetectorFinding,
    RegressionCheck,
    RegressionVerdict,
    said_once,
)
from perimetry.bench.regression.tolerances import Tolerances, check_patterns


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A baseline of the small network, without fingerprint."""
    return baseline(tmp_path_factory.mktemp("base"), count=4)


@pytest.fixture(scope="module")
def mixed(folder):
    """A check of one model that is unchanged, one that changed, and one that is not there."""
    same = gate.check(folder, opened(net()), run=TOOLS)
    changed = gate.check(folder, opened(perturbed(0, 0.3)), run=TOOLS)
    wrong = gate.check(folder, "nett", run=TOOLS)
    return RegressionCheck("base", (*same.reports, *changed.reports, *wrong.reports))


def test_the_report_begins_with_a_line_for_each_model_and_the_counts(mixed):
    """PASS, FAIL or ERROR first, then the name; the reasons follow the counts."""
    lines = check_to_text(mixed).splitlines()
    assert lines[:3] == [f"PASS {NAME}", f"FAIL {NAME}", "ERROR nett"]
    assert lines[4] == "FAIL: 1 passed, 1 failed, 1 error; baseline base"
    assert any(line.startswith(f"FAIL {NAME}: ") for line in lines[5:])


def test_json_has_verdicts_counts_times_and_findings(mixed):
    """What a script needs, with the words of the report and the exit code."""
    content = json.loads(check_to_json(mixed))
    assert (content["verdict"], content["exit_code"]) == ("FAIL", 1)
    assert content["counts"] == {"passed": 1, "failed": 1, "errors": 1}
    assert [m["verdict"] for m in content["models"]] == ["PASS", "FAIL", "ERROR"]
    assert content["models"][0]["seconds"] > 0
    findings = [m["findings"] for m in content["models"]]
    assert [len(f) for f in findings] == [len(r.findings) for r in mixed.reports]


def test_junit_has_totals_and_times(mixed):
    """Of the whole, and of each model."""
    root = ET.fromstring(to_junit(mixed).encode())  # noqa: S314 - our own
    suites = list(root)
    assert int(root.get("tests")) == sum(int(s.get("tests")) for s in suites)
    assert int(root.get("failures")) == sum(int(s.get("failures")) for s in suites) > 0
    assert root.get("errors") == "1"
    assert float(root.get("time")) == pytest.approx(
        sum(float(s.get("time")) for s in suites), abs=0.01
    )
    assert float(suites[0].get("time")) > 0


def test_a_wrong_model_name_is_in_every_report_and_told_once(folder, tmp_path, monkeypatch):
    """JSON on standard output is whole; JUnit and the annotation have the same error."""
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)
    arguments = ["check", "nett", "--baseline", folder, "--junit", tmp_path / "j.xml"]
    done = CliRunner().invoke(app, [*map(str, arguments), "--format", "json"])
    assert done.exit_code == 2
    (model,) = json.loads(done.stdout)["models"]
    assert (model["model"], model["verdict"]) == ("nett", "ERROR")
    assert len(model["findings"]) == 1
    assert "::error title=perimetry%3A ERROR nett" in done.stderr
    assert ET.parse(tmp_path / "j.xml").getroot().get("errors") == "1"  # noqa: S314 - our own


def test_a_model_that_cannot_be_opened_is_one_error_whatever_the_number_of_records(folder):
    """Three suites and the fingerprint fail for one reason: one finding, with all names."""
    found = gate.check(folder, "timm:test_resnt@init", name=NAME, run=TOOLS)
    (report,) = found.reports
    assert len(report.of(RegressionVerdict.unmeasured)) == 1


def test_failures_are_joined_by_their_text_and_changes_are_not():
    """Two failures of one text are one with both places; equal texts of changes stay apart."""
    error, changed = RegressionVerdict.unmeasured, RegressionVerdict.regressed
    found = said_once(
        [
            DetectorFinding("record", "erf", error, "no"),
            DetectorFinding("record", "deadpixel", error, "no"),
            DetectorFinding("record", "structure", error, "other"),
            DetectorFinding("metric", "a", changed, "1 -> 2"),
            DetectorFinding("metric", "b", changed, "1 -> 2"),
        ]
    )
    assert [f.where for f in found] == ["erf and deadpixel", "structure", "a", "b"]


def test_a_tolerance_that_matches_no_metric_is_an_error(folder, tmp_path):
    """Else a misspelt pattern would be a tolerance that nobody has; near names are offered."""
    columns = {"deadpixel.weakest", "erf:kim2023.rawL1"}
    check_patterns(Tolerances({"deadpixel.*": {}, "*": {}, "erf:kim2023.*": {}}), columns, "b")
    with pytest.raises(UnknownNameError):
        check_patterns(Tolerances({"deadpixel.weakst": {}}), columns, "b")
    path = tmp_path / "t.toml"
    path.write_text('[metrics."deadpixels.*"]\nignore = true\n')
    arguments = ["check", "--baseline", str(folder), "--tolerances", str(path), "--format", "json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 2
    assert json.loads(done.stdout)["counts"] == {"passed": 0, "failed": 0, "errors": 1}


@pytest.mark.parametrize("side", ["baseline", "now"])
@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        ("its response cannot be separated from rounding", RegressionVerdict.same),
        ("3 samples are too few for a standard error; expected 4", RegressionVerdict.same),
        ("the map is 0 everywhere", RegressionVerdict.unmeasured),
    ],
)
def test_a_value_that_noise_hides_is_not_an_error_and_any_other_missing_one_is(
    folder, side, reason, verdict
):
    """The reason of the missing value decides, whichever of the two lacks it."""
    record = next(r for r in Store(folder).records() if r.suite == "deadpixel")
    value = record.metrics["relL1"].model_copy(update={"value": None, "reason": reason})
    spoilt = record.model_copy(update={"metrics": record.metrics | {"relL1": value}})
    spoilt.attach(record.arrays)
    old, new = (spoilt, record) if side == "baseline" else (record, spoilt)
    found = DetectorSet(Tolerances(), None, TOOLS.toolkit().suites).record(old, new)
    (finding,) = [f for f in found if f.where.endswith(".relL1")]
    assert finding.verdict is verdict


@pytest.mark.parametrize("action", ["accept", "drop"])
def test_a_name_that_is_not_in_the_baseline_gets_the_names_that_are(folder, action):
    """The nearest name and all of them; to measure another model is no advice here."""
    names = [f"{NAME}x"] if action == "accept" else [NAME, f"{NAME}x"]
    kept = sorted(p.name for p in folder.rglob("*"))
    with pytest.raises(UnknownNameError) as refused:
        gate.check(folder, *names, run=TOOLS, action=action)
    text = str(refused.value)
    assert sorted(p.name for p in folder.rglob("*")) == kept  # nor is the one that it has dropped
    assert f"did you mean {NAME}?" in text
    assert f"it has {NAME}:" in text
    assert "perimetry run" not in text


def test_what_stores_a_fingerprint_does_not_miss_it(tmp_path):
    """`measure_noise` and `accept` store it, so neither says that the baseline has none."""
    place = baseline(tmp_path / "one", count=4)
    assert NO_FINGERPRINT in gate.check(place, opened(net()), run=TOOLS).reports[0].notes
    for action in ("accept", "measure_noise"):
        place = baseline(tmp_path / action, count=4)
        found = gate.check(place, opened(net()), run=TOOLS, action=action)
        assert NO_FINGERPRINT not in found.reports[0].notes
