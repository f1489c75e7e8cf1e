"""The batch of a file is found on whatever axis its tensors have it."""

import numpy as np
import pytest
import torch
from onnx_files import model, node, save, weights

from perimetry import audit
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops


def reader(*, batch, columns_first, rows=None):
    """A text reader: a map, its columns as a sequence, and classes for each of them."""
    nodes = [
        node("Conv", ["image", "w1"], ["map"], strides=[4, 4]),
        node("ReduceMean", ["map"], ["line"], axes=[2], keepdims=0),
        node("Transpose", ["line"], ["steps"], perm=[2, 0, 1] if columns_first else [0, 2, 1]),
        node("MatMul", ["steps", "w2"], ["classes"]),
    ]
    constants = {"w1": weights(8, 3, 4, 4), "w2": weights(8, 5, seed=1)}
    if rows is not None:
        nodes.append(node("Reshape", ["classes", "rows"], ["read"]))
        constants["rows"] = np.array(rows)
    dims = [batch, 3, 32, 64]
    return model(nodes, constants, dims=dims, outputs=[nodes[-1].output[0]], opset=17)


@pytest.mark.parametrize("batch", [1, 3, "n"])
@pytest.mark.parametrize("columns_first", [True, False])
def test_a_batch_on_the_second_axis_of_the_output_is_open(batch, columns_first, tmp_path):
    """No images are passed one by one, and the records are those of a batch that comes first."""
    proto = reader(batch=batch, columns_first=columns_first)
    opened = open_onnx(save(proto, tmp_path / "a.onnx"), target="map", device="cpu")
    assert not any("batch" in note for note in opened.notes)
    x = torch.rand(5, 3, 32, 64)
    expected = torch.nn.functional.conv2d(x, torch.from_numpy(weights(8, 3, 4, 4)), stride=4)
    torch.testing.assert_close(opened.run(x).target, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("columns_first", "rows"), [(True, [16, 1, 5]), (False, [1, 16, 5])])
def test_a_stored_shape_is_opened_where_its_batch_is(columns_first, rows, tmp_path):
    """A stored shape is opened at its batch axis, the first or the second."""
    proto = reader(batch=1, columns_first=columns_first, rows=rows)
    opened = open_onnx(save(proto, tmp_path / "a.onnx"), target="map", device="cpu")
    assert not any("batch" in note for note in opened.notes)


def test_a_shape_that_mixes_images_is_passed_in_the_batch_of_the_file(tmp_path):
    """All columns of all images in one row: no axis has the batch."""
    proto = reader(batch=2, columns_first=True, rows=[1, 32, 5])
    opened = open_onnx(save(proto, tmp_path / "a.onnx"), target="map", device="cpu")
    assert any("batch size of 2" in note for note in opened.notes)
    assert opened.run(torch.rand(3, 3, 32, 64)).target.shape == (3, 8, 8, 16)


def test_the_gradients_of_tokens_before_images_are_checked_in_all_tokens(tmp_path, monkeypatch):
    """A wrong gradient of one token is found, though it is not the first."""

    def planted(_call, x, w):
        y = x @ w
        factor = torch.ones(len(y), 1, 1).to(y)
        factor[7] = 2
        return y.detach() + factor * (y - y.detach())

    nodes = [
        node("Conv", ["image", "w1"], ["map"], strides=[4, 4]),
        node("Reshape", ["map", "rows"], ["line"]),
        node("Transpose", ["line"], ["steps"], perm=[2, 0, 1]),
        node("MatMul", ["steps", "w2"], ["tokens"]),
        node("ReduceMean", ["tokens"], ["pooled"], axes=[0], keepdims=0),
    ]
    constants = {"w1": weights(8, 3, 4, 4), "w2": weights(8, 5, seed=1), "rows": [0, 8, -1]}
    proto = model(nodes, constants, dims=["n", 3, 32, 64], outputs=["pooled"], opset=17)
    path = save(proto, tmp_path / "a.onnx")
    assert open_onnx(path, target="tokens", device="cpu").why_no_gradients is None
    monkeypatch.setitem(onnx_ops.OPERATORS, "MatMul", planted)
    refused = open_onnx(path, target="tokens", device="cpu").why_no_gradients
    assert refused.endswith("it goes wrong at the MatMul node 'tokens'")


def test_an_audit_of_a_text_reader_is_the_same_on_either_axis(tmp_path):
    """Every metric of a text reader is the same with the batch axis first or second."""
    found = []
    for columns_first in (True, False):
        proto = reader(batch=1, columns_first=columns_first)
        path = save(proto, tmp_path / f"{columns_first}.onnx")
        records = audit(path, ("erf", "deadpixel"), target="map", count=3, device="cpu")
        found.append([{n: v.value for n, v in r.metrics.items()} for r in records])
        assert all(r.status == "ok" for r in records)
    assert found[0] == found[1]
