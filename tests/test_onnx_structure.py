"""Structure of ONNX graphs: activations that end them, and quantised graphs."""

import numpy as np
import onnx
import onnx_table
import onnxruntime as ort
import pytest
import torch
from onnx_files import model, node, save, weights
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from test_onnx_vendors import FACE
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.paths import bottlenecks
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 64


def structure(path, **options):
    """Metrics with values, maps, and layers of one file.

    Layers go without their names and order: quantisers sort branches differently.
    """
    opened = open_onnx(path, device="cpu", **options)
    found = measure_skeleton(opened.skeleton(), (3, opened.spec.height, opened.spec.width))
    numbers = {k: v.value for k, v in found.metrics.items() if v.value is not None}
    layers = [{k: v for k, v in row.items() if k != "name"} for row in found.tables["layers"]]
    return numbers, found.maps, sorted(map(str, layers))


def assert_same(one, other):
    """Numbers and maps within 1e-9, layers equal."""
    assert one[0] == pytest.approx(other[0], rel=1e-9, abs=1e-9)
    assert one[1].keys() == other[1].keys()
    for name, held in one[1].items():
        np.testing.assert_allclose(held, other[1][name], rtol=1e-9, atol=1e-9)
    assert one[2] == other[2]


# ------------------------------------------------------------------ activations and gates


def network(*tail, opset=20, constants=None):
    """Two strided convolutions, then `tail` from `map` on; the last tensor is the output."""
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["c1"], ["r1"]),
        node("Conv", ["r1", "w2"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        *tail,
    ]
    held = {"w1": weights(8, 3, 3, 3), "w2": weights(6, 8, 3, 3, seed=1), **(constants or {})}
    dims = ["batch", 3, SIDE, SIDE]
    return model(nodes, held, dims=dims, outputs=[nodes[-1].output[0]], opset=opset)


ENDS = {
    "sigmoid": [node("Sigmoid", ["map"], ["out"])],
    "hard sigmoid": [node("HardSigmoid", ["map"], ["out"])],
    "tanh": [node("Tanh", ["map"], ["out"])],
    "softmax": [node("Softmax", ["map"], ["out"], axis=1)],
    "log softmax": [node("LogSoftmax", ["map"], ["out"], axis=1)],
    "sigmoid, moved": [
        node("Sigmoid", ["map"], ["s"]),
        node("Transpose", ["s"], ["out"], perm=[0, 2, 3, 1]),
    ],
}


@pytest.mark.parametrize("opset", [11, 20])
@pytest.mark.parametrize("name", ENDS)
def test_an_activation_at_the_end_changes_no_number(name, opset, tmp_path):
    """Its slope is one factor for all units, and maps are scaled to mean 1."""
    bare = structure(save(network(opset=opset), tmp_path / "bare.onnx"), target="map")
    ended = network(*ENDS[name], opset=opset)
    found = structure(save(ended, tmp_path / "ended.onnx"), target="out")
    assert_same(found, bare)


def test_a_sigmoid_between_convolutions_is_an_activation_like_tanh(tmp_path):
    """Old networks have no ReLU; a sigmoid is a scaled tanh, shifted."""
    found = []
    for kind in ("Sigmoid", "Tanh"):
        proto = network()
        proto.graph.node[1].CopyFrom(node(kind, ["c1"], ["r1"]))
        found.append(structure(save(proto, tmp_path / f"{kind}.onnx"), target="map"))
    assert_same(*found)


@pytest.mark.parametrize("shift", [np.full((1, 6, 1, 1), 0.5, np.float32), np.float32(1)])
def test_a_stored_bias_is_no_number_that_is_added_to_a_factor(shift, tmp_path):
    """All biases of a layer may be one number; a single one for all of them is no bias."""
    second = node("Conv", ["r1", "w3"], ["other"], strides=[2, 2], pads=[0, 0, 1, 1])
    moved = [node("Add", ["other", "shift"], ["moved"]), node("Mul", ["map", "moved"], ["out"])]
    held = {"w3": weights(6, 8, 2, 2, seed=2), "shift": shift}
    with_shift = network(second, *moved, constants=held)
    without = network(second, node("Mul", ["map", "other"], ["out"]), constants=held)
    found = structure(save(with_shift, tmp_path / "a.onnx"), target="out")[0]["weakest"]
    wanted = structure(save(without, tmp_path / "b.onnx"), target="out")[0]["weakest"]
    assert (found == pytest.approx(wanted, rel=1e-9)) == (shift.ndim > 0)


GELUS = {
    "as torch writes it": ("Div", "root", [("map", "gate", "double"), ("double", "half", "out")]),
    "x halved": ("Mul", "over", [("map", "half", "x2"), ("x2", "gate", "out")]),
    "gate halved": ("Mul", "over", [("half", "gate", "g2"), ("g2", "map", "out")]),
}
NUMBERS = {"root": 2**0.5, "over": 0.5**0.5, "half": 0.5, "one": 1.0}


def written_out(name, **changes):
    """A GELU by Erf, in one of its orders, with other numbers where `changes` say so."""
    kind, by, products = GELUS[name]
    tail = [
        node(kind, ["map", by], ["scaled"]),
        node("Erf", ["scaled"], ["erf"]),
        node("Add", ["one", "erf"], ["gate"]),
        *(node("Mul", list(pair), [out]) for *pair, out in products),
    ]
    numbers = {k: np.float32(v) for k, v in {**NUMBERS, **changes}.items()}
    return network(*tail, opset=17, constants=numbers)


@pytest.mark.parametrize("name", GELUS)
def test_a_gelu_that_was_written_out_is_a_gelu(name, tmp_path):
    """Before opset 20 exporters have no other way; the numbers are those of the operator."""
    found = structure(save(written_out(name), tmp_path / "erf.onnx"))
    whole = save(network(node("Gelu", ["map"], ["out"])), tmp_path / "gelu.onnx")
    assert_same(found, structure(whole))
    opened = open_onnx(tmp_path / "erf.onnx", device="cpu")
    assert [n.op for n, _ in opened.skeleton().body.plan(("out",))][-1] == "Gelu"


@pytest.mark.parametrize("changes", [{"half": 0.4}, {"one": 1.5}, {"root": 1.5, "over": 0.6}])
@pytest.mark.parametrize("name", GELUS)
def test_what_only_looks_like_a_gelu_is_none(name, changes, tmp_path):
    """Other constants in the same nodes leave an Erf without a rule."""
    opened = open_onnx(save(written_out(name, **changes), tmp_path / "erf.onnx"), device="cpu")
    with pytest.raises(NotApplicableError, match="Erf node"):
        opened.skeleton()


def test_a_gate_stays_a_constant(tmp_path):
    """Multiplied with the map by a detour over a resampling, it is none of the paths."""
    gate = [
        node("AveragePool", ["map"], ["small"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Sigmoid", ["small"], ["s"]),
        node("Resize", ["s", "", "scales"], ["large"], mode="nearest"),
        node("Mul", ["map", "large"], ["out"]),
    ]
    scales = {"scales": np.array([1, 1, 2, 2], np.float32)}
    opened = open_onnx(save(network(*gate, constants=scales), tmp_path / "gated.onnx"))
    layers = opened.skeleton().body.layers
    assert not any(layer.activation for layer in layers.values())
    bare = structure(save(network(), tmp_path / "bare.onnx"), target="map")
    gated = structure(save(network(*gate, constants=scales), tmp_path / "gated.onnx"))
    np.testing.assert_allclose(gated[1]["sensitivity"], bare[1]["sensitivity"], rtol=1e-9)


def test_attention_weights_that_mix_their_heads_are_gates(tmp_path):
    """The softmax meets the values only behind a layer over the heads."""
    tail = [
        node("Reshape", ["map", "tokens"], ["t"]),
        node("Transpose", ["t"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["k", "t"], ["scores"]),
        node("Softmax", ["scores"], ["attention"]),
        node("MatMul", ["attention", "mix"], ["mixed"]),
        node("MatMul", ["mixed", "k"], ["out"]),
    ]
    count = (SIDE // 4) ** 2
    constants = {"tokens": np.array([0, 6, -1]), "mix": weights(count, count)}
    proto = network(*tail, constants=constants)
    opened = open_onnx(save(proto, tmp_path / "a.onnx"), device="cpu", target="out")
    assert not any(layer.activation for layer in opened.skeleton().body.layers.values())


def test_a_shipped_face_detector_has_a_structure():
    """CenterFace: its target is the last map of its encoder, stride 32."""
    (record,) = audit(str(FACE), ("structure",), inputs={"size": 256}, device="cpu")
    assert record.status == "ok", record.reason
    assert record.metrics["target_stride"].value == 32
    assert 0 < record.metrics["weakest"].value < 1


# ------------------------------------------------------------------ norms


class Mixed(nn.Module):
    """A batch norm that can be folded, then a layer or a group norm; branches meet twice."""

    def __init__(self, second):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.one = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8))
        self.norm = second
        self.two = nn.Conv2d(8, 8, 3, 1, 1)
        self.down = nn.Conv2d(8, 6, 3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        x = torch.relu(x + self.one(x))
        return self.down(x + self.two(self.norm(x)))


class ChannelNorm(nn.LayerNorm):
    """Over the channels of (batch, channels, height, width)."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


SECONDS = {
    "layer norm": lambda: ChannelNorm(8),
    "group norm": lambda: nn.GroupNorm(1, 8),
    "group norm of 4": lambda: nn.GroupNorm(4, 8),
    "batch norm": lambda: nn.BatchNorm2d(8),
}


@pytest.mark.parametrize("name", SECONDS)
def test_norms_that_were_folded_and_others_beside_them_count_as_in_torch(name, tmp_path):
    """Folded ones are known by their biases' names; group norms are written as instance norms."""
    module = Mixed(SECONDS[name]()).eval()
    path = tmp_path / "mixed.onnx"
    onnx_table.export(module, torch.rand(2, 3, SIDE, SIDE), path, "torchscript 17", free=True)
    (_, maps, _) = structure(path)
    wanted = energy_map(light_copy(module), (3, SIDE, SIDE))[0]
    wanted = wanted / wanted.mean()
    np.testing.assert_allclose(maps["sensitivity"], wanted.numpy(), rtol=1e-9)


class Smoothed(nn.Module):
    """A mean-pool of the normed map beside the map itself: the two are one signal."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 4, 4), nn.GroupNorm(1, 8)
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x):
        x = self.stem(x)
        return x + self.pool(self.norm(x))


def test_a_group_norm_that_was_written_out_keeps_its_signal(tmp_path):
    """It is followed through the norm as in torch, so that sums with it are sums of amplitudes."""
    path = tmp_path / "smoothed.onnx"
    x = torch.rand(2, 3, SIDE, SIDE)
    onnx_table.export(Smoothed().eval(), x, path, "torchscript 17", free=True)
    wanted = energy_map(light_copy(Smoothed().eval()), (3, SIDE, SIDE))[0]
    opened = open_onnx(path, device="cpu")
    found = energy_map(opened.skeleton(), (3, SIDE, SIDE))[0]
    np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), rtol=1e-9)
    ops = [node.op for node, _ in opened.skeleton().body.plan((opened.target.name,))]
    assert "GroupNormalization" in ops
    assert "Reshape" not in ops


# ------------------------------------------------------------------ quantised graphs


class Images(CalibrationDataReader):
    """Gives the calibration its images one by one."""

    def __init__(self, x):
        self.rest = iter([{"image": x[i : i + 1].numpy()} for i in range(len(x))])

    def get_next(self):
        return next(self.rest, None)


FORMS = {
    "QDQ": {"quant_format": QuantFormat.QDQ},
    "QOperator": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QUInt8},
    "QDQ, a scale a channel": {"quant_format": QuantFormat.QDQ, "per_channel": True},
    "QDQ, zero in the middle": {
        "quant_format": QuantFormat.QDQ,
        "activation_type": QuantType.QInt8,
        "extra_options": {"ActivationSymmetric": True},
    },
}
NETWORKS = ("test_resnet", "test_efficientnet")


@pytest.fixture(scope="module", params=NETWORKS)
def exported(request, tmp_path_factory):
    """A float file, images in its own units, and what `structure` says of it."""
    folder = tmp_path_factory.mktemp("float")
    opened = load(f"timm:{request.param}@init", device="cpu", members=1)
    x = torch.rand(4, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 4 - 2
    opened.select(0, x)
    path = export_onnx(opened.module(), x[:1], folder / "float.onnx")
    return path, x, structure(path)


@pytest.mark.parametrize("form", FORMS)
def test_a_static_int8_file_has_the_structure_of_its_float_file(form, exported, tmp_path):
    """ReLUs that the quantiser dropped are back, roundings are gone, layers are the same."""
    path, x, wanted = exported
    quantize_static(str(path), str(tmp_path / "int8.onnx"), Images(x), **FORMS[form])
    kinds = {n.op_type for n in onnx.load_model(tmp_path / "int8.onnx").graph.node}
    assert ("QLinearConv" in kinds) == (form == "QOperator")
    assert_same(structure(tmp_path / "int8.onnx"), wanted)


@pytest.mark.parametrize("exported", NETWORKS[:1], indirect=True)
def test_the_maps_between_quantised_operators_get_real_values(exported, tmp_path):
    """The target of a file of QLinear operators is found, and no output of the file moves."""
    path, x, _ = exported
    whole = tmp_path / "int8.onnx"
    quantize_static(str(path), str(whole), Images(x), **FORMS["QOperator"])
    opened, plain = open_onnx(whole, device="cpu"), open_onnx(path, device="cpu")
    assert opened.target.name.endswith("/real")
    assert opened.target.name in bottlenecks(
        opened.graph, opened.image, opened.graph.graph.output[0].name
    )
    assert opened.why_no_gradients is None
    feeds = {opened.image: x.numpy()}
    (wanted,) = ort.InferenceSession(str(whole)).run(None, feeds)
    np.testing.assert_array_equal(opened.run(x, target=False, logits=True).logits, wanted)
    real, float_ = (m.run(x).target for m in (opened, plain))
    assert float((real - float_).norm() / float_.norm()) < 0.2


def test_a_dynamic_int8_file_has_the_structure_of_its_float_file(exported, tmp_path):
    """ConvInteger counts as the convolution that it stands for."""
    path, _, wanted = exported
    quantize_dynamic(str(path), str(tmp_path / "int8.onnx"), weight_type=QuantType.QUInt8)
    kinds = {n.op_type for n in onnx.load_model(tmp_path / "int8.onnx").graph.node}
    assert "ConvInteger" in kinds
    assert_same(structure(tmp_path / "int8.onnx"), wanted)
