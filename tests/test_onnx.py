"""A small ONNX file as a model: its source, target, passes, gradients and skeleton."""

import numpy as np
import pytest
import torch
from onnx import numpy_helper
from onnx_files import convnet, model, node, save, weights

from perimetry.adapters.errors import InputError, NotApplicableError, UnknownNameError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops


def test_source_names_file_hashes_and_the_provider_that_really_runs(tmp_path):
    """The hash of the tensors does not change with the name of the producer."""
    path = save(convnet(), tmp_path / "a.onnx")
    source = open_onnx(path, device="cpu").source
    assert source["file"] == "a.onnx"
    assert source["opset"] == "20"
    assert source["provider"] == source["requested_provider"] == "CPUExecutionProvider"
    assert {len(source["sha256"]), len(source["tensors_sha256"])} == {64}
    other = convnet()
    other.producer_name = "someone"
    renamed = open_onnx(save(other, tmp_path / "b.onnx"), device="cpu").source
    assert renamed["sha256"] != source["sha256"]
    assert renamed["tensors_sha256"] == source["tensors_sha256"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has what the test must miss")
def test_asking_for_cuda_where_there_is_none_names_the_devices_to_take(tmp_path):
    """Asking for CUDA without a GPU is an InputError with the accepted devices."""
    with pytest.raises(InputError, match="'cpu', 'cuda' or 'auto'"):
        open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cuda")


def test_a_provider_that_is_not_the_one_asked_for_is_recorded(tmp_path, monkeypatch):
    """The source has the requested and the actual provider, and a note warns."""
    monkeypatch.setattr(
        "perimetry.adapters.onnx.opening.providers", lambda _: ["CUDAExecutionProvider"]
    )
    model = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    assert model.source["requested_provider"] == "CUDAExecutionProvider"
    assert model.source["provider"] == "CPUExecutionProvider"
    assert any("CUDAExecutionProvider was requested" in note for note in model.notes)


def test_forward_passes_and_gradient_passes_agree(tmp_path):
    """The interpreter gives the target and the logits of onnxruntime to 1e-4."""
    model = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    x = torch.rand(4, 3, 32, 32)
    plain = model.run(x, logits=True)
    traced = model.run(x.clone().requires_grad_(True), logits=True)
    torch.testing.assert_close(plain.target, traced.target.detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(plain.logits, traced.logits.detach(), rtol=1e-4, atol=1e-4)
    assert not plain.target.requires_grad
    assert traced.target.requires_grad


def test_a_named_target_is_taken_and_an_unknown_one_suggests_near_names(tmp_path):
    """A tensor without spatial axes cannot be the target."""
    path = save(convnet(), tmp_path / "a.onnx")
    assert open_onnx(path, device="cpu", target="r1").target.height == 16
    with pytest.raises(UnknownNameError, match="did you mean"):
        open_onnx(path, device="cpu", target="mapp")
    with pytest.raises(NotApplicableError):
        open_onnx(path, device="cpu", target="logits")


def test_a_graph_without_a_spatial_bottleneck_has_no_target_and_says_why(tmp_path):
    """Logits are still computed; target and skeleton raise NotApplicableError."""
    nodes = [node("Flatten", ["image"], ["flat"]), node("Gemm", ["flat", "w"], ["logits"])]
    proto = model(
        nodes, {"w": weights(192, 4)}, dims=["n", 3, 8, 8], outputs=["logits"], out_dims=["n", 4]
    )
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert net.target is None
    assert "name the target" in net.why_not_spatial
    with pytest.raises(NotApplicableError, match="name the target"):
        net.run(torch.rand(1, 3, 8, 8))
    assert net.run(torch.rand(2, 3, 8, 8), target=False, logits=True).logits.shape == (2, 4)
    with pytest.raises(NotApplicableError):
        net.skeleton()


def test_the_target_lies_on_every_path_to_the_output(tmp_path):
    """Two branches that meet after pooling leave only the map before they part."""
    nodes = [
        node("Conv", ["image", "w"], ["stem"], strides=[2, 2]),
        node("Relu", ["stem"], ["a"]),
        node("Sigmoid", ["stem"], ["b"]),
        node("GlobalAveragePool", ["a"], ["pa"]),
        node("GlobalMaxPool", ["b"], ["pb"]),
        node("Add", ["pa", "pb"], ["sum"]),
        node("Flatten", ["sum"], ["logits"]),
    ]
    proto = model(
        nodes,
        {"w": weights(4, 3, 2, 2)},
        dims=["n", 3, 16, 16],
        outputs=["logits"],
        out_dims=["n", 4],
    )
    assert open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").target.name == "stem"


@pytest.mark.parametrize(("stored", "target"), [(False, "map"), (True, "list")])
def test_a_list_of_boxes_is_no_token_grid_of_the_same_length(tmp_path, stored, target):
    """4^2 + 2^2 units of two grids are no 4^2 grid with four tokens more, none being stored.

    8^2 units and one token that the file stores are a grid with a class token.
    """
    nodes = [
        node("Conv", ["image", "w"], ["map"], strides=[4, 4]),
        node("Reshape", ["map", "rows"], ["fine"]),
        node("AveragePool", ["map"], ["half"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Reshape", ["half", "rows"], ["coarse"]),
        node("Concat", ["fine", "token"] if stored else ["fine", "coarse"], ["list"], axis=2),
        node("ReduceMean", ["list", "last"], ["logits"], keepdims=0),
    ]
    constants = {
        "w": weights(5, 3, 4, 4),
        "rows": np.array([1, 5, -1]),
        "token": weights(1, 5, 1),
        "last": np.array([2]),
    }
    side = 32 if stored else 16
    proto = model(
        nodes, constants, dims=[1, 3, side, side], outputs=["logits"], out_dims=[1, 5], opset=18
    )
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert net.target.name == target


def test_the_gate_finds_a_wrong_forward_pass_and_names_the_node(tmp_path, monkeypatch):
    """With a wrong rule for Relu, gradients are refused and the Relu node is named."""
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", lambda _call, x: x.clamp(min=0.5))
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    assert "outputs differ from onnxruntime's" in net.why_no_gradients
    assert "they part at the Relu node 'r1'" in net.why_no_gradients
    with pytest.raises(NotApplicableError, match="they part at"):
        net.run(torch.rand(1, 3, 32, 32, requires_grad=True))


def test_a_graph_with_an_operator_of_unknown_gradient_still_runs_forward(tmp_path):
    """A graph with Acosh, which has no rule, has no gradients and a target."""
    proto = convnet()
    proto.graph.node[1].CopyFrom(node("Acosh", ["c1"], ["r1"]))
    proto.graph.node.insert(1, node("Abs", ["c1"], ["abs"]))
    proto.graph.node.insert(2, node("Add", ["abs", "one"], ["above"]))
    proto.graph.node[3].input[0] = "above"
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(1.1), "one"))
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert (
        net.why_no_gradients == "no gradient route: no rule for 1 of its operators: Acosh node 'r1'"
    )
    assert net.run(torch.rand(2, 3, 32, 32)).target.shape == (2, 6, 8, 8)


def test_nan_outputs_are_a_reason_not_a_number(tmp_path):
    """A logarithm of negative numbers is the reason why there are no gradients."""
    proto = convnet()
    proto.graph.node[1].CopyFrom(node("Log", ["c1"], ["r1"]))
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert net.why_no_gradients.endswith("the model's own outputs are not finite on a test image")


def test_select_knows_one_weight_set(tmp_path):
    """A file has weight set 0 and no other."""
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    net.select(0, torch.zeros(1, 3, 32, 32))
    with pytest.raises(InputError, match="weight set 1"):
        net.select(1, torch.zeros(1, 3, 32, 32))


def test_a_skeleton_maps_the_image_to_the_target_with_weights_on_meta(tmp_path):
    """The weights have their shapes but no values, until ones replace them."""
    net = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu")
    skeleton = net.skeleton()
    weight = skeleton.body.graph.constants["w1"]
    assert (weight.device.type, tuple(weight.shape)) == ("meta", (8, 3, 3, 3))
    skeleton.body.replace_constants({"w1": torch.ones(8, 3, 3, 3), "w2": torch.ones(6, 8, 3, 3)})
    assert skeleton(torch.ones(1, 3, 32, 32)).shape == (1, 6, 8, 8)


def test_the_layers_of_a_skeleton_run_as_modules_named_like_the_nodes(tmp_path):
    """Names of modules are the names of the outputs of the nodes."""
    skeleton = open_onnx(save(convnet(), tmp_path / "a.onnx"), device="cpu").skeleton()
    names = [name for name, _ in skeleton.body.named_modules()]
    assert names[:3] == ["c1", "r1", "map"]


def test_folded_norms_are_assumed_where_no_norm_is_left(tmp_path):
    """Behind every convolution of a bare graph, behind none where layer norms show all norms."""
    proto = convnet()
    bare = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu").skeleton()
    assert bare.body.folded == {"c1", "map"}
    proto.graph.initializer.append(numpy_helper.from_array(np.ones(16, np.float32), "g"))
    proto.graph.node[1].CopyFrom(node("LayerNormalization", ["c1", "g"], ["r1"]))
    normed = open_onnx(save(proto, tmp_path / "b.onnx"), device="cpu").skeleton()
    assert normed.body.folded == set()


def test_layers_written_out_as_arithmetic_have_no_structure_and_say_which(tmp_path):
    """An Erf that is not part of a GELU is named as the reason."""
    proto = convnet()
    proto.graph.node[1].CopyFrom(node("Erf", ["c1"], ["r1"]))
    net = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu")
    with pytest.raises(NotApplicableError, match="Erf node 'r1'"):
        net.skeleton()


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    """Neither opening, padding, running, failing nor exporting prints anything."""
    path = save(convnet(batch=1), tmp_path / "a.onnx")
    net = open_onnx(path, device="cpu")
    net.padded("box").run(torch.rand(2, 3, 32, 32, requires_grad=True))
    with pytest.raises(InputError, match="onnxruntime"):
        net.run(torch.rand(2, 3, 16, 40, 2), logits=True)
    export_onnx(torch.nn.Conv2d(3, 4, 3), torch.rand(1, 3, 8, 8), tmp_path / "b.onnx")
    assert capfd.readouterr() == ("", "")
