"""`compare` and `check` take declarations, size modules as files, and refuse inputs that differ."""

import pytest
from onnx_files import convnet, save
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, check, compare
from perimetry.adapters.load import input_of
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.compatibility import UnlikeRecordsError
from perimetry.bench.execution import rerun as measuring
from perimetry.bench.execution.settings import Settings
from perimetry.bench.records.store import Store
from perimetry.bench.regression.result import RegressionVerdict

FEW = Settings(count=2)
HOW = {"settings": FEW, "suites": ("structure",), "stages": False}


def module():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 6, 3, 2, 1))


@pytest.fixture
def never(monkeypatch):
    """Fail if anything is measured."""

    def refuse(*_args, **_options):
        raise AssertionError("a model was measured")

    monkeypatch.setattr(measuring, "measure_here", refuse)
    monkeypatch.setattr(measuring, "in_workers", refuse)


def specs(found):
    """The inputs of both sides of the first pair."""
    sides = (found.pairs[0].first, found.pairs[0].second)
    return [next(iter(side.records.values())).model.spec for side in sides]


@pytest.mark.parametrize("stored", [False, True])
def test_a_module_is_measured_at_the_size_of_the_file(tmp_path, stored):
    """A file for 48 x 48 beside a module, whichever comes first, stored or not."""
    path = save(convnet(size=48), tmp_path / "vendor.onnx")
    given = audit(path, ("structure",), device="cpu") if stored else path
    for pair in ((given, module()), (module(), given)):
        assert [(s["height"], s["width"]) for s in specs(compare(*pair, **HOW))] == [(48, 48)] * 2


def test_a_stated_size_holds_for_both(tmp_path):
    """`settings.size` is the size of the module and of a file that runs at it."""
    path = save(convnet(size=48), tmp_path / "vendor.onnx")
    found = compare(path, module(), **{**HOW, "settings": Settings(size=(32, 40), count=2)})
    assert [(s["height"], s["width"]) for s in specs(found)] == [(32, 40)] * 2


@pytest.mark.parametrize("change", [{"size": 64}, {"channels": 1}])
def test_other_inputs_are_refused_before_anything_is_measured(tmp_path, never, change):
    """Two files of other sizes or channels."""
    first = save(convnet(), tmp_path / "a.onnx")
    second = save(convnet(**change), tmp_path / "b.onnx")
    with pytest.raises(UnlikeRecordsError, match=next(iter(change)).replace("size", "height")):
        compare(first, second, **HOW)


def test_force_compares_other_inputs(tmp_path):
    """With `force` both are measured, and the difference is said."""
    first = save(convnet(), tmp_path / "a.onnx")
    second = save(convnet(size=64), tmp_path / "b.onnx")
    found = compare(first, second, **HOW, force=True)
    assert any("height 32 against 64" in text for text in found.pairs[0].forced)


def test_declarations_reach_files_and_modules_that_are_measured_now(tmp_path):
    """`inputs` of compare are those of both models, and of no stored record."""
    path = save(convnet(), tmp_path / "vendor.onnx")
    declared = {"mean": [0.5, 0.5, 0.5], "std": 0.25}
    for spec in specs(compare(path, module(), **HOW, inputs=declared)):
        assert (tuple(spec["mean"]), tuple(spec["std"])) == ((0.5,) * 3, (0.25,) * 3)
    stored = audit(path, ("structure",), device="cpu")
    with pytest.raises(UnlikeRecordsError, match="mean"):
        compare(stored, path, **HOW, inputs=declared)


def test_commands_take_declarations(tmp_path):
    """`--input` of compare and check declares the file; wrong keys are refused by name."""
    path = save(convnet(), tmp_path / "vendor.onnx")
    run = CliRunner()
    for command in (["compare", path, path + "+box"], ["check", path, "--baseline", str(tmp_path)]):
        result = run.invoke(app, [*command, "--input", "rnage=0..255"])
        assert result.exit_code != 0
        assert "range" in result.output + result.stderr


def test_check_refuses_another_input_before_it_measures(tmp_path, monkeypatch):
    """A file of another size in place of the one of the baseline is a finding at once."""
    old = save(convnet(), tmp_path / "old.onnx")
    new = save(convnet(size=64), tmp_path / "new.onnx")
    store = Store(tmp_path / "base")
    for record in audit(old, ("structure",), device="cpu"):
        store.put(record)
    for name in ("measure_here", "in_workers"):
        monkeypatch.setattr(measuring, name, None)
    found = check(tmp_path / "base", new, name=old)
    (finding, *_) = found.reports[-1].findings
    assert (finding.detector, finding.verdict) == ("preprocessing", RegressionVerdict.regressed)
    assert "height 32 -> 64" in finding.text


def test_check_takes_declarations_and_sizes_modules(tmp_path):
    """The declared mean is found to differ; a module is measured at the size of the baseline."""
    path = save(convnet(), tmp_path / "vendor.onnx")
    store = Store(tmp_path / "base")
    for record in audit(path, ("structure",), device="cpu"):
        store.put(record)
    found = check(tmp_path / "base", path, inputs={"mean": 0.5, "std": 0.5})
    assert {f.detector for f in found.reports[-1].findings} == {"preprocessing"}
    found = check(tmp_path / "base", module(), name=path)
    assert not any(f.detector == "preprocessing" for f in found.reports[-1].findings)


def test_the_input_is_known_without_weights_as_it_is_when_opened(tmp_path):
    """`input_of` is the input of the records, for a file, a timm name and a module."""
    path = save(convnet(size="side"), tmp_path / "vendor.onnx")
    for thing in (path, "timm:test_resnet@init", module()):
        (record,) = audit(thing, ("structure",), device="cpu")
        assert input_of(thing).digest() == record.model.spec_sha256
