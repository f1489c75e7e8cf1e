"""Structure of graphs with norms that are written out, with branches, loops and states."""

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper
from onnx_files import model, node, save, weights
from test_onnx_structure import assert_same, structure
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.load import load
from perimetry.adapters.onnx.graph import Graph, Mode, Node, OperatorCall, read_graph
from perimetry.adapters.onnx.operators.normalisation import NORMS
from perimetry.adapters.onnx.skeleton.written_out import NORM, NormReader
from perimetry.suites.structure import measure_skeleton

SIDE = 64
CHANNELS = 8


class Mixer(nn.Module):
    """Patches, two residual blocks of a norm before a linear layer, a strided convolution."""

    def __init__(self, norm):
        super().__init__()
        torch.manual_seed(0)
        self.patch = nn.Conv2d(3, CHANNELS, 4, 4)
        self.norms = nn.ModuleList([norm() for _ in range(3)])
        self.mix = nn.ModuleList([nn.Linear(CHANNELS, CHANNELS) for _ in range(2)])
        self.rows = nn.Conv2d(CHANNELS, CHANNELS, 3, 1, 1)
        self.last = nn.Conv2d(CHANNELS, 4, 3, 2, 1)

    def forward(self, x):
        x = self.patch(x).permute(0, 2, 3, 1)
        for norm, mix in zip(self.norms, self.mix, strict=False):
            x = x + mix(norm(x))
        x = x + self.rows(self.norms[2](x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.last(x.permute(0, 3, 1, 2))


class Rms(nn.Module):
    """As written by hand, with the power or with a product, and a quotient or a reciprocal."""

    def __init__(self, form):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CHANNELS) + 0.5)
        self.form = form

    def forward(self, x):
        if self.form == "reciprocal":
            return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.weight
        if self.form == "half":
            wide = x.double()
            wide = wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)
            return self.weight * wide.float()
        return self.weight * (x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6))


class Keras(nn.Module):
    """A layer norm as tf2onnx writes it."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.rand(CHANNELS) + 0.5)
        self.bias = nn.Parameter(torch.randn(CHANNELS))

    def forward(self, x):
        mean = x.mean(-1, keepdim=True)
        centred = x - mean
        inverse = torch.rsqrt((centred * centred).mean(-1, keepdim=True) + 1e-6) * self.weight
        return x * inverse + (self.bias - mean * inverse)


WRITTEN = {
    "LayerNorm": lambda: nn.LayerNorm(CHANNELS),
    "without scale": lambda: nn.LayerNorm(CHANNELS, elementwise_affine=False),
    "tf2onnx": Keras,
}
RMS = {form: lambda form=form: Rms(form) for form in ("reciprocal", "half", "quotient")}


def exported(norm, opset, folder):
    path = str(folder / f"{opset}.onnx")
    x = torch.randn(1, 3, SIDE, SIDE)
    torch.onnx.export(Mixer(norm).eval(), x, path, dynamo=False, opset_version=opset)
    return path


def torch_structure(norm):
    opened = load(Mixer(norm), size=(SIDE, SIDE), device="cpu")
    found = measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))
    return {k: v.value for k, v in found.metrics.items() if v.value is not None}, found.maps


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("opset", [11, 13, 16])
@pytest.mark.parametrize("name", WRITTEN)
def test_a_written_out_layer_norm_has_the_structure_of_one(name, opset, tmp_path):
    """The numbers are those of opset 17, which has the operator, and of the module."""
    found = structure(exported(WRITTEN[name], opset, tmp_path))
    assert_same(found, structure(exported(WRITTEN["LayerNorm"], 17, tmp_path)))
    numbers, maps = torch_structure(WRITTEN["LayerNorm"])
    for metric in ("weakest", "imbalance", "rf_height"):
        if metric in numbers:
            assert found[0][metric] == pytest.approx(numbers[metric], rel=1e-6)
    for place, held in maps.items():
        np.testing.assert_allclose(found[1][place], held, rtol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("opset", [11, 16])
@pytest.mark.parametrize("form", RMS)
def test_a_written_out_rms_norm_has_the_structure_of_one(form, opset, tmp_path):
    """Each written form of an RMS norm has the structure of `torch.nn.RMSNorm`."""
    found = structure(exported(RMS[form], opset, tmp_path))
    numbers, maps = torch_structure(lambda: nn.RMSNorm(CHANNELS))
    assert found[0]["weakest"] == pytest.approx(numbers["weakest"], rel=1e-6)
    for place, held in maps.items():
        np.testing.assert_allclose(found[1][place], held, rtol=1e-6)


def read(*nodes, constants=()):
    """The graph of `nodes` on a map, with its norms recognised."""
    proto = model(
        nodes, dict(constants), dims=[1, CHANNELS, 4, 4], outputs=[nodes[-1].output[0]], opset=17
    )
    return NormReader.rewrite(read_graph(proto, Mode()))


def written(*, axes=(1,), second=None, source="centred", root="Sqrt"):
    """A norm over channels as `LayerNorm2d` is written, with parts exchanged."""
    return [
        node("ReduceMean", ["image"], ["mean"], axes=list(axes)),
        node("Sub", ["image", "mean"], ["centred"]),
        node("Mul", ["centred", "centred"], ["square"]),
        node("ReduceMean", ["square"], ["power"], axes=list(second or axes)),
        node("Add", ["power", "eps"], ["safe"]),
        node(root, ["safe"], ["root"]),
        node("Div", [source, "root"], ["out"]),
    ]


EPS = {"eps": np.float32(1e-6)}


def test_a_norm_over_channels_that_come_first_is_read_and_computed():
    """The node is a norm over axis 1, and its rule the formula of a layer norm there."""
    (*_, last) = read(*written(), constants=EPS).nodes
    assert (last.op, last.inputs, last.attributes["axes"]) == (NORM, ("image",), (1,))
    x = torch.randn(2, CHANNELS, 4, 4)
    found = NORMS[NORM](OperatorCall(last, Mode(), {}, lambda *_: []), x)
    expected = (x - x.mean(1, keepdim=True)) / x.var(1, correction=0, keepdim=True).sqrt()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [{"second": (2,)}, {"source": "image"}, {"source": "square"}, {"root": "Exp"}],
)
def test_arithmetic_that_only_looks_like_a_norm_is_not_read_as_one(change):
    """Another axis, numerator or function of the variance is not read as a norm."""
    (*_, last) = read(*written(**change), constants=EPS).nodes
    assert last.op == "Div"


def network(*tail, constants=(), opset=17):
    """A strided convolution to `map`, then `tail`, then a strided convolution to the output."""
    nodes = [
        node("Conv", ["image", "w1"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        *tail,
        node("Conv", [tail[-1].output[0] if tail else "map", "w2"], ["end"], strides=[2, 2]),
    ]
    held = {"w1": weights(CHANNELS, 3, 3, 3), "w2": weights(6, CHANNELS, 3, 3, seed=1)}
    dims = ["n", 3, SIDE, SIDE]
    return model(nodes, {**held, **dict(constants)}, dims=dims, outputs=["end"], opset=opset)


def graph(name, nodes, outputs, inputs=()):
    infos = [helper.make_tensor_value_info(o, TensorProto.FLOAT, None) for o in outputs]
    return helper.make_graph(nodes, name, list(inputs), infos)


def branch(condition, *then):
    """An If that runs `then` on the map, or takes the map as it is."""
    other = graph("else", [node("Identity", ["map"], ["same"])], ["same"])
    made = graph("then", list(then), [then[-1].output[0]])
    return node("If", [condition], ["chosen"], then_branch=made, else_branch=other)


POOL = node("MaxPool", ["map"], ["pooled"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])


@pytest.mark.parametrize("taken", [True, False])
def test_a_branch_that_is_always_taken_is_part_of_the_graph(taken, tmp_path):
    """The structure is that of the network with or without the pool in it."""
    constants = {"yes": np.array(taken)}
    found = structure(save(network(branch("yes", POOL), constants=constants), tmp_path / "a.onnx"))
    plain = network(POOL) if taken else network()
    expected = structure(save(plain, tmp_path / "b.onnx"))
    assert found[0] == pytest.approx(expected[0])


def test_branches_with_the_same_names_within_are_told_apart(tmp_path):
    """The second If calls its tensor as the first does: the pool is there twice."""
    again = helper.make_node("If", ["yes"], ["twice_chosen"], name="second")
    pool = node("MaxPool", ["chosen"], ["pooled"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    other = graph("else", [node("Identity", ["chosen"], ["same"])], ["same"])
    again.attribute.append(helper.make_attribute("then_branch", graph("then", [pool], ["pooled"])))
    again.attribute.append(helper.make_attribute("else_branch", other))
    constants = {"yes": np.array(True)}
    proto = network(branch("yes", POOL), again, constants=constants)
    found = structure(save(proto, tmp_path / "a.onnx"))
    twice = node("MaxPool", ["pooled"], ["again"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    expected = structure(save(network(POOL, twice), tmp_path / "b.onnx"))
    assert found[0] == pytest.approx(expected[0])


def loop(*body):
    """A loop of two rounds over the map."""
    inputs = [
        helper.make_tensor_value_info("round", TensorProto.INT64, []),
        helper.make_tensor_value_info("go", TensorProto.BOOL, []),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, None),
    ]
    inner = [node("Identity", ["go"], ["still"]), *body]
    made = helper.make_graph(
        inner,
        "body",
        inputs,
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info(body[-1].output[0], TensorProto.FLOAT, None),
        ],
    )
    return node("Loop", ["twice", "yes", "map"], ["looped"], body=made)


LOOP = {"twice": np.array(2), "yes": np.array(True)}


def test_a_loop_without_layers_has_the_structure_of_its_rounds(tmp_path):
    """Two rounds of a pool are two pools."""
    pool = node("MaxPool", ["state"], ["next"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    found = structure(save(network(loop(pool), constants=LOOP), tmp_path / "a.onnx"))
    twice = node("MaxPool", ["pooled"], ["again"], kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    expected = structure(save(network(POOL, twice), tmp_path / "b.onnx"))
    assert found[0] == pytest.approx(expected[0])


def lstm():
    """Rows of the map as sequences."""
    return [
        node("Transpose", ["map"], ["t"], perm=[3, 0, 2, 1]),
        node("Reshape", ["t", "rows"], ["sequence"]),
        node("LSTM", ["sequence", "w", "r"], ["states"], hidden_size=CHANNELS),
        node("Reshape", ["states", "map_shape"], ["back"]),
        node("Transpose", ["back"], ["read"], perm=[1, 3, 2, 0]),
    ]


LSTM = {
    "w": weights(1, 4 * CHANNELS, CHANNELS),
    "r": weights(1, 4 * CHANNELS, CHANNELS, seed=1),
    "rows": np.array([32, -1, CHANNELS]),
    "map_shape": np.array([32, -1, 32, CHANNELS]),
}


@pytest.mark.parametrize(
    ("tail", "constants", "opset", "named"),
    [
        (lstm(), LSTM, 17, "LSTM node 'states'"),
        (lstm(), LSTM, 22, "LSTM node 'states'"),
        (
            [loop(node("Conv", ["state", "wl"], ["next"], pads=[1, 1, 1, 1]))],
            {**LOOP, "wl": weights(CHANNELS, CHANNELS, 3, 3)},
            20,
            "Loop node 'looped'",
        ),
        ([node("Exp", ["map"], ["grown"])], {}, 22, "Exp node 'grown'"),
        ([node("Exp", ["map"], ["grown"])], {}, 13, "Exp node 'grown'"),
    ],
)
def test_what_has_no_structure_is_named(tail, constants, opset, named, tmp_path):
    """The node, and the opset only where another one has an operator instead."""
    path = save(network(*tail, constants=constants, opset=opset), tmp_path / "a.onnx")
    opened = load(path, target="end", device="cpu")
    with pytest.raises(NotApplicableError) as shown:
        opened.skeleton()
    assert named in str(shown.value)
    assert ("opset" in str(shown.value)) == (opset == 13)


def test_einsum_with_a_weight_is_a_linear_layer(tmp_path):
    """The product over channels has the structure of a MatMul."""
    product = [
        node("Transpose", ["map"], ["last"], perm=[0, 2, 3, 1]),
        node("MatMul", ["last", "m"], ["product"]),
        node("Transpose", ["product"], ["mixed"], perm=[0, 3, 1, 2]),
    ]
    einsum = [node("Einsum", ["map", "m"], ["mixed"], equation="bchw,cd->bdhw")]
    constants = {"m": weights(CHANNELS, CHANNELS, seed=3)}
    made = [
        structure(save(network(*tail, constants=constants), tmp_path / f"{i}.onnx"))
        for i, tail in enumerate((product, einsum))
    ]
    assert made[0][0] == pytest.approx(made[1][0])


def test_grid_sample_with_a_fixed_grid_has_a_structure(tmp_path):
    """A grid that shifts by whole units reads as far as the network without it."""
    steps = (np.arange(32, dtype=np.float32) * 2 + 1) / 32 - 1
    grid = np.stack(np.meshgrid(steps, steps), -1)[None]
    sample = node("GridSample", ["map", "grid"], ["sampled"], padding_mode="border")
    proto = network(sample, constants={"grid": grid})
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    found = structure(save(proto, tmp_path / "a.onnx"), target="end")
    plain = structure(save(network(), tmp_path / "b.onnx"), target="end")
    assert found[0]["weakest"] == pytest.approx(plain[0]["weakest"], rel=1e-6)


def test_a_graph_without_norms_is_not_changed():
    """The reader gives the very nodes that it was given."""
    proto = network(POOL)
    given = read_graph(proto, Mode())
    assert isinstance(given, Graph)
    assert NormReader.rewrite(given).nodes == given.nodes
    assert all(isinstance(n, Node) for n in given.nodes)
