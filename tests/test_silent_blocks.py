"""Dead regions of models without gradients, found by blocks that leave no gap."""

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_files import convnet, node, save

from perimetry import audit

QUICK = {"count": 4, "draws": 20, "device": "cpu", "size": (56, 56)}


def holed(path, hole):
    """A file that multiplies its image by 0 in `hole`."""
    proto = convnet(size=56)
    mask = np.ones((1, 3, 56, 56), np.float32)
    mask[(slice(None), slice(None), *hole)] = 0
    proto.graph.initializer.append(numpy_helper.from_array(mask, "mask"))
    proto.graph.node[0].input[0] = "masked"
    proto.graph.node.insert(0, node("Mul", ["image", "mask"], ["masked"]))
    return save(proto, path)


@pytest.mark.parametrize(
    ("hole", "box"),
    [
        ((slice(20, 32), slice(24, 40)), [20, 24, 32, 40]),
        ((slice(0, 8), slice(0, 8)), [0, 0, 8, 8]),
        ((slice(0, 56), slice(52, 56)), [0, 52, 56, 56]),
        ((slice(21, 31), slice(24, 33)), [24, 24, 28, 32]),
    ],
)
def test_a_hole_is_placed_to_the_resolution_of_blocks(tmp_path, hole, box, monkeypatch):
    """Blocks of 4 pixels: every whole block of a hole is silent, and no other one."""
    monkeypatch.setattr(
        "perimetry.adapters.onnx.model.OnnxModel.why_no_gradients", "no gradient route: planted"
    )
    (found,) = audit(holed(tmp_path / "a.onnx", hole), ("padding",), **QUICK)[:1]
    (row,) = found.tables["silent_regions"]
    assert row["box"] == box
    assert row["pixels"] == (box[2] - box[0]) * (box[3] - box[1])


def test_an_ordinary_file_has_no_silent_block(tmp_path, monkeypatch):
    """No false alarm, and what can hide is said in pixels."""
    monkeypatch.setattr(
        "perimetry.adapters.onnx.model.OnnxModel.why_no_gradients", "no gradient route: planted"
    )
    found = audit(save(convnet(size=56), tmp_path / "a.onnx"), ("padding",), **QUICK)[0]
    assert found.tables["silent_regions"] == []
    assert any("at most 6 pixels" in note for note in found.notes)
