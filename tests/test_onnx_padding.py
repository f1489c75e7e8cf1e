"""Kernel padding on ONNX graphs: equal to padding the torch model, valid, shapes unchanged."""

import copy

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, model, node, save, weights
from timm.layers import Conv2dSame
from torch import nn

from perimetry.adapters.errors import InputError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.kernel_padding.arithmetic import tap_energy
from perimetry.adapters.onnx.kernel_padding.rewrite import pad_graph
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module
from perimetry.adapters.pytorch.model import wrap

NETWORKS = {
    "plain": lambda: nn.Conv2d(3, 8, 3, 2, 1),
    "stem": lambda: nn.Sequential(nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "pointwise": lambda: nn.Conv2d(3, 8, 1, 2),
    "stride 4": lambda: nn.Conv2d(3, 8, 7, 4, 3),
    "stride 3": lambda: nn.Conv2d(3, 8, 5, 3, 2),
    "grouped": lambda: nn.Conv2d(3, 9, 3, 2, 1, groups=3),
    "depthwise": lambda: nn.Conv2d(3, 3, 5, 2, 2, groups=3, bias=False),
    "dilated": lambda: nn.Conv2d(3, 8, 3, 2, 3, dilation=3),
    "unequal axes": lambda: nn.Conv2d(3, 8, (3, 4), (2, 2), (1, 0)),
    "max, rounding up": lambda: nn.MaxPool2d(3, 2, ceil_mode=True),
    "dilated max": lambda: nn.MaxPool2d(3, 2, 1, dilation=3),
    "mean": lambda: nn.AvgPool2d(3, 2, 1),
    "mean without padding": lambda: nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "mean, rounding up": lambda: nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False),
    "same": lambda: Conv2dSame(3, 8, 3, 2),
}


@pytest.mark.parametrize("size", [16, 17])
@pytest.mark.parametrize("fill", ["box", "zero"])
@pytest.mark.parametrize("name", NETWORKS)
def test_padding_the_export_equals_exporting_the_padded_network(name, fill, size, tmp_path):
    """Outputs, padded layers and refused layers of both ways are equal."""
    torch.manual_seed(0)
    network = NETWORKS[name]().eval()
    x = torch.randn(2, 3, size, size)
    path = export_onnx(network, x, tmp_path / "a.onnx")
    padded = pad_graph(onnx.load_model(path), fill)
    treatment = pad_module(network, fill, x)
    with torch.no_grad():
        expected = network(x)
    np.testing.assert_allclose(run(padded.proto, x.numpy()), expected.numpy(), 1e-4, 1e-5)
    mine, theirs = (
        [(p.kind, p.stride, p.kernel, p.padded_kernel) for p in t.layers]
        for t in (padded.treatment, treatment)
    )
    assert mine == theirs
    assert sorted(padded.treatment.refused_layers.values()) == sorted(
        treatment.refused_layers.values()
    )


def run(proto, x):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def one_layer(op, *, size=16, constants=None, inputs=("image",), **attributes):
    return model(
        [node(op, list(inputs), ["out"], **attributes)],
        constants or {},
        dims=["n", 3, size, size],
        outputs=["out"],
    )


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize("size", [15, 16])
def test_auto_padding_keeps_the_output_size_and_zero_keeps_the_function(mode, size):
    """SAME and VALID padding become explicit amounts of the same effect."""
    proto = one_layer(
        "Conv",
        size=size,
        inputs=("image", "w"),
        constants={"w": weights(4, 3, 3, 3)},
        strides=[2, 2],
        auto_pad=mode,
    )
    x = weights(2, 3, size, size, seed=1)
    before = run(proto, x)
    np.testing.assert_allclose(run(pad_graph(proto, "zero").proto, x), before, 1e-4, 1e-5)
    assert run(pad_graph(proto, "box").proto, x).shape == before.shape


@pytest.mark.parametrize("op", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("pads", [[0, 0, 1, 1], [1, 0, 0, 1], [1, 1, 1, 1]])
@pytest.mark.parametrize("size", [15, 16, 17])
def test_unevenly_padded_pools_keep_their_output_size_and_a_constant_stays_one(op, pads, size):
    """A padded pool of a constant image is that constant everywhere."""
    proto = one_layer(op, size=size, kernel_shape=[3, 3], strides=[2, 2], pads=pads)
    padded = pad_graph(proto, "box").proto
    x = np.full((1, 3, size, size), 2.5, dtype=np.float32)
    assert run(padded, x).shape == run(proto, x).shape
    np.testing.assert_allclose(run(padded, x), 2.5, 1e-6)


def test_box_makes_the_phase_sums_of_the_weight_equal():
    """The taps of each phase have the same sum; their energy is that of `tap_energy`."""
    proto = convnet()
    padded = pad_graph(proto, "box")
    stored = {i.name: numpy_helper.to_array(i) for i in padded.proto.graph.initializer}
    taps = stored["c1/padded_weight"]
    assert taps.shape == (8, 3, 4, 4)
    sums = taps.reshape(8, 3, 2, 2, 2, 2).sum((2, 4))
    np.testing.assert_allclose(sums, sums[..., :1, :1].repeat(2, -1).repeat(2, -2), 1e-4, 1e-5)
    torch.testing.assert_close(padded.energy["c1/padded_weight"], tap_energy((3, 3), (2, 2), "box"))


def test_a_shared_weight_stays_for_the_layer_that_is_not_strided():
    """Only the strided layer gets a padded copy of the weight."""
    nodes = [
        node("Conv", ["image", "w"], ["even"], pads=[1, 1, 1, 1]),
        node("Conv", ["even", "w"], ["out"], pads=[1, 1, 1, 1], strides=[2, 2]),
    ]
    proto = model(nodes, {"w": weights(3, 3, 3, 3)}, dims=["n", 3, 8, 8], outputs=["out"])
    padded = pad_graph(proto, "box")
    assert {i.name for i in padded.proto.graph.initializer} == {"w", "out/padded_weight"}
    assert [p.name for p in padded.treatment.layers] == ["out"]
    assert run(padded.proto, weights(1, 3, 8, 8)).shape == (1, 3, 4, 4)


def test_weights_behind_identity_and_dequantisation_are_found():
    """The weight is traced through both nodes, and `zero` keeps the function."""
    levels = np.arange(-40, 41, dtype=np.int8).reshape(3, 3, 3, 3)
    nodes = [
        node("DequantizeLinear", ["levels", "s"], ["real"]),
        node("Identity", ["real"], ["same"]),
        node("Conv", ["image", "same"], ["out"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    constants = {"levels": levels, "s": np.float32(0.1)}
    proto = model(nodes, constants, dims=["n", 3, 8, 8], outputs=["out"])
    x = weights(1, 3, 8, 8)
    np.testing.assert_allclose(run(pad_graph(proto, "zero").proto, x), run(proto, x), 1e-5, 1e-5)
    assert pad_graph(proto, "box").treatment.layers[0].padded_kernel == (4, 4)


def test_a_half_precision_graph_stays_one():
    """Padded float16 weights are float16, and so is the output."""
    proto = one_layer(
        "Conv",
        inputs=("image", "w"),
        constants={"w": weights(4, 3, 3, 3).astype(np.float16)},
        strides=[2, 2],
    )
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    padded = pad_graph(proto, "box").proto
    assert padded.graph.initializer[0].data_type == TensorProto.FLOAT16
    assert run(padded, weights(1, 3, 16, 16).astype(np.float16)).dtype == np.float16


def test_everything_else_of_the_file_stays():
    """Producer, metadata, opsets and node names do not change; nor does the input proto."""
    proto = convnet(opset=13)
    proto.producer_name = "someone"
    helper.set_model_props(proto, {"author": "me"})
    before = copy.deepcopy(proto)
    padded = pad_graph(proto, "box").proto
    assert proto == before
    assert padded.producer_name == "someone"
    assert padded.metadata_props == proto.metadata_props
    assert padded.opset_import == proto.opset_import
    assert [n.name for n in padded.graph.node] == [n.name for n in proto.graph.node]
    onnx.checker.check_model(padded, full_check=True)


def test_fresh_is_seeded_and_keeps_the_mean_square_per_output():
    """Equal seeds give equal files; the energy of the weight changes by less than 20 %."""
    proto = convnet()
    one, again, other = (pad_graph(proto, "fresh", seed=s).proto for s in (1, 1, 2))
    assert one.SerializeToString() == again.SerializeToString()
    assert one.SerializeToString() != other.SerializeToString()
    taps = numpy_helper.to_array(
        next(i for i in one.graph.initializer if i.name == "c1/padded_weight")
    )
    old = weights(8, 3, 3, 3)
    assert np.square(taps).sum() == pytest.approx(np.square(old).sum(), rel=0.2)


def test_none_and_even_kernels_change_nothing():
    """Fill `none`, and a kernel divisible by its stride, return the same graph."""
    proto = convnet()
    assert pad_graph(proto, "none").proto == proto
    even = one_layer(
        "Conv", inputs=("image", "w"), constants={"w": weights(4, 3, 4, 4)}, strides=[2, 2]
    )
    padded = pad_graph(even, "box")
    assert padded.proto == even
    assert padded.treatment.layers == ()


def test_an_unknown_fill_is_refused():
    """A fill that does not exist is an InputError."""
    with pytest.raises(InputError, match="unknown fill"):
        pad_graph(convnet(), "mirror")  # type: ignore[arg-type]


def test_layers_that_cannot_grow_are_listed_with_the_reason():
    """A strided 1-D convolution is refused by name."""
    nodes = [
        node("Reshape", ["image", "to"], ["rows"]),
        node("Conv", ["rows", "w"], ["out"], strides=[2]),
    ]
    constants = {"to": np.array([0, 3, -1]), "w": weights(4, 3, 3)}
    proto = model(nodes, constants, dims=["n", 3, 8, 8], outputs=["out"])
    padded = pad_graph(proto, "box")
    assert padded.treatment.refused_layers == {"out": "kernel padding grows 2-D kernels only"}


def test_a_padded_file_notes_what_was_left_as_a_padded_module_does(tmp_path):
    """It was in the treatment alone."""
    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.MaxPool2d(3, 2, 1)).eval()
    export_onnx(net, torch.zeros(1, 3, 32, 32), tmp_path / "net.onnx")
    models = open_onnx(tmp_path / "net.onnx", device="cpu"), wrap(net, size=(32, 32), device="cpu")
    file, module = ([n for n in m.padded("zero").notes if "left by" in n] for m in models)
    assert "a larger window would change the maximum" in file[0]
    assert [n.partition("(")[2] for n in file] == [n.partition("(")[2] for n in module]
    assert not any("kernel padding" in n for m in models for n in m.padded("none").notes)


def test_the_padded_model_is_verified_anew_and_the_original_is_untouched(tmp_path):
    """`box` changes the target, `zero` does not; the original runs as before."""
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    x = torch.rand(2, 3, 32, 32)
    before = net.run(x, logits=True)
    assert net.why_no_gradients is None
    variant = net.padded("box")
    assert variant.original is net
    assert variant.treatment.fill == "box"
    assert variant.why_no_gradients is None
    assert sum("verified" in note for note in variant.notes) == 1
    after = net.run(x, logits=True)
    assert torch.equal(before.target, after.target)
    assert not torch.allclose(variant.run(x).target, before.target)
    zero = net.padded("zero").run(x)
    torch.testing.assert_close(zero.target, before.target, rtol=1e-4, atol=1e-4)


def test_the_skeleton_of_a_padded_model_carries_the_tap_energies(tmp_path):
    """The padded weight of the skeleton has the energies of `box` taps."""
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu").padded("box")
    weight = net.skeleton().body.graph.constants["c1/padded_weight"]
    assert tuple(weight.shape) == (8, 3, 4, 4)
    torch.testing.assert_close(weight.tap_energy, tap_energy((3, 3), (2, 2), "box"))


def test_a_copy_measures_its_own_gradients(tmp_path):
    """A padded copy has no cached check of gradients and makes its own."""
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    assert net.why_no_gradients is None
    padded = net.padded("box")
    caches = {"_interpreters", "verdict", "why_no_gradients"}
    assert caches <= vars(net).keys()
    assert not caches & vars(padded).keys()
    assert padded.verdict is not net.verdict
