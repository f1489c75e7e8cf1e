"""What an ONNX file takes: sizes, channels, layout, range, kinds of numbers and batches."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, node, save, weights

from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx


def test_a_foreign_file_says_what_was_guessed(tmp_path):
    """A file without metadata gets 224 x 224 pixels, and the first note lists the guesses."""
    model = open_onnx(save(convnet(size=None), tmp_path / "a.onnx"), device="cpu")
    assert (model.spec.height, model.spec.width, model.spec.channels) == (224, 224, 3)
    assert {"mean", "std", "height", "width", "channel_order"} <= set(model.spec.guessed)
    assert model.notes[0].startswith("input guessed: ")


def test_a_grey_file_gets_one_channel(tmp_path):
    """An input of one channel is prepared from colour images and has gradients."""
    model = open_onnx(save(convnet(channels=1), tmp_path / "a.onnx"), device="cpu")
    assert model.spec.channels == 1
    assert model.spec.prepare(torch.rand(2, 3, 32, 32)).shape == (2, 1, 32, 32)
    assert model.why_no_gradients is None


def test_a_channels_last_file_gives_the_same_as_the_channels_first_one(tmp_path):
    """The layout is read from the graph, and the input gradients are equal."""
    proto = convnet()
    variant = convnet()
    variant.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("nhwc", TensorProto.FLOAT, ["batch", 32, 32, 3])
    )
    variant.graph.node.insert(0, node("Transpose", ["nhwc"], ["image"], perm=[0, 3, 1, 2]))
    first = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    last = open_onnx(save(variant, tmp_path / "b.onnx"), device="cpu")
    assert (first.spec.layout, last.spec.layout) == ("NCHW", "NHWC")
    assert last.why_no_gradients is None
    results = []
    for net in (first, last):
        x = weights(2, 3, 32, 32)
        x = torch.from_numpy(x).requires_grad_(True)
        results.append(torch.autograd.grad(net.run(x).target.square().sum(), x)[0])
    torch.testing.assert_close(*results)


def test_a_file_that_takes_bytes_is_fed_bytes_and_has_gradients(tmp_path):
    """A uint8 input has the range 0 to 255, and both kinds of pass agree."""
    proto = convnet()
    proto.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("bytes", TensorProto.UINT8, ["batch", 3, 32, 32])
    )
    scale = numpy_helper.from_array(np.float32(1 / 255), "scale")
    proto.graph.initializer.append(scale)
    proto.graph.node.insert(0, node("Mul", ["floats", "scale"], ["image"]))
    proto.graph.node.insert(0, node("Cast", ["bytes"], ["floats"], to=TensorProto.FLOAT))
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert (net.spec.dtype, net.spec.value_range, net.spec.mean) == ("uint8", 255.0, (0.0,) * 3)
    assert net.why_no_gradients is None
    pixels = torch.randint(0, 256, (2, 3, 32, 32)).float()
    plain = net.run(pixels).target
    traced = net.run(pixels.requires_grad_(True)).target.detach()
    assert (traced - plain).norm() < 1e-5 * plain.norm()


def test_a_float_file_that_divides_by_255_itself_wants_0_to_255(tmp_path):
    """A division at the input sets the range to 255, without mean and deviation."""
    proto = convnet()
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(255), "scale"))
    proto.graph.input[0].name = "pixels"
    proto.graph.node.insert(0, node("Div", ["pixels", "scale"], ["image"]))
    spec = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").spec
    assert (spec.value_range, spec.mean, spec.std) == (255.0, (0.0,) * 3, (1.0,) * 3)


def test_a_half_precision_file_passes_the_gate_in_float32(tmp_path):
    """A float16 file has verified gradients and gives a float32 target."""
    proto = convnet()
    for tensor in proto.graph.initializer:
        half = numpy_helper.to_array(tensor).astype(np.float16)
        tensor.CopyFrom(numpy_helper.from_array(half, tensor.name))
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert net.spec.dtype == "float16"
    assert net.why_no_gradients is None, net.why_no_gradients
    assert net.run(torch.rand(1, 3, 32, 32)).target.dtype == torch.float32


def test_a_quantised_file_has_a_straight_through_gradient_and_says_so(tmp_path):
    """Its gradient is parallel to that of the float file, with a cosine above 0.95."""
    proto = convnet()
    proto.graph.initializer.extend(
        [
            numpy_helper.from_array(np.float32(0.02), "s"),
            numpy_helper.from_array(np.int8(0), "z"),
        ]
    )
    proto.graph.node.insert(0, node("DequantizeLinear", ["q", "s", "z"], ["dq"]))
    proto.graph.node.insert(0, node("QuantizeLinear", ["image", "s", "z"], ["q"]))
    proto.graph.node[2].input[0] = "dq"
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert net.why_no_gradients is None, net.why_no_gradients
    assert any("straight-through" in note for note in net.notes)
    exact = open_onnx(save(convnet(), tmp_path / "b.onnx"), device="cpu")
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    mine, theirs = (
        torch.autograd.grad(m.run(x).target.square().sum(), x)[0].flatten() for m in (net, exact)
    )
    assert torch.cosine_similarity(mine, theirs, 0) > 0.95


def test_a_file_that_insists_on_its_batch_is_fed_in_pieces(tmp_path):
    """A baked-in sum over the batch cannot be freed; each image must still be seen alone."""
    proto = convnet(batch=1)
    proto.graph.node.insert(3, node("ReduceSum", ["map", "axis"], ["summed"], keepdims=1))
    proto.graph.node[4].input[0] = "summed"
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert any("requires a batch size of 1" in note for note in net.notes)
    x = torch.rand(3, 3, 32, 32)
    both = net.run(x, target=False, logits=True).logits
    each = torch.cat([net.run(x[i : i + 1], target=False, logits=True).logits for i in range(3)])
    assert torch.equal(both, each)
    x.requires_grad_(True)
    assert net.run(x, logits=True).logits.shape == (3, 5)


def test_a_spec_that_contradicts_the_file_is_refused(tmp_path):
    """Stating one channel for a file that declares three is an InputError."""
    path = save(convnet(), tmp_path / "a.onnx")
    with pytest.raises(InputError, match="the file declares"):
        open_onnx(path, device="cpu", spec=InputSpec(32, 32, 1, (0.0,), (1.0,)))


def test_a_declared_size_is_kept_where_the_graph_depends_on_it_and_given_up_where_not(tmp_path):
    """A mean over the map takes any size; a linear layer over the flattened map takes one."""
    free = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu", spec=InputSpec(64, 48))
    assert (free.target.height, free.target.width) == (16, 12)
    assert free.why_no_gradients is None
    proto = convnet()
    del proto.graph.node[3]
    proto.graph.node[3].input[0] = "map"
    proto.graph.initializer[2].CopyFrom(numpy_helper.from_array(weights(6 * 64, 5), "w3"))
    path = save(proto, tmp_path / "b.onnx")
    with pytest.raises(InputError, match=r"\[None, 3, 32, 32\]"):
        open_onnx(path, device="cpu", spec=InputSpec(64, 64))
