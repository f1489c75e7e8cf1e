"""What the regression gate cannot measure, or refuses to: nothing of it passes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from gate_tools import check, found_by, shown
from small_nets import NAME, TOOLS, net, opened, perturbed

from perimetry import audit
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.selection import MixedRecordsError
from perimetry.bench.records.store import Store
from perimetry.bench.regression import check as gate
from perimetry.bench.regression.result import RegressionVerdict, worst
from perimetry.bench.regression.tolerances import OFF, Tolerances


def test_a_regression_outweighs_what_could_not_be_measured():
    """A regression outweighs `unmeasured`, and a check of nothing does not pass."""
    assert (
        worst([RegressionVerdict.same, RegressionVerdict.unmeasured, RegressionVerdict.regressed])
        is RegressionVerdict.regressed
    )
    assert (
        worst([RegressionVerdict.same, RegressionVerdict.unmeasured])
        is RegressionVerdict.unmeasured
    )
    assert worst([]) is RegressionVerdict.unmeasured
    assert [
        v.value
        for v in (RegressionVerdict.same, RegressionVerdict.regressed, RegressionVerdict.unmeasured)
    ] == [0, 1, 2]


def test_a_model_that_cannot_be_opened_could_not_be_measured(gate_copy):
    """A reference that leads nowhere fails every record, and none passes."""
    result = gate.check(gate_copy, "timm:test_resnt@init", name=NAME, run=TOOLS)
    assert result.verdict is RegressionVerdict.unmeasured
    assert "did you mean test_resnet" in shown(result)
    assert found_by(result, RegressionVerdict.same) == set()


def test_a_suite_that_failed_then_or_now_could_not_be_measured(gate_copy):
    """A suite whose record in the baseline failed gives `unmeasured`, with that reason."""
    store = Store(gate_copy)
    record = next(r for r in store.records() if r.suite == "erf")
    path = store.path(record)
    content = json.loads(path.read_text()) | {"status": "failed", "metrics": {}, "map_names": []}
    path.write_text(json.dumps(content))
    result = check(gate_copy, net())
    assert result.verdict is RegressionVerdict.unmeasured
    assert "failed when the baseline was made" in shown(result)


def test_records_of_an_older_protocol_version_are_refused(gate_copy):
    """A baseline of version 0 of a protocol does not compare with what version 1 gives."""
    store = Store(gate_copy)
    for record in store.records():
        path = store.path(record)
        path.write_text(json.dumps(json.loads(path.read_text()) | {"version": "0"}))
    result = check(gate_copy, net(), tolerances=Tolerances(fingerprint=OFF))
    assert result.verdict is RegressionVerdict.unmeasured
    assert "protocol version 0 against 1" in shown(result)


def test_mixed_protocol_versions_in_one_baseline_are_refused(gate_copy):
    """Two versions of one protocol side by side: which one is meant must be said."""
    store = Store(gate_copy)
    record = next(r for r in store.records() if r.suite == "erf")
    record.version, record.key = "0", "0" * 64
    store.put(record)
    with pytest.raises(MixedRecordsError, match="version=0"):
        gate.open_baseline(gate_copy)
    assert gate.open_baseline(gate_copy, ["version=1"]).references == [NAME]


def test_a_corrupt_record_is_told_and_the_others_are_judged(gate_copy):
    """Half a file costs its own record only, and the report says so."""
    store = Store(gate_copy)
    path = store.path(next(r for r in store.records() if r.suite == "erf"))
    path.write_text(path.read_text()[:100])
    result = check(gate_copy, net())
    assert result.verdict is RegressionVerdict.unmeasured
    assert [report.verdict for report in result.reports[1:]] == [RegressionVerdict.same]
    assert len(result.problems) == 1
    assert path.name in result.problems[0]


@pytest.mark.parametrize("made", [False, True])
def test_an_empty_baseline_says_what_was_expected(tmp_path, made):
    """A folder without records, and one that `run` has not filled yet."""
    if made:
        Store(tmp_path)
    message = "contains no readable record" if made else "expected a folder that was given as"
    with pytest.raises(InputError, match=message):
        gate.check(tmp_path, "timm:test_resnet@init")


def test_a_baseline_that_lacks_the_model_offers_near_names(gate_baseline):
    """The error names what is there, and the two ways on; the other models are checked."""
    found = gate.check(gate_baseline, "nett", opened(net()), run=TOOLS)
    assert [report.verdict for report in found.reports] == [
        RegressionVerdict.unmeasured,
        RegressionVerdict.same,
    ]
    assert "did you mean net" in shown(found)
    assert "--as" in shown(found)
    with pytest.raises(InputError, match="2 models"):
        gate.check(gate_baseline, "a", "b", name="net")


def test_images_of_a_folder_must_be_named_and_be_the_same(tmp_path):
    """Records know a folder's name and its files' hash, not where it is."""
    from PIL import Image

    photographs = tmp_path / "photographs"
    photographs.mkdir()
    rng = np.random.default_rng(0)
    for i in range(4):
        pixels = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(photographs / f"{i}.png")
    place, store = tmp_path / "set", Store(tmp_path / "set")
    options = {"images": str(photographs), "count": 4, "draws": 50, "device": "cpu"}
    for record in audit(opened(net()), ("deadpixel",), **options):
        store.put(record)
    write_manifest(store)
    assert "--images FOLDER" in shown(check(place, net()))
    assert check(place, net(), images=str(photographs)).verdict is RegressionVerdict.same
    Image.fromarray(np.zeros((48, 48, 3), np.uint8)).save(photographs / "0.png")
    assert "has other images" in shown(check(place, net(), images=str(photographs)))


def test_a_packed_baseline_is_judged_by_metrics_and_says_what_it_lacks(gate_baseline, tmp_path):
    """A packed baseline is compared by its draws, with a note that maps are missing."""
    path = tmp_path / "set.jsonl"
    pack_records(Store(gate_baseline), path)
    result = check(path, net())
    assert result.verdict is RegressionVerdict.same
    (note,) = [note for note in result.reports[0].notes if "no maps" in note]
    assert "unpaired" not in note
    gate.check(path, opened(net()), run=TOOLS, action="measure_noise")
    assert (tmp_path / "set.check" / "noise.json").exists()
    assert "fingerprint" in found_by(check(path, perturbed(0)))


def test_a_choice_that_leaves_no_record_is_an_error_and_no_verdict(gate_baseline):
    """No model is looked at: the text says why, and nothing passes."""
    with pytest.raises(UnknownNameError, match="--where"):
        gate.check(gate_baseline, where=["model=nothing"], run=TOOLS)
