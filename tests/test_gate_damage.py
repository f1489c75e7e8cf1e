"""The gate fails closed: what of a baseline is missing, damaged or absurd does not pass."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from small_nets import TOOLS, baseline, net, opened
from typer.testing import CliRunner

from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.execution import together
from perimetry.bench.execution.plan import Cell, Job
from perimetry.bench.execution.runner import missing_jobs
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.manifest import changed_files, manifest_faults, write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression import baseline as changing
from perimetry.bench.regression import check as gate
from perimetry.bench.regression.report import failure_text
from perimetry.bench.regression.result import RegressionVerdict


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A baseline with manifest, noise floor and fingerprint."""
    place = baseline(tmp_path_factory.mktemp("whole"))
    gate.check(place, opened(net()), run=TOOLS, action="measure_noise")
    return place


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def check(place, module=None):
    return gate.check(place, opened(net() if module is None else module), run=TOOLS)


def one_file(place, suite, suffix):
    (path,) = (place / "records").glob(f"*.{suite}-*{suffix}")
    return path


def edited(path, change):
    """Rewrite a JSON file after `change`."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def no_values(content):
    content["metrics"] = {name: {"value": None, "reason": "gone"} for name in content["metrics"]}
    content["map_names"] = []


def test_an_unchanged_baseline_with_a_manifest_passes(whole):
    """An intact baseline and an unchanged model give the verdict `same`."""
    assert check(whole).verdict is RegressionVerdict.same


DAMAGE = {
    "record truncated": lambda p: _cut(one_file(p, "deadpixel", "json")),
    "record removed": lambda p: one_file(p, "erf", "json").unlink(),
    "record changed": lambda p: edited(
        one_file(p, "structure", "json"), lambda c: c.update(seed=7)
    ),
    "arrays truncated": lambda p: _cut(one_file(p, "erf", "npz")),
    "arrays removed": lambda p: one_file(p, "erf", "npz").unlink(),
    "arrays of another record": lambda p: shutil.copy(
        one_file(p, "erf", "npz"), one_file(p, "deadpixel", "npz")
    ),
    "record added": lambda p: shutil.copy(
        one_file(p, "erf", "json"), p / "records" / f"extra.{'0' * 20}.json"
    ),
    "manifest truncated": lambda p: _cut(p / "manifest.json"),
    "manifest empty": lambda p: (p / "manifest.json").write_bytes(b""),
    "manifest removed": lambda p: (p / "manifest.json").unlink(),
    "manifest is a broken link": lambda p: _linked_to_nothing(p / "manifest.json"),
    "noise truncated": lambda p: _cut(p / "check" / "noise.json"),
    "noise removed": lambda p: (p / "check" / "noise.json").unlink(),
    "noise floors raised": lambda p: edited(p / "check" / "noise.json", _raised),
    "all of noise and fingerprints removed": lambda p: shutil.rmtree(p / "check"),
    "fingerprint changed": lambda p: edited(
        next((p / "check" / "records").glob("*.json")), lambda c: c.update(seed=7)
    ),
    "fingerprint truncated": lambda p: _cut(next((p / "check" / "records").glob("*.json"))),
    "fingerprint removed": lambda p: next((p / "check" / "records").glob("*.json")).unlink(),
}


def _linked_to_nothing(path):
    path.unlink()
    path.symlink_to("nowhere")


def _raised(content):
    """Floors of measured values twice as high, which is not absurd; one of an exact one is."""
    for floor in content["floors"].values():
        floor["metrics"] = {name: value * 2 + 1e-9 for name, value in floor["metrics"].items()}


def _cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_of_a_baseline_is_an_error_that_names_the_file(kind, copy):
    """Each damage of a baseline gives the verdict `unmeasured` and a text with its path."""
    DAMAGE[kind](copy)
    found = check(copy)
    assert found.verdict is RegressionVerdict.unmeasured
    assert found.problems or found.reports[0].of(RegressionVerdict.unmeasured)
    text = "".join(failure_text(found.reports).split())
    assert str(copy) in text


def test_a_baseline_of_an_older_version_is_accepted_again(copy):
    """Without a manifest it is an error, accepting one model of it too; accepting all mends it."""
    (copy / "manifest.json").unlink()
    found = check(copy)
    assert found.verdict is RegressionVerdict.unmeasured
    assert any("--accept" in text and "manifest.json" in text for text in found.problems)
    with pytest.raises(InputError):
        gate.check(copy, opened(net()), run=TOOLS, action="accept")
    changing.check_changeable(gate.open_baseline(copy), whole=True)
    write_manifest(Store(copy))
    assert check(copy).verdict is RegressionVerdict.same


def test_noise_floors_of_some_models_do_not_list_the_damage_of_others(copy):
    """Measured again for all models the fingerprints are listed; until then the check fails."""
    DAMAGE["noise floors raised"](copy)
    opened_ = gate.open_baseline(copy)
    gate._list_noise(opened_, ())
    assert check(copy).verdict is RegressionVerdict.unmeasured
    gate.check(copy, opened(net()), run=TOOLS, action="measure_noise")
    assert check(copy).verdict is RegressionVerdict.same


def test_a_baseline_without_values_has_nothing_to_compare_with(copy):
    """A baseline whose metrics are all missing gives `unmeasured`, not `same`."""
    for path in (copy / "records").glob("*.json"):
        edited(path, no_values)
    write_manifest(Store(copy))
    found = check(copy)
    assert found.verdict is RegressionVerdict.unmeasured


@pytest.mark.parametrize("value", [1e9, 5.0, float("inf"), float("nan"), -1.0])
@pytest.mark.parametrize("kind", ["metrics", "maps", "stages"])
def test_an_absurd_noise_floor_is_not_believed(kind, value, copy):
    """A floor that would let anything pass is an error, even where nothing changed."""

    def change(content):
        for floor in content["floors"].values():
            floor[kind] = dict.fromkeys(floor[kind], value)

    edited(copy / "check" / "noise.json", change)
    assert check(copy).verdict is RegressionVerdict.unmeasured


def test_one_noisy_stage_does_not_raise_the_limit_of_the_others(copy):
    """The floor of the last stage hides no change of the first."""
    from small_nets import perturbed

    def change(content):
        for floor in content["floors"].values():
            *_, last = floor["stages"]
            floor["stages"][last] = 2.9e-3

    edited(copy / "check" / "noise.json", change)
    found = check(copy, perturbed(0, 0.004))
    assert {f.detector for r in found.reports for f in r.of(RegressionVerdict.regressed)} >= {
        "fingerprint"
    }


@pytest.mark.parametrize("lines", [slice(0, -2), slice(0, 2), slice(1, 2), slice(1, None)])
def test_a_pack_that_was_cut_at_a_line_is_an_error(lines, whole, tmp_path):
    """Without its last lines, without some in the middle, without its first line."""
    path = tmp_path / "set.jsonl"
    pack_records(Store(whole), path)
    assert check(path).verdict is RegressionVerdict.same
    path.write_bytes(b"\n".join(path.read_bytes().split(b"\n")[lines]))
    found = check(path)
    assert found.verdict is RegressionVerdict.unmeasured
    assert str(path) in found.problems[0]


def test_the_manifest_names_what_was_measured_and_each_fault(copy):
    """The manifest lists all files and statuses; a missing and a changed file are two faults."""
    store = Store(copy)
    content = json.loads((copy / "manifest.json").read_text())
    assert set(content["files"]) == {p.name for p in (copy / "records").iterdir()}
    assert content["measured"] == {r.label: "ok" for r in store.records()}
    assert manifest_faults(store) == {}
    DAMAGE["arrays removed"](copy)
    DAMAGE["record changed"](copy)
    faults = manifest_faults(store)
    assert len(faults) == 2
    assert len(changed_files(store)) == 1
    (copy / "manifest.json").unlink()
    assert len(manifest_faults(store)) == 1
    assert changed_files(store) == set()


def test_a_run_measures_again_what_is_not_as_the_manifest_says(copy):
    """A record that was edited, and one whose arrays were, are missing; the others are not."""
    store = Store(copy)
    cells = tuple(Cell(r.suite, r.protocol, r.version, True, {}, r.key) for r in store.records())
    jobs = [Job("net", "none", cells)]
    assert missing_jobs(jobs, store, retry_failed=True) == ([], len(cells))
    DAMAGE["record changed"](copy)
    DAMAGE["arrays of another record"](copy)
    (rest,), present = missing_jobs(jobs, store, retry_failed=True)
    assert {cell.suite for cell in rest.cells} == {"structure", "deadpixel"}
    assert present == len(cells) - 2


def with_nan(layer):
    module = net()
    with torch.no_grad():
        module[layer].weight.view(-1)[0] = float("nan")
    return module


@pytest.mark.parametrize("layer", [0, 3, 11])
def test_a_network_that_now_gives_nan_is_a_finding_and_no_crash(layer, whole):
    """The stage is named where features are compared."""
    found = check(whole, with_nan(layer))
    assert found.verdict is RegressionVerdict.regressed
    assert "fingerprint" in {
        f.detector for r in found.reports for f in r.of(RegressionVerdict.regressed)
    }


def test_a_crash_while_one_model_is_measured_is_no_verdict_on_it(copy, monkeypatch):
    """An exception in a measurement gives `unmeasured` with the exception's text."""

    def crash(*_arguments, **_options):
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(together, "rerun", crash)
    found = check(copy)
    assert found.verdict is RegressionVerdict.unmeasured
    assert "ZeroDivisionError: planted" in failure_text(found.reports)


@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, KeyboardInterrupt, OSError])
def test_a_crash_of_the_command_exits_with_2_and_writes_every_report(
    error, copy, tmp_path, monkeypatch
):
    """An exception of any kind exits with 2, and JUnit, annotation and summary report it."""

    def crash(*_arguments, **_options):
        raise error("planted")

    monkeypatch.setattr(gate, "open_baseline", crash)
    done = command(copy, tmp_path, monkeypatch)
    assert done.exit_code == 2
    assert_reported(done, tmp_path)


@pytest.mark.parametrize("what", ["nowhere", "empty", "tolerances", "model"])
def test_what_cannot_be_checked_exits_with_2_and_writes_every_report(
    what, copy, tmp_path, monkeypatch
):
    """A missing baseline, bad tolerances or an unrecorded model exit with 2 and are reported."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.toml").write_text("maps = ")
    place = tmp_path / what if what in ("nowhere", "empty") else copy
    extra = {
        "tolerances": ["--tolerances", str(tmp_path / "bad.toml")],
        "model": ["timm:test_vit@init"],
    }.get(what, [])
    done = command(place, tmp_path, monkeypatch, *extra)
    assert done.exit_code == 2
    assert_reported(done, tmp_path)


def command(place, tmp_path, monkeypatch, *extra):
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "summary.md"))
    junit = str(tmp_path / "junit.xml")
    return CliRunner().invoke(app, ["check", "--baseline", str(place), "--junit", junit, *extra])


def assert_reported(done, tmp_path):
    root = ET.parse(tmp_path / "junit.xml").getroot()  # noqa: S314 - our own
    assert sum(int(suite.get("errors")) for suite in root) >= 1
    assert "::error title=perimetry" in done.output
    assert "**ERROR**" in (tmp_path / "summary.md").read_text()


def test_agreement_of_nan_or_constant_logits_is_missing_with_the_reason():
    """An arg-max over NaN, or over equal numbers, agrees with itself and says nothing."""
    from perimetry import audit

    def with_head(value):
        module = net()
        with torch.no_grad():
            module[11].weight.fill_(0.0)
            module[11].bias.fill_(value)
        return opened(module)

    for value, reason in (
        (float("nan"), "not finite"),
        (float("inf"), "not finite"),
        (1.0, "same"),
    ):
        records = audit(with_head(value), ("deadpixel",), ("box",), count=4, device="cpu")
        (fidelity,) = [r for r in records if r.suite == "fidelity"]
        agreement = fidelity.metrics["top1_agreement"]
        assert agreement.value is None
        assert reason in agreement.reason
        assert np.isfinite(fidelity.metrics["feature_cosine"].value)
