"""NaN, infinite and constant: said first, by the tensor's name, in records and reports."""

import math

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx_files import convnet, save
from small_nets import TOOLS, baseline, net, opened

from perimetry import audit, check
from perimetry.adapters.errors import CONSTANT, NOT_FINITE
from perimetry.adapters.load import load
from perimetry.bench.model_report.summary import fault_line
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import render_board

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
    assert fault_line(records).startswith(NOT_FINITE.capitalize()[:12])


def test_the_gate_says_it_first(tmp_path):
    """Before what it compares; a network that has become NaN does not pass."""
    place = baseline(tmp_path)
    found = check(place, opened(changed("3.weight", math.nan)), run=TOOLS)
    assert found.verdict.value != 0
    assert found.reports[0].notes[0].startswith(NOT_FINITE)
