"""What a file computes behind target and logits costs it neither gradients nor structure."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, node, save

from perimetry import audit
from perimetry.adapters.errors import ModelFileError, NotApplicableError
from perimetry.adapters.onnx.opening import open_onnx

SUITES = ("structure", "deadpixel")
MAPS = helper.make_sequence_type_proto(
    helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(1, []))
)
BOXES = {
    "boxes": np.random.default_rng(0).random((1, 5, 4), np.float32),
    "one": np.array([1]),
    "most": np.array([3]),
    "iou": np.array([0.5], np.float32),
}


def extended(nodes, outputs, constants=(), *, only=False, domain=""):
    """`convnet` of one image with more nodes behind its logits; `only` their outputs are kept."""
    proto = convnet(batch=1)
    proto.graph.node.extend(nodes)
    proto.graph.initializer.extend(
        numpy_helper.from_array(v, k) for k, v in dict(constants).items()
    )
    if only:
        del proto.graph.output[:]
    proto.graph.output.extend(outputs)
    if domain:
        proto.opset_import.append(helper.make_opsetid(domain, 1))
    return proto


def info(name, kind=TensorProto.FLOAT, dims=None):
    return helper.make_tensor_value_info(name, kind, dims)


def zip_map(*, only):
    made = node("ZipMap", ["logits"], ["z"], domain="ai.onnx.ml", classlabels_int64s=range(5))
    return extended([made], [helper.make_value_info("z", MAPS)], only=only, domain="ai.onnx.ml")


def labels():
    """Names of classes as strings, and no logits among the outputs."""
    nodes = [
        node("ArgMax", ["logits"], ["place"], axis=1),
        node("Gather", ["names", "place"], ["label"]),
    ]
    proto = extended(nodes, [info("label", TensorProto.STRING)])
    names = helper.make_tensor("names", TensorProto.STRING, [5], [b"a", b"b", b"c", b"d", b"e"])
    proto.graph.initializer.append(names)
    return proto


def suppression():
    """NonMaxSuppression on the logits as scores."""
    nodes = [
        node("Unsqueeze", ["logits", "one"], ["scores"]),
        node("NonMaxSuppression", ["boxes", "scores", "most", "iou"], ["kept"]),
    ]
    return extended(nodes, [info("kept", TensorProto.INT64)], BOXES)


def plugin(*, only):
    made = node("EfficientNMS_TRT", ["logits"], ["count", "found"], domain="TRT")
    outputs = [info("count", TensorProto.INT32, [1, 1]), info("found", dims=[1, 10, 4])]
    return extended([made], outputs, only=only, domain="TRT")


CASES = {
    "ZipMap": (zip_map, {"only": False}),
    "ZipMap alone": (zip_map, {"only": True}),
    "strings": (labels, {}),
    "NonMaxSuppression": (suppression, {}),
    "plugin": (plugin, {"only": False}),
    "plugin alone": (plugin, {"only": True}),
}


def values(records):
    return [{n: v.value for n, v in r.metrics.items()} for r in records if r.status == "ok"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The metrics of the network without anything behind it."""
    path = save(convnet(batch=1), tmp_path_factory.mktemp("plain") / "a.onnx")
    return values(audit(path, SUITES, count=2, device="cpu"))


@pytest.mark.parametrize("name", CASES)
def test_an_operator_behind_the_logits_changes_no_number(name, plain, tmp_path):
    """Structure and dead pixels are those of the network alone."""
    make, options = CASES[name]
    path = save(make(**options), tmp_path / "a.onnx")
    assert len(plain) == len(SUITES)
    assert values(audit(path, SUITES, count=2, device="cpu")) == plain


@pytest.mark.parametrize("name", [n for n in CASES if n != "strings"])
def test_what_is_left_out_is_named(name, tmp_path):
    """The note names the operator that is left out."""
    make, options = CASES[name]
    opened = open_onnx(save(make(**options), tmp_path / "a.onnx"), device="cpu")
    operator = make(**options).graph.node[-1].op_type
    assert any(operator in note for note in opened.notes)


def test_a_plugin_alone_leaves_the_logits_that_it_reads(tmp_path):
    """The output is the tensor before the plugin, by its name and its numbers."""
    opened = open_onnx(save(plugin(only=True), tmp_path / "a.onnx"), device="cpu")
    plain = open_onnx(save(convnet(batch=1), tmp_path / "b.onnx"), device="cpu")
    x = opened.spec.blank()
    assert (opened.run(x, logits=True).logits == plain.run(x, logits=True).logits).all()


def test_a_plugin_within_the_network_is_not_cut_off(tmp_path):
    """Layers behind it show that it is no post-processing: onnxruntime refuses the file."""
    proto = convnet(batch=1)
    proto.graph.node[1].domain = "TRT"
    proto.opset_import.append(helper.make_opsetid("TRT", 1))
    with pytest.raises(ModelFileError, match="onnxruntime refuses"):
        open_onnx(save(proto, tmp_path / "a.onnx"))


def test_logits_behind_an_operator_without_a_rule_leave_gradients_to_the_target(tmp_path, plain):
    """Scores that depend on a NonMaxSuppression have no gradient; the target has its own."""
    nodes = [
        *suppression().graph.node[-2:],
        node("Cast", ["kept"], ["numbers"], to=TensorProto.FLOAT),
        node("ReduceSum", ["numbers"], ["factor"], keepdims=0),
        node("Mul", ["logits", "factor"], ["final"]),
    ]
    proto = extended(nodes, [info("final", dims=[1, 5])], BOXES, only=True)
    path = save(proto, tmp_path / "a.onnx")
    opened = open_onnx(path, device="cpu")
    x = opened.spec.blank().requires_grad_()
    assert opened.run(x).target.requires_grad
    with pytest.raises(NotApplicableError, match="NonMaxSuppression node 'kept'"):
        opened.run(x, logits=True)
    assert opened.run(x.detach(), logits=True).logits.shape == (1, 5)
    found = values(audit(path, SUITES, count=2, device="cpu"))
    for metrics, expected in zip(found, plain, strict=True):
        assert metrics["imbalance"] == pytest.approx(expected["imbalance"], rel=1e-5)


def test_a_file_with_strings_behind_its_logits_can_be_padded(tmp_path):
    """Kernel padding reads the constants it needs, and no others."""
    opened = open_onnx(save(labels(), tmp_path / "a.onnx"), device="cpu")
    assert len(opened.padded("box").treatment.layers) == 2
