"""Models without gradients are guarded too: `check` takes the baseline that `run` wrote."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_files import convnet, node, save
from test_opaque import unknown
from typer.testing import CliRunner

from perimetry import audit
from perimetry.bench.cli.main import app
from perimetry.bench.regression.dead_regions import changed_regions, regions_of
from perimetry.bench.regression.detectors import DetectorSet
from perimetry.bench.regression.tolerances import Tolerances
from perimetry.suites.registry import SUITES


def perimetry(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A baseline of a file with an operator that has no rule, made by the command line."""
    folder = tmp_path_factory.mktemp("black box")
    path = save(unknown(), folder / "a.onnx")
    settings = ("--count", "4", "--kernel-padding", "none", "--device", "cpu")
    made = perimetry("run", path, "--out", folder / "base", *settings)
    assert made.exit_code == 0, made.output
    return folder / "base", path


def test_an_unchanged_black_box_passes(guarded):
    """`check` exits with 0 on an unchanged file without gradients."""
    base, path = guarded
    done = perimetry("check", "--baseline", base, path, "--device", "cpu")
    assert done.exit_code == 0, done.output


def test_a_changed_black_box_has_regressed(guarded, tmp_path):
    """`check` exits with 1 when kernel entries of a file without gradients are zeroed."""
    base, path = guarded
    proto = onnx.load(path)
    first = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(first).copy()
    values[:, :, 0] = 0
    first.CopyFrom(numpy_helper.from_array(values, first.name))
    changed = save(proto, tmp_path / "b.onnx")
    done = perimetry("check", "--baseline", base, changed, "--as", path, "--device", "cpu")
    assert done.exit_code == 1, done.output


@pytest.mark.parametrize(
    ("hole", "said"),
    [
        (np.s_[:, 10:18, 4:12], "new dead region: 64 pixels in rows 10 to 17, columns 4 to 11"),
        (np.s_[:, :, 9], "new dead region: 32 pixels in rows 0 to 31, column 9"),
        (np.s_[1], "new dead region: 1024 pixels in rows 0 to 31, columns 0 to 31 (in channel 1"),
    ],
)
def test_a_new_hole_of_a_black_box_is_a_dead_region(tmp_path, monkeypatch, hole, said):
    """What `padding` finds in models without gradients is guarded as that of `deadpixel` is."""
    monkeypatch.setattr(
        "perimetry.adapters.onnx.model.OnnxModel.why_no_gradients", "no gradient route: planted"
    )
    records = []
    for name, holed in (("a", False), ("b", True)):
        proto = convnet(size=32)
        mask = np.ones((1, 3, 32, 32), np.float32)
        mask[(0, *(hole if isinstance(hole, tuple) else (hole,)))] = not holed
        proto.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
        proto.graph.node[0].input[0] = "masked"
        proto.graph.node.insert(0, node("Mul", ["image", "mask"], ["masked"]))
        quick = {"count": 2, "draws": 10, "device": "cpu", "size": (32, 32)}
        records += audit(save(proto, tmp_path / f"{name}.onnx"), ("padding",), **quick)
    whole, holed = records
    assert regions_of(whole) == {}
    (text,) = changed_regions(regions_of(whole), regions_of(holed), 0.01)
    assert said in text
    assert changed_regions(regions_of(holed), regions_of(whole), 0.01) == []
    found = DetectorSet(Tolerances(), None, SUITES)._dead_regions(whole, holed)
    assert [(one.detector, said in one.text) for one in found] == [("dead region", True)]
