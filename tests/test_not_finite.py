"""NaN, infinite and constant: said first, by the tensor's name, in records and reports."""

import math

import numpy as np
import pytest
import torch
from onnx import helper, numpy_helper
from onnx_files import convnet, save
from small_nets import TOOLS, baseline, net, opened

from perimetry import audit, check, compare
from perimetry.adapters.errors import CONSTANT, NOT_FINITE
from perimetry.adapters.load import load
from perimetry.bench.comparison.html import comparison_page
from perimetry.bench.model_report.report import fault_line
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.page.numbers import content
from perimetry.bench.ranking.tables import render_board
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.selection import meaningless
from perimetry.bench.records.store import Store
from perimetry.bench.regression.report import check_to_text
from perimetry.suites.images import open_images

SUITES = ("structure", "erf", "deadpixel", "perturbation")


def changed(place, value, count=1):
    """The small network with `count` values of one of its tensors replaced."""
    module = net()
    with torch.no_grad():
        module.state_dict()[place].flatten()[:count] = value
    return module


@pytest.mark.parametrize(
    ("place", "value"),
    [("3.weight", math.nan), ("0.bias", math.inf), ("11.weight", -math.inf), ("4.bias", math.nan)],
)
def test_weights_that_are_not_finite_are_the_first_note_of_every_record(place, value):
    """Every record's first note names the tensor and the number of its bad values."""
    for record in audit(opened(changed(place, value)), SUITES, count=4, device="cpu"):
        named = [
            note for note in record.notes if f"1 of {net().state_dict()[place].numel()}" in note
        ]
        assert record.notes[0].startswith(NOT_FINITE)
        assert named
        assert place in named[0]


def test_weights_of_a_file_that_are_not_finite_are_named(tmp_path):
    """A file with NaN weights has a first note with their number and the tensor's name."""
    proto = convnet(size=16)
    values = numpy_helper.to_array(proto.graph.initializer[1]).copy()
    values[0, 0, 0, :2] = np.nan
    proto.graph.initializer[1].CopyFrom(numpy_helper.from_array(values, "w2"))
    (record,) = audit(save(proto, tmp_path / "a.onnx"), ("structure",), count=2, device="cpu")
    assert record.notes[0] == f"{NOT_FINITE}2 of {values.size} values of w2"


def test_an_infinite_mask_of_a_file_is_no_fault(tmp_path):
    """A single infinity, or a tensor of nothing else, is a mask and is not reported."""
    proto = convnet(size=16)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(np.inf), "bound"))
    proto.graph.initializer.append(numpy_helper.from_array(np.full(4, -np.inf, "f4"), "mask"))
    model = load(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert not [note for note in model.notes if note.startswith(NOT_FINITE)]


def test_outputs_that_overflow_name_the_first_layer():
    """With finite weights, the first layer whose output overflows is named in the first note."""
    module = net()
    with torch.no_grad():
        module[0].weight.mul_(1e30)
        module[3].weight.mul_(1e30)
    for record in audit(opened(module), ("erf", "perturbation"), count=4, device="cpu"):
        assert record.notes[0].startswith(NOT_FINITE)
        assert "target" in record.notes[0]
        assert "'3'" in record.notes[0]


def test_an_output_that_does_not_depend_on_the_image_is_named():
    """Agreement of such logits is missing: it is 1 by itself, though one class is the largest."""
    module = changed("11.weight", 0.0, 320)
    records = audit(opened(module), ("erf",), ("none", "box"), count=4, device="cpu")
    assert all(record.notes[0].startswith(CONSTANT) for record in records)
    (fidelity,) = [record for record in records if record.suite == "fidelity"]
    assert fidelity.metrics["top1_agreement"].value is None
    assert "same for all images" in fidelity.metrics["top1_agreement"].reason


def test_a_sound_model_has_no_such_note():
    """A model of finite weights has no note of non-finite or constant values in any suite."""
    for record in audit(opened(net()), SUITES, count=4, device="cpu"):
        assert not [n for n in record.notes if n.startswith((NOT_FINITE, CONSTANT))]


@pytest.mark.parametrize("form", ["table", "md", "tex"])
def test_board_and_report_say_it_first(form):
    """A board of every form and the report's fault line mention weights that are not finite."""
    records = audit(opened(changed("3.weight", math.nan)), ("structure",), count=4, device="cpu")
    assert NOT_FINITE in render_board(Board(records), form)
    assert fault_line(records).startswith(NOT_FINITE)


def test_the_gate_says_it_first(tmp_path):
    """Before what it compares; a network that has become NaN does not pass."""
    place = baseline(tmp_path)
    found = check(place, opened(changed("3.weight", math.nan)), run=TOOLS)
    assert found.verdict.value != 0
    assert found.reports[0].notes[0].startswith(NOT_FINITE)
    assert found.reports[0].findings[0].detector == "finite"
    assert NOT_FINITE in check_to_text(found).split("FAIL net: regressed")[1][:60]


def nan_for_dark_images(path, names=("sound", "dark")):
    """Two files that differ in one factor of the logits, the root of the mean less a bound."""
    proto = convnet(size=32)
    made = [save(proto, path / f"{names[0]}.onnx")]
    images = open_images("dead-leaves", 4, 0)
    spec = load(made[0], device="cpu").spec
    means = sorted(spec.prepare(images.load(spec)).mean((1, 2, 3)).tolist())
    constants = {"bound": np.float32(sum(means[:2]) / 2), "axes": [1, 2, 3], "one": [1]}
    proto.graph.node[-1].output[0] = "plain"
    for name, value in constants.items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for kind, given, name in (
        ("ReduceMean", ["image", "axes"], "mean"),
        ("Sub", ["mean", "bound"], "above"),
        ("Sqrt", ["above"], "root"),
        ("Unsqueeze", ["root", "one"], "factor"),
        ("Mul", ["plain", "factor"], "logits"),
    ):
        flat = {"keepdims": 0} if kind == "ReduceMean" else {}
        proto.graph.node.append(helper.make_node(kind, given, [name], name=f"of_{name}", **flat))
    return [*made, save(proto, path / f"{names[1]}.onnx")]


def test_an_output_that_is_nan_for_one_image_is_found_and_its_node_named(tmp_path):
    """Of four images the darkest: in records, `compare`, the page's numbers and the gate."""
    sound, dark = nan_for_dark_images(tmp_path)
    options = {"count": 4, "device": "cpu"}
    before, after = (audit(path, ("deadpixel",), **options) for path in (sound, dark))
    (note,) = [note for note in after[0].notes if note.startswith(NOT_FINITE)]
    assert "1 of 4 images" in note
    assert "of_root" in note
    assert not meaningless(before)
    compared = compare(before, after)
    assert "NaN or infinite" in " ".join(compared.text().split("  - ")[1].split())
    assert NOT_FINITE in comparison_page(compared)
    (shown,) = [text for text in content(Board([*before, *after]))["defects"]["none"] if text]
    assert shown == note
    store = Store(tmp_path / "base")
    for record in before:
        store.put(record)
    write_manifest(store)
    found = check(store.root, dark, name=sound, run=TOOLS)
    assert found.verdict.value == 1
    assert [f.detector for f in found.reports[0].findings if f.verdict.value] == ["finite"]


def test_one_constant_output_is_told_wherever_the_model_is(tmp_path):
    """Weights of the last layer are zero: the same logits for all images, a new defect."""
    place = baseline(tmp_path, suites=("deadpixel",), count=4)
    found = check(place, opened(changed("11.weight", 0.0, 320)), run=TOOLS)
    assert found.reports[0].findings[0].text.startswith(f"new: {CONSTANT}")


def test_features_that_are_not_finite_differ_by_no_percentage():
    """In the words of a comparison and on its page, whose bars keep their proportions."""
    broken = opened(changed("3.weight", math.nan))
    compared = compare(opened(net()), broken, suites=("structure",), run=TOOLS)
    page = comparison_page(compared)
    assert "differ by an infinite share (values that are not" in " ".join(compared.text().split())
    assert not [t for t in (page, compared.text()) for odd in ("inf %", "nan%") if odd in t]
