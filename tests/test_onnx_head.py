"""How the head of a graph is read: the range of the image, and whether the graph normalises it."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from onnx_files import convnet, node, save
from onnx_files import model as graph_of

from perimetry import audit
from perimetry.adapters.input_spec import GUESSED, guessed_values
from perimetry.adapters.onnx.inputs.head import read_head
from perimetry.adapters.onnx.inputs.spec import IMAGENET, image_input, read_spec
from perimetry.adapters.onnx.session import Session
from perimetry.bench.execution.black_box import remarks
from perimetry.bench.model_report.case import Case
from perimetry.bench.model_report.report import report
from perimetry.suites.registry import SUITES

MEAN = np.array([0.485, 0.456, 0.406], np.float32).reshape(3, 1, 1)
STD = np.array([0.229, 0.224, 0.225], np.float32).reshape(3, 1, 1)


def with_head(*steps, channels=3):
    """The small network behind `steps`, each an operator with its number, order or type."""
    proto = convnet(channels=channels)
    nodes, name = [], "image"
    for place, (operator, value) in enumerate(steps):
        out, other = f"h{place}", f"k{place}"
        if operator in ("Cast", "Transpose"):
            key = "to" if operator == "Cast" else "perm"
            nodes.append(node(operator, [name], [out], **{key: value}))
        elif value is None:
            nodes.append(node(operator, [name], [out]))
        else:
            proto.graph.initializer.append(
                onnx.numpy_helper.from_array(np.asarray(value, np.float32), other)
            )
            first = operator.startswith("const")
            operands = [other, name] if first else [name, other]
            nodes.append(node(operator.removeprefix("const"), operands, [out]))
        name = out
    next(n for n in proto.graph.node if "image" in n.input).input[0] = name
    kept = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *kept])
    return proto


def read(proto):
    spec = read_spec(proto, image_input(proto))
    return spec.value_range, spec.mean, spec.std


IMAGENET_GUESS = (1.0, IMAGENET["mean"], IMAGENET["std"])
BYTES = (255.0, (0.0,) * 3, (1.0,) * 3)
UNIT = (1.0, (0.0,) * 3, (1.0,) * 3)
TO_NHWC, TO_NCHW = ("Transpose", [0, 2, 3, 1]), ("Transpose", [0, 3, 1, 2])
HALF, FLOAT = ("Cast", TensorProto.FLOAT16), ("Cast", TensorProto.FLOAT)

SAYS_NOTHING = [
    [],
    [("Mul", 1.7)],
    [("Mul", 1.0)],
    [("Div", 2.0)],
    [("constMul", [0.5])],
    [("Div", STD)],
    [("Mul", 2.0), ("Div", 0.5), ("Mul", 3.0)],
    [("Add", 0.5)],
    [("Mul", 0.5), ("Add", 0.5)],
    [FLOAT, ("Identity", None), ("Mul", 1.7)],
    [TO_NHWC, ("Mul", 1.7), TO_NCHW],
    [("constDiv", 255.0)],
    [("Relu", None), ("Div", 255.0)],
]

BYTES_HEADS = [
    [("Div", 255.0)],
    [("Mul", 1 / 255)],
    [("constMul", 1 / 255), ("Mul", 1.7)],
    [("Div", 127.5), ("Sub", 1.0)],
    [("Sub", 127.5), ("Div", 127.5)],
    [("Sub", 127.5), ("Mul", 1 / 128)],
    [("Mul", 2.0), ("Div", 510.0)],
    [("Sub", 255 * MEAN)],
    [("Add", -255 * MEAN), ("Div", 255 * STD)],
    [("Div", 255.0), ("Sub", MEAN), ("Div", STD)],
    [FLOAT, TO_NHWC, ("Div", 255.0), ("Sub", MEAN.ravel()), ("Div", STD.ravel()), TO_NCHW],
    [TO_NHWC, ("Sub", 255 * MEAN.ravel()), TO_NCHW, ("Mul", 1 / (255 * STD))],
    [("constSub", 255.0)],
    [("Neg", None), ("Add", 128.0)],
    [("Cast", TensorProto.UINT8), FLOAT],
    [("Cast", TensorProto.INT32), FLOAT, ("Mul", 1.7)],
]

UNIT_HEADS = [
    [("Mul", 2.0), ("Sub", 1.0)],
    [("Sub", 0.5), ("Div", 0.5)],
    [("Sub", MEAN), ("Div", STD)],
    [("Add", -MEAN), ("Mul", 1 / STD)],
    [("Div", STD), ("Sub", MEAN / STD)],
    [("Sub", MEAN), HALF, FLOAT, ("Identity", None), ("Div", STD)],
    [TO_NHWC, ("Div", STD.ravel()), TO_NCHW, ("Sub", MEAN / STD)],
    [("Mul", 255.0)],
    [("Mul", 255.0), ("Sub", 255 * MEAN)],
    [("Mul", 255.0), ("Cast", TensorProto.UINT8), FLOAT, ("Div", 255.0)],
    [("constSub", 1.0)],
]


@pytest.mark.parametrize("steps", SAYS_NOTHING)
def test_a_head_that_neither_changes_the_range_nor_takes_a_mean_says_nothing(steps):
    """Mean and deviation are ImageNet's, as without a head: one Mul is no normalisation."""
    assert read(with_head(*steps)) == IMAGENET_GUESS


@pytest.mark.parametrize("steps", BYTES_HEADS)
def test_a_head_for_bytes_means_0_to_255_without_other_normalisation(steps):
    """Division by about 255, means above 1, or a cast to whole numbers, in any order."""
    assert read(with_head(*steps)) == BYTES


@pytest.mark.parametrize("steps", UNIT_HEADS)
def test_a_head_that_takes_a_mean_of_the_unit_range_normalises_by_itself(steps):
    """Means between 0 and 1, or a change to 0..255 by the graph, in any order."""
    assert read(with_head(*steps)) == UNIT


@pytest.mark.parametrize("steps", [h for h in BYTES_HEADS + UNIT_HEADS if "Cast" not in str(h)])
def test_scale_and_shift_are_those_of_the_graph(steps):
    """`scale * x + shift` is what onnxruntime computes for the nodes of the head."""
    head = [step for step in steps if step[0] != "Cast"]
    proto = with_head(*head)
    found = read_head(proto, "image")
    last = f"h{len(head) - 1}"
    image = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    given = Session(proto, [last]).run({"image": image.numpy()})[last]
    literal = found.scale * image.numpy().transpose(found.axes) + found.shift
    np.testing.assert_allclose(np.asarray(given), literal, rtol=1e-4, atol=1e-4)


def test_readers_of_the_shape_do_not_end_the_head():
    """A graph that also asks for the shape of its image is read as without."""
    proto = with_head(("Div", 255.0))
    proto.graph.node.append(node("Shape", ["image"], ["shape"]))
    assert read(proto) == BYTES


def test_two_readers_end_the_head():
    """Two branches that read the image say nothing about its range."""
    proto = with_head(("Div", 255.0))
    proto.graph.node.append(node("Relu", ["image"], ["branch"]))
    assert read(proto) == IMAGENET_GUESS


def test_numbers_may_be_computed_from_stored_ones():
    """A Constant that is cast and given axes is a stored number, as exporters write buffers."""
    proto = with_head(("Sub", 255 * MEAN))
    stored = next(i for i in proto.graph.initializer if i.name == "k0")
    stored.CopyFrom(onnx.numpy_helper.from_array((255 * MEAN.ravel()).astype(np.float16), "half"))
    axes = onnx.numpy_helper.from_array(np.array([1, 2], np.int64), "axes")
    proto.graph.initializer.append(axes)
    made = [
        node("Cast", ["half"], ["single"], to=TensorProto.FLOAT),
        node("Unsqueeze", ["single", "axes"], ["k0"]),
    ]
    kept = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*made, *kept])
    assert read(proto) == BYTES


def test_numbers_of_a_damaged_file_may_be_too_large():
    """Their product is none that a float holds: the head ends before it, without a warning."""
    assert read(with_head(*[("Div", 1e-40)] * 8)) == UNIT


def test_a_constant_node_with_one_float_is_a_stored_number():
    """`Constant(value_float=255)` divides as an initialiser does."""
    proto = with_head(("Div", 255.0))
    del proto.graph.initializer[-1]
    proto.graph.node.insert(0, node("Constant", [], ["k0"], value_float=255.0))
    assert read(proto) == BYTES


def test_rounding_of_quantised_files_is_passed_over():
    """QuantizeLinear and DequantizeLinear at the head leave the values as they are."""
    proto = with_head(("Div", 255.0))
    scale = onnx.numpy_helper.from_array(np.float32(1), "s")
    zero = onnx.numpy_helper.from_array(np.uint8(0), "z")
    proto.graph.initializer.extend([scale, zero])
    proto.graph.node[0].input[0] = "dq"
    proto.graph.node.insert(0, node("QuantizeLinear", ["image", "s", "z"], ["q"]))
    proto.graph.node.insert(1, node("DequantizeLinear", ["q", "s", "z"], ["dq"]))
    assert read(proto) == BYTES


def test_an_open_layout_that_nothing_shows_is_guessed():
    """A file with open axes has a known layout where a convolution reads the image."""
    open_axes = ["n", "c", "h", "w"]
    constants = {"w": np.ones((4, 3, 3, 3), np.float32), "one": np.float32(1)}
    conv = node("Conv", ["image", "w"], ["y"])
    known = graph_of([conv], constants, dims=open_axes, outputs=["y"])
    assert "layout" not in read_spec(known, image_input(known)).guessed
    relu = node("Relu", ["image"], ["y"])
    unknown = graph_of([relu], {}, dims=open_axes, outputs=["y"])
    assert {"layout", "channels"} <= set(read_spec(unknown, image_input(unknown)).guessed)


def test_guesses_are_listed_with_their_values(tmp_path):
    """The note of the record, the remark of the run and `show` have the value of each field."""
    path = save(with_head(("Div", 255.0)), tmp_path / "vendor.onnx")
    records = audit(path, ("structure",), device="cpu")
    (note,) = (n for n in records[0].notes if n.startswith(GUESSED))
    parts = note.removeprefix(GUESSED).split("; ")
    assert parts == [
        "mean 0, 0, 0",
        "std 1, 1, 1",
        "range 0..255",
        "resized by bicubic",
        "crop 0.875",
        "channel order RGB",
    ]
    (remark,) = remarks(records)
    shown = " ".join(report(Case(path, "none", records, {}, SUITES)).split())
    assert all(part in remark and part in shown for part in parts)


def test_declared_fields_are_no_guesses(tmp_path):
    """What the command declares is not listed; the size of an open file is, as height x width."""
    proto = convnet(size="side")
    path = save(proto, tmp_path / "vendor.onnx")
    (record,) = audit(path, ("structure",), device="cpu", inputs={"mean": 0.5, "std": 0.25})
    listed = guessed_values(record.model.spec)
    assert listed[0] == "size 224 x 224 (height x width)"
    assert not any(part.startswith(("mean", "std")) for part in listed)


def test_the_guesses_of_a_module_are_listed_with_their_values():
    """A module gets the same note; a size that was given is not in it."""
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.ReLU())
    (record,) = audit(module, ("structure",), device="cpu", size=(32, 48))
    (note,) = (n for n in record.notes if n.startswith(GUESSED))
    assert "mean 0.485, 0.456, 0.406" in note
    assert "channel order RGB" in note
    assert "32" not in note
