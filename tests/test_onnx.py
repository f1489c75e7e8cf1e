"""ONNX files as models: real exports against the torch models they came from."""

import numpy as np
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx_files import convnet, model, node, read, save, weights

from perimetry.adapters.errors import InputError, NotApplicableError, UnknownNameError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops
from perimetry.suites.architecture.propagate import energy_map

ARCHITECTURES = {
    "resnet18": {},
    "mobilenetv3_small_100": {},
    "vit_tiny_patch16_224": {"img_size": 64},
}
SPEC = InputSpec(64, 64, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def networks():
    made = {}
    for name, settings in ARCHITECTURES.items():
        torch.manual_seed(0)
        made[name] = timm.create_model(name, pretrained=False, **settings).eval()
    return made


@pytest.fixture(scope="module")
def exported(networks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exports")
    paths = {}

    def export(name, exporter):
        if (name, exporter) not in paths:
            path = folder / f"{name}_{exporter}.onnx"
            x = torch.randn(1, 3, 64, 64)
            export_onnx(networks[name], x, path, spec=SPEC, dynamo=exporter == "dynamo")
            paths[name, exporter] = str(path)
        return paths[name, exporter]

    return export


def images(count, seed=1):
    return torch.randn(count, 3, 64, 64, generator=torch.Generator().manual_seed(seed))


def distance(a, b):
    return float((a - b).detach().norm() / b.norm())


EXPORTS = [(n, e) for n in ARCHITECTURES for e in ("torchscript", "dynamo")]


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_an_export_gives_the_logits_and_the_very_feature_map_of_the_torch_model(
    name, exporter, networks, exported
):
    """Logits and target of the file differ from those of the module by less than 1e-5."""
    torch_model = load(networks[name], spec=SPEC)
    onnx_model = load(exported(name, exporter), device="cpu")
    x = images(3)
    mine = onnx_model.run(x, logits=True)
    theirs = torch_model.run(x, logits=True)
    assert distance(mine.logits, theirs.logits) < 1e-5
    assert mine.target.shape == theirs.target.shape
    assert distance(mine.target, theirs.target) < 1e-5
    assert torch_model.target.name == "forward_features"


@pytest.mark.parametrize(("name", "exporter"), EXPORTS)
def test_the_input_gradient_of_an_export_is_that_of_the_torch_model(
    name, exporter, networks, exported
):
    """An export's gradient equals the module's to 1e-2 in float32 and 1e-6 in float64."""
    onnx_model = load(exported(name, exporter), device="cpu")
    assert onnx_model.why_no_gradients is None
    x = images(2).requires_grad_(True)
    signs = torch.sign(images(1, seed=2).flatten())
    mine = _gradient(onnx_model.run(x).target, x, signs)
    theirs = _gradient(networks[name].forward_features(x), x, signs, onnx_model.target)
    assert distance(mine, theirs) < 1e-2

    exact = Interpreter(read(exported(name, exporter)), Mode(dtype=torch.float64))
    x = images(1).double().requires_grad_(True)
    raw = exact({"image": x}, [onnx_model.target.name])[onnx_model.target.name]
    mine = _gradient(raw, x, signs, onnx_model.target)
    network = networks[name].double()
    theirs = _gradient(network.forward_features(x), x, signs, onnx_model.target)
    networks[name].float()
    assert distance(mine, theirs) < 1e-6


def _gradient(raw, x, signs, grid=None):
    y = raw if grid is None else grid.read(raw)
    repeats = signs.repeat(y.numel() // signs.numel() + 1)[: y.numel()].to(y.dtype)
    return torch.autograd.grad((y.flatten() * repeats).sum(), x)[0]


@pytest.mark.parametrize(
    ("name", "dynamo"),
    [
        *((name, False) for name in ARCHITECTURES),
        ("resnet18", True),
        ("vit_tiny_patch16_224", True),
    ],
)
def test_a_file_with_a_fixed_batch_of_one_takes_any_batch(name, dynamo, networks, tmp_path):
    """A batch of three gives what the module gives, in forward and in gradient passes."""
    path = tmp_path / "fixed.onnx"
    x = images(1)
    settings = {"external_data": False, "verbose": False} if dynamo else {}
    with _quiet():
        torch.onnx.export(networks[name], (x,), str(path), dynamo=dynamo, **settings)
    model = open_onnx(path, device="cpu", spec=SPEC)
    assert not any("insists" in note for note in model.notes)
    x = images(3)
    with torch.no_grad():
        expected = networks[name](x)
    assert distance(model.run(x, target=False, logits=True).logits, expected) < 1e-5
    x.requires_grad_(True)
    assert distance(model.run(x, logits=True).logits, expected) < 1e-5


def _quiet():
    import warnings

    return warnings.catch_warnings(action="ignore")


def test_an_exported_file_states_its_input_and_nothing_is_guessed(exported):
    """The preprocessing is read from the metadata of our own export."""
    model = load(exported("resnet18", "torchscript"), device="cpu")
    assert model.spec == SPEC
    assert model.spec.digest() == SPEC.digest()
    assert not any("guessed" in note for note in model.notes)


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
    assert distance(net.run(pixels.requires_grad_(True)).target.detach(), plain) < 1e-5


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


@pytest.mark.parametrize("fill", ["none", "box"])
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_the_energy_map_of_an_export_is_that_of_the_torch_model(exporter, fill, networks, exported):
    """Folded batch norms included: the expected sensitivity does not depend on the runtime."""
    maps = []
    for reference in (networks["resnet18"], exported("resnet18", exporter)):
        spec = SPEC if isinstance(reference, torch.nn.Module) else None
        net = load(reference, spec=spec, device="cpu")
        found = energy_map(net.padded(fill).skeleton(), (3, 64, 64))[0]
        maps.append(found / found.sum())
    torch.testing.assert_close(*maps, rtol=1e-6, atol=1e-9)
    net.skeleton()
    assert any("20 batch norms folded" in note for note in net.notes)


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
