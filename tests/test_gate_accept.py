"""The life of a baseline: a changed model is accepted, a model dropped, in one step or not."""

from __future__ import annotations

import shutil

import pytest
from small_nets import NAME, TOOLS, baseline, net, opened, perturbed

from perimetry import audit
from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.manifest import manifest_faults, write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression import baseline as changing
from perimetry.bench.regression import check as gate
from perimetry.bench.regression.result import RegressionVerdict

SAME, CHANGED, ERROR = (
    RegressionVerdict.same,
    RegressionVerdict.regressed,
    RegressionVerdict.unmeasured,
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A baseline of two models, `net` and `other`, with noise floors, fingerprints and manifest."""
    place = baseline(tmp_path_factory.mktemp("whole"), count=4, suites=("deadpixel",))
    other = wrap(net(seed=1), name="other", spec=opened(net()).spec, device="cpu")
    options = {"count": 4, "draws": 100, "device": "cpu", "batch": 8}
    for record in audit(other, ("deadpixel",), **options):
        Store(place).put(record)
    write_manifest(Store(place))
    for name, module in ((NAME, net()), ("other", net(seed=1))):
        gate.check(place, opened(module), name=name, run=TOOLS, action="measure_noise")
    return place


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def act(place, module, action="check", name=NAME):
    return gate.check(place, opened(module), name=name, run=TOOLS, action=action)


def files(place):
    return {p.relative_to(place): p.read_bytes() for p in place.rglob("*") if p.is_file()}


def test_a_changed_model_is_accepted_and_then_passes(copy):
    """The check fails, says the same as accepting does, and passes after it; the old one fails."""
    changed = perturbed(0, 0.3)
    found = act(copy, changed)
    assert found.verdict is CHANGED
    accepted = act(copy, changed, "accept")
    assert accepted.verdict is SAME
    notes = " ".join(accepted.reports[0].notes)
    for finding in found.reports[0].of(CHANGED):
        assert finding.where in notes
    assert act(copy, changed).verdict is SAME
    assert act(copy, net()).verdict is CHANGED
    assert manifest_faults(Store(copy)) == {}


def test_accepting_one_model_leaves_the_files_of_others(copy):
    """Records, arrays and fingerprint of the other model are the same bytes, and it passes."""
    before = files(copy)
    act(copy, perturbed(0, 0.3), "accept")
    after = files(copy)
    own = [path for path in before if "other" in path.name]
    assert own
    assert all(before[path] == after[path] for path in own)
    assert len(after) == len(before)
    assert act(copy, net(seed=1), name="other").verdict is SAME


@pytest.mark.parametrize("step", ["store_noise", "write_manifest", "_swap"])
def test_a_change_that_fails_leaves_the_baseline_as_it_was(step, copy, monkeypatch):
    """Whatever breaks: the same files with the same bytes, and nothing beside them."""
    before = files(copy)

    def fail(*_arguments):
        raise OSError("planted")

    monkeypatch.setattr(changing, step, fail)
    with pytest.raises(OSError, match="planted"):
        act(copy, perturbed(0, 0.3), "accept")
    assert files(copy) == before
    assert [p.name for p in copy.parent.iterdir()] == ["copy"]


def test_a_baseline_lost_between_two_renamings_is_brought_back(copy):
    """The next change finds the old one under its other name."""
    copy.rename(copy.parent / ".copy.old")
    with pytest.raises(InputError):
        act(copy, net())
    assert act(copy, perturbed(0, 0.3), "accept").verdict is SAME
    assert act(copy, perturbed(0, 0.3)).verdict is SAME


def test_what_cannot_be_measured_is_not_accepted(copy):
    """The baseline is left alone, and the model is an error."""
    before = files(copy)
    found = gate.check(copy, "timm:test_resnt@init", name=NAME, run=TOOLS, action="accept")
    assert found.verdict is ERROR
    assert files(copy) == before


def test_a_damaged_baseline_and_a_packed_one_cannot_be_changed(copy, tmp_path):
    """A new manifest would call the damage whole; a packed file has no place for maps."""
    path = tmp_path / "set.jsonl"
    pack_records(Store(copy), path)
    with pytest.raises(InputError, match="packed"):
        act(path, net(), "accept")
    next((copy / "records").glob("*.npz")).write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        act(copy, net(), "accept")


def test_a_dropped_model_is_gone_with_all_its_files_and_the_others_pass(copy):
    """Records, fingerprint and noise floor; the manifest is that of what is left."""
    found = gate.check(copy, "other", run=TOOLS, action="drop")
    assert found.verdict is SAME
    assert not [p for p in copy.rglob("*") if "other" in p.name]
    assert "other" not in (copy / "check" / "noise.json").read_text()
    assert gate.open_baseline(copy).references == [NAME]
    assert gate.open_baseline(copy).problems == ()
    assert act(copy, net()).verdict is SAME
    with pytest.raises(InputError, match="all models"):
        gate.check(copy, NAME, run=TOOLS, action="drop")
    with pytest.raises(InputError, match="no model was named"):
        gate.check(copy, run=TOOLS, action="drop")


@pytest.mark.parametrize("action", ["accept", "drop"])
def test_a_name_that_the_baseline_does_not_have_is_found_before_anything_is_measured(
    action, copy, monkeypatch
):
    """The other model is not measured, and nothing is changed."""
    before = files(copy)
    monkeypatch.setattr(gate.ModelCheck, "_measure", None)
    with pytest.raises(UnknownNameError, match="nosuch"):
        gate.check(copy, NAME, "nosuch", run=TOOLS, action=action)
    assert files(copy) == before


def test_a_noise_floor_without_its_fingerprint_is_mended_by_accepting_all(tmp_path):
    """The deadlock that only `rm -r check` opened."""
    place = baseline(tmp_path / "one", count=4, suites=("deadpixel",))
    act(place, net(), "measure_noise")
    next((place / "check" / "records").glob("*.json")).unlink()
    found = gate.check(place, opened(net()), name=NAME, run=TOOLS)
    assert found.verdict is ERROR
    opened_again = gate.open_baseline(place)
    changing.check_changeable(opened_again, whole=True)
    with pytest.raises(InputError):
        changing.check_changeable(opened_again, whole=False)
