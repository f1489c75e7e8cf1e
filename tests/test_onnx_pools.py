"""Pools of ONNX files have the windows that onnxruntime gives them."""

import itertools

import numpy as np
import onnxruntime as ort
import pytest
import torch
from onnx_files import convnet, model, node, save, weights

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops
from perimetry.suites.architecture.propagate import energy_map

SIDES = ((12, 14), (10, 7), (9, 16))
WINDOWS = [
    {"kernel_shape": kernel, "strides": strides, "dilations": dilations, "ceil_mode": ceil}
    for kernel, strides, dilations, ceil in itertools.product(
        ([3, 3], [2, 4], [1, 2]), ([1, 1], [2, 3], [4, 2]), ([1, 1], [2, 1], [2, 3]), (0, 1)
    )
]
REFUSED = ort.capi.onnxruntime_pybind11_state


def expected_of(proto, x):
    """What onnxruntime gives; None where it refuses the pool, or no window fits into the map."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    try:
        data = proto.SerializeToString()
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {"image": x})
    except (REFUSED.Fail, REFUSED.RuntimeException, REFUSED.InvalidArgument):
        return None
    return found if found.size else None


@pytest.mark.parametrize("padding", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(
    ("op", "more"),
    [
        ("AveragePool", {"count_include_pad": 0}),
        ("AveragePool", {"count_include_pad": 1}),
        ("MaxPool", {}),
        ("LpPool", {"p": 2}),
    ],
)
def test_a_pool_with_automatic_padding_is_that_of_onnxruntime(op, more, padding):
    """Dilated ones and those whose strides exceed their kernel among them."""
    compared = 0
    for sides, window in itertools.product(SIDES, WINDOWS):
        nodes = [node(op, ["image"], ["out"], auto_pad=padding, **window, **more)]
        opset = 18 if op == "LpPool" else 19
        proto = model(nodes, {}, dims=[1, 2, *sides], outputs=["out"], opset=opset)
        x = weights(1, 2, *sides, seed=3)
        expected = expected_of(proto, x)
        if expected is None:
            continue
        for skeleton in (False,) if op == "LpPool" else (False, True):
            feeds = {"image": torch.from_numpy(x)}
            got = Interpreter(proto, Mode(skeleton=skeleton))(feeds, ["out"])["out"]
            np.testing.assert_allclose(got, expected, 1e-4, 1e-5, err_msg=f"{sides} {window}")
        compared += 1
    assert compared > 100


def pooled(**window):
    nodes = [
        node("AveragePool", ["image"], ["pool"], **window),
        node("Conv", ["pool", "w"], ["map"]),
        node("GlobalAveragePool", ["map"], ["mean"]),
        node("Flatten", ["mean"], ["out"]),
    ]
    held = {"w": weights(4, 3, 1, 1)}
    return model(nodes, held, dims=[1, 3, 12, 14], outputs=["out"], opset=19)


def test_structure_of_a_dilated_pool_with_automatic_padding_is_that_of_the_file(tmp_path):
    """The map is the squared coefficients that impulses show in onnxruntime."""
    window = {"kernel_shape": [3, 3], "strides": [2, 3], "dilations": [2, 1]}
    proto = pooled(**window, auto_pad="SAME_UPPER")
    opened = open_onnx(save(proto, tmp_path / "m.onnx"), device="cpu", target="map")
    assert opened.why_no_gradients is None
    alone = [node("AveragePool", ["image"], ["out"], **window, auto_pad="SAME_UPPER")]
    single = model(alone, {}, dims=[168, 1, 12, 14], outputs=["out"], opset=19)
    impulses = np.eye(168, dtype=np.float32).reshape(168, 1, 12, 14)
    wanted = np.square(expected_of(single, impulses)).sum((1, 2, 3)).reshape(12, 14)
    found = energy_map(opened.skeleton(), (3, 12, 14))[0]
    np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), 1e-5, 1e-6)


def test_a_graph_that_is_read_as_another_function_has_no_structure(tmp_path, monkeypatch):
    """The node is named, whether the gradients were asked for before or not."""
    path = save(convnet(), tmp_path / "a.onnx")
    right = open_onnx(path, device="cpu", target="map")
    right.skeleton()
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", lambda _call, x: x.clamp(min=0.5))
    for first in (False, True):
        wrong = open_onnx(path, device="cpu", target="map")
        assert not first or wrong.why_no_gradients
        with pytest.raises(NotApplicableError, match=r"no structure: .* at the Relu node 'r1'"):
            wrong.skeleton()


def test_rounding_of_a_tenth_of_a_percent_leaves_the_structure(tmp_path, monkeypatch):
    """Gradients are refused for it, as they may be wrong; windows are the same."""
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", lambda _call, x: x.clamp(min=0) * 1.001)
    opened = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu", target="map")
    assert opened.why_no_gradients
    assert opened.skeleton() is not None
