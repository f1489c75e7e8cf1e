"""Every operator of the interpreter against the ONNX backend's own node tests."""

import collections
import re
import warnings

import numpy as np
import onnx2fx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import model, node, weights

from perimetry.adapters.errors import ModelFileError, NotApplicableError
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.operators.elementwise import OPERATORS

WITHOUT_CASES = {"GlobalLpPool"}
"""Standard operators without a backend test in ONNX, compared with onnxruntime instead."""
STANDARD = sorted(op for op in OPERATORS if ":" not in op and op not in WITHOUT_CASES)

DECLINED = {
    "Attention": "is not implemented",
    "BatchNormalization": "training mode",
    "DequantizeLinear": "block quantisation",
    "Dropout": "training mode",
    "GRU": "this variant",
    "LSTM": "this variant",
    "MaxPool": "index output",
    "QuantizeLinear": "quantisation",
    "RNN": "this variant",
    "Resize": "Resize with|aspect ratio|coordinate",
    "ScatterElements": "reduction",
    "ScatterND": "reduction",
}
"""Operators some of whose variants are refused, and what the refusal says."""

NO_VALUES = {"test_reduce_max_empty_set", "test_reduce_min_empty_set"}
"""Cases over no values at all, which torch refuses."""

DEPARTS = {
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}
"""Cases in which onnxruntime, which runs the files, gives another result than ONNX expects.

It aligns the last units of both maps where the scaled length is no whole number.
"""

NARROW = {"DynamicQuantizeLinear"}
"""Operators whose expected values hang on float32 rounding; all others are run in float64."""


@pytest.fixture(scope="module")
def cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the generators divide by zero on purpose
        from onnx.backend.test.case.node import collect_testcases

        found = collections.defaultdict(list)
        for case in collect_testcases(None):
            if not case.model.functions and _numeric(case):
                found[_main_operator(case.model)].append(case)
    return found


def _main_operator(proto):
    ops = {n.op_type for n in proto.graph.node} - {"Constant"}
    return ops.pop() if len(ops) == 1 else None


def _numeric(case):
    """Whether torch can hold all tensors of a case; others have no gradient anyway."""
    known = {"float16", "float32", "float64", "bool", "int8", "int16", "int32", "int64", "uint8"}
    values = [*case.model.graph.input, *case.model.graph.output]
    kinds = [v.type.tensor_type.elem_type for v in values]
    if not all(kinds):
        return False
    names = {helper.tensor_dtype_to_np_dtype(k).name for k in kinds}
    return names <= known and TensorProto.STRING not in kinds


def _array(value):
    if isinstance(value, TensorProto):
        value = numpy_helper.to_array(value)
    return np.array(value)


def _run(case, inputs):
    graph = case.model.graph
    names = [i.name for i in graph.input]
    feeds = {n: torch.from_numpy(_array(x)) for n, x in zip(names, inputs, strict=False)}
    outputs = [o.name for o in graph.output]
    dtype = torch.float32 if case.model.graph.node[0].op_type in NARROW else torch.float64
    got = Interpreter(case.model, Mode(dtype=dtype))(feeds, outputs)
    return [got[name] for name in outputs]


def _by_onnxruntime(case, inputs):
    data = case.model.SerializeToString()
    session = ort.InferenceSession(data, providers=["CPUExecutionProvider"])
    names = [i.name for i in session.get_inputs()]
    return session.run(None, dict(zip(names, map(_array, inputs), strict=True)))


@pytest.mark.parametrize("op", STANDARD)
def test_operator_gives_what_the_onnx_backend_tests_expect(op, cases):
    """Every case of the operator is equal to ONNX's own result, or declined as `DECLINED` says.

    Those of `DEPARTS` are equal to onnxruntime's. At least one case is equal, and an operator is in
    `DECLINED` only if it declines one.
    """
    equal, reasons = 0, []
    for case in cases[op]:
        if any(name in case.name for name in (*NO_VALUES, "out_of_range")):
            continue
        for inputs, expected in case.data_sets:
            try:
                got = _run(case, inputs)
            except NotApplicableError as refusal:
                reasons.append(str(refusal))
                continue
            wanted = _by_onnxruntime(case, inputs) if case.name in DEPARTS else expected
            for mine, theirs in zip(got, wanted, strict=True):
                theirs = _array(theirs)
                np.testing.assert_allclose(
                    mine.numpy().astype(theirs.dtype), theirs, case.rtol, 1e-5, err_msg=case.name
                )
            equal += 1
    assert equal, f"no backend test for {op}"
    assert all(re.search(DECLINED.get(op, "never"), reason) for reason in reasons), reasons
    assert bool(reasons) == (op in DECLINED)


def _against_onnxruntime(proto, x, rtol=1e-5):
    """Interpreter and onnxruntime on the float image `x`; gives the interpreter's output."""
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": x})
    (name,) = [o.name for o in proto.graph.output]
    got = Interpreter(proto)({"image": torch.from_numpy(x)}, [name])[name]
    np.testing.assert_allclose(got.numpy(), expected, rtol, 1e-5)
    return got


SCALES = {"s": np.float32(0.05), "z": np.uint8(120), "s2": np.float32(0.03), "z2": np.uint8(100)}


def _quantised_model(op, inputs, constants=None, **attributes):
    """An operator between QuantizeLinear and DequantizeLinear."""
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        node(op, inputs, ["y"], domain="com.microsoft", **attributes),
        node("DequantizeLinear", ["y", "s2", "z2"], ["out"]),
    ]
    return model(
        nodes, {**SCALES, **(constants or {})}, dims=[1, 4, 8, 8], outputs=["out"], out_dims=None
    )


@pytest.mark.parametrize("p", [1, 2, 3])
def test_the_norm_of_a_whole_channel_is_that_of_onnxruntime(p):
    """ONNX has no backend test of GlobalLpPool."""
    nodes = [node("GlobalLpPool", ["image"], ["out"], p=p)]
    proto = model(nodes, {}, dims=[1, 4, 8, 8], outputs=["out"], out_dims=None)
    assert _against_onnxruntime(proto, weights(1, 4, 8, 8, seed=3)).shape == (1, 4, 1, 1)


CONTRIB = {
    "Gelu": (["image"], {}),
    "QuickGelu": (["image"], {"alpha": 1.702}),
    "BiasGelu": (["image", "b8"], {}),
    "FusedMatMul": (["image", "m"], {"transB": 1, "alpha": 0.5}),
    "FusedConv": (["image", "w", "b4"], {"activation": "Relu", "pads": [1, 1, 1, 1]}),
}

QUANTISED = {
    "QLinearAdd": (["q", "s", "z", "q", "s", "z", "s2", "z2"], {}),
    "QLinearMul": (["q", "s", "z", "q", "s", "z", "s2", "z2"], {}),
    "QLinearSigmoid": (["q", "s", "z", "s2", "z2"], {}),
    "QLinearLeakyRelu": (["q", "s", "z", "s2", "z2"], {"alpha": 0.2}),
    "QLinearGlobalAveragePool": (["q", "s", "z", "s2", "z2"], {}),
    "QLinearAveragePool": (["q", "s", "z", "s2", "z2"], {"kernel_shape": [2, 2]}),
    "QLinearConcat": (["s2", "z2", "q", "s", "z", "q", "s", "z"], {"axis": 1}),
}


@pytest.mark.parametrize("op", CONTRIB)
def test_onnxruntimes_own_operators_give_what_onnxruntime_gives(op):
    """Each operator of com.microsoft that has a rule agrees with onnxruntime."""
    inputs, attributes = CONTRIB[op]
    constants = {"b8": weights(8), "m": weights(5, 8), "w": weights(4, 4, 3, 3), "b4": weights(4)}
    nodes = [node(op, inputs, ["out"], domain="com.microsoft", **attributes)]
    used = {k: v for k, v in constants.items() if k in inputs}
    proto = model(nodes, used, dims=[1, 4, 8, 8], outputs=["out"])
    _against_onnxruntime(proto, weights(1, 4, 8, 8, seed=3))


@pytest.mark.parametrize("op", QUANTISED)
def test_quantised_operators_give_what_onnxruntime_gives_within_one_level(op):
    """The largest difference is one quantisation level, 0.03."""
    inputs, attributes = QUANTISED[op]
    proto = _quantised_model(op, inputs, **attributes)
    x = weights(1, 4, 8, 8, seed=3)
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"image": x})
    got = Interpreter(proto)({"image": torch.from_numpy(x)}, ["out"])["out"]
    assert np.abs(got.numpy() - expected).max() <= 0.0301


def test_skip_layer_norm_is_the_layer_norm_of_the_sum():
    """SkipLayerNormalization agrees with onnxruntime on an image of three axes."""
    nodes = [node("SkipLayerNormalization", ["image", "image", "g", "b"], ["out"], "com.microsoft")]
    constants = {"g": weights(8), "b": weights(8, seed=1)}
    proto = model(nodes, constants, dims=[2, 4, 8], outputs=["out"])
    x = weights(2, 4, 8, seed=3)
    _against_onnxruntime(proto, x, rtol=1e-4)


def test_the_straight_through_gradient_is_one_inside_the_range_and_zero_outside():
    """Values are clipped and rounded; gradients are 0, 1, 1 and 0."""
    nodes = [
        node("QuantizeLinear", ["image", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["out"]),
    ]
    constants = {"s": np.float32(0.1), "z": np.int8(0)}
    proto = model(nodes, constants, dims=[4], outputs=["out"])
    x = torch.tensor([-20.0, -1.04, 0.33, 12.9], requires_grad=True)
    y = Interpreter(proto)({"image": x}, ["out"])["out"]
    torch.testing.assert_close(y, torch.tensor([-12.8, -1.0, 0.3, 12.7]))
    (gradient,) = torch.autograd.grad(y.sum(), x)
    assert gradient.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_batch_norm_has_the_right_gradient_at_batch_1_when_the_incoming_one_is_strided():
    """y = k x + c per channel, read as tokens: dy/dx is k times the upstream gradient."""
    nodes = [
        node("BatchNormalization", ["image", "g", "b", "m", "v"], ["n"], epsilon=0.0),
        node("Flatten", ["n"], ["f"], axis=2),
        node("Reshape", ["n", "to"], ["r"]),
        node("Transpose", ["r"], ["out"], perm=[0, 2, 1]),
    ]
    nodes = [nodes[0], *nodes[2:]]
    scale, variance = weights(16), np.abs(weights(16, seed=1)) + 0.5
    constants = {
        "g": scale,
        "b": weights(16, seed=2),
        "m": weights(16, seed=3),
        "v": variance,
        "to": np.array([1, 16, 49]),
    }
    proto = model(nodes, constants, dims=[1, 16, 7, 7], outputs=["out"])
    x = torch.from_numpy(weights(1, 16, 7, 7, seed=4)).requires_grad_(True)
    tokens = Interpreter(proto)({"image": x}, ["out"])["out"]
    upstream = torch.from_numpy(weights(1, 49, 16, seed=5))
    (gradient,) = torch.autograd.grad(tokens, x, upstream)
    k = torch.from_numpy(scale / np.sqrt(variance)).view(1, 16, 1, 1)
    expected = upstream.transpose(1, 2).reshape(1, 16, 7, 7) * k
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-5)


def test_a_graph_with_an_unknown_operator_names_it():
    """The error names domain and operator, without control characters."""
    proto = model(
        [node("Blur", ["image"], ["out"], "vendor.\x1b[31m")], {}, dims=[1], outputs=["out"]
    )
    with pytest.raises(NotApplicableError, match=r"vendor\.\?\[31m:Blur"):
        Interpreter(proto)


def test_an_absurd_shape_is_refused_before_memory_is_taken():
    """A constant of 2^40 entries is a ModelFileError."""
    nodes = [
        node("ConstantOfShape", ["to"], ["big"]),
        node("Add", ["image", "big"], ["out"]),
    ]
    proto = model(nodes, {"to": np.array([2**20, 2**20])}, dims=[1], outputs=["out"])
    with pytest.raises(ModelFileError, match="makes a tensor of shape"):
        Interpreter(proto)


def test_constants_behind_other_nodes_are_computed_once():
    """Nodes that depend on constants alone are folded when the graph is opened."""
    nodes = [
        node("Identity", ["w"], ["same"]),
        node("Mul", ["same", "two"], ["double"]),
        node("Conv", ["image", "double"], ["out"]),
    ]
    constants = {"w": weights(2, 3, 3, 3), "two": np.float32(2)}
    net = Interpreter(model(nodes, constants, dims=[1, 3, 5, 5], outputs=["out"]))
    assert [n.op for n in net.graph.nodes] == ["Conv"]
    expected = torch.from_numpy(weights(2, 3, 3, 3) * 2)
    torch.testing.assert_close(net.graph.constants["double"], expected)


def test_onnx2fx_gives_the_same_outputs_and_gradients():
    """An independent converter agrees on the logits and on the input gradient."""
    from onnx_files import convnet

    proto = convnet(batch=2)
    x = torch.from_numpy(weights(2, 3, 32, 32, seed=9)).requires_grad_(True)
    ours = Interpreter(proto)({"image": x}, ["logits"])["logits"]
    theirs = onnx2fx.convert(proto)(x)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    mine, other = (torch.autograd.grad(y.square().sum(), x)[0] for y in (ours, theirs))
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
