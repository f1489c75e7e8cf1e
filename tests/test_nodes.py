"""Where models part node by node: own and accumulated differences, pairing, shifts, eight bits."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from small_nets import NAME, SPEC, TOOLS, net, opened, perturbed
from torch import nn
from typer.testing import CliRunner

from perimetry import compare
from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.quantise import round_weights
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.alignment import align
from perimetry.bench.comparison.node_report import write_node_data
from perimetry.bench.comparison.nodes import IMAGES, find_shift
from perimetry.bench.execution.settings import Settings
from perimetry.suites.images import open_images

QUICK = {
    "settings": Settings(count=8, draws=50),
    "suites": ("structure",),
    "run": TOOLS,
    "nodes": True,
}


def images():
    return SPEC.prepare(open_images("dead-leaves", 8).load(SPEC))[:IMAGES]


def relative(a, b):
    """|b - a| / |a| over all images together."""
    return float((b - a).double().norm() / a.double().norm())


def by_name(found):
    return {node.first: node for node in found.pairs[0].nodes.nodes}


@pytest.fixture(scope="module")
def changed():
    """A network and a copy with another second convolution, node by node."""
    return compare(opened(net()), opened(perturbed(3, 0.1)), **QUICK)


def test_own_and_accumulated_differences_are_those_of_the_definition(changed):
    """Layer by layer by hand: on the tensors of the first network, and from the image."""
    first, second, x = net(), perturbed(3, 0.1), images()
    with torch.no_grad():
        a = b = x
        for name, (one, other) in enumerate(zip(first, second, strict=True)):
            own = other(a)
            a, b = one(a), other(b)
            node = by_name(changed)[str(name)]
            assert node.own == pytest.approx(relative(a, own), rel=1e-3, abs=1e-6)
            assert node.accumulated == pytest.approx(relative(a, b), rel=1e-3, abs=1e-6)


def test_the_changed_node_is_named_first_and_is_the_worst(changed):
    """Only the second convolution differs by itself; the table says so and starts with it."""
    table = changed.pairs[0].nodes
    assert table.parting.first == table.worst[0].first == "3"
    assert [node.first for node in table.nodes if node.own > 1e-5] == ["3"]
    text = " ".join(changed.text().split())
    assert "The first node that differs by itself is `3` (Conv2d), by " in text
    assert "3" in changed._repr_html_()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    """The ONNX file of the network."""
    path = tmp_path_factory.mktemp("files") / "net.onnx"
    return export_onnx(net(), SPEC.blank(), path, spec=SPEC)


def test_a_module_and_its_export_agree_node_by_node(file):
    """Layers pair with nodes of other names; folded norms pair with the convolution's tensor."""
    found = compare(opened(net()), str(file), **QUICK)
    nodes = by_name(found)
    assert len(nodes) >= 8
    assert nodes["1"].second == "/0/Conv_output_0"
    assert max(max(n.own, n.accumulated) for n in nodes.values()) < 1e-5
    assert "nodes agree to 0.10 % by themselves" in " ".join(found.text().split())


def test_a_changed_weight_of_a_file_is_found_at_its_node(file, tmp_path):
    """Of two files of one graph, the node whose weights differ has the only own difference."""
    proto = onnx.load_model(file)
    conv = [node for node in proto.graph.node if node.op_type == "Conv"][1]
    stored = next(i for i in proto.graph.initializer if i.name == conv.input[1])
    weights = numpy_helper.to_array(stored)
    stored.CopyFrom(numpy_helper.from_array(weights + 0.05 * weights.std(), stored.name))
    other = tmp_path / "other.onnx"
    onnx.save_model(proto, other)
    nodes = by_name(compare(str(file), str(other), **QUICK))
    assert [n.first for n in nodes.values() if n.own > 1e-5] == [conv.output[0]]
    assert all(n.first == n.second for n in nodes.values())
    assert nodes["logits"].accumulated > 1e-4


def test_half_precision_pairs_by_values(file, tmp_path):
    """A float16 file pairs with its float32 original; every difference is of that rounding."""
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    half = float16.convert_float_to_float16(onnx.load_model(file), keep_io_types=True)
    path = tmp_path / "half.onnx"
    onnx.save_model(half, path)
    nodes = by_name(compare(str(file), str(path), **QUICK))
    assert len(nodes) >= 8
    assert 1e-5 < max(n.accumulated for n in nodes.values()) < 5e-3


@pytest.mark.parametrize("how", ["QOperator", "QDQ", "dynamic"])
def test_int8_files_of_every_form_pair(file, tmp_path, how):
    """Levels are read as the values that they stand for; own differences are of eight bits."""
    quantisation = pytest.importorskip("onnxruntime.quantization")
    path = tmp_path / "int8.onnx"

    class Reader(quantisation.CalibrationDataReader):
        def __init__(self):
            self.feeds = iter([{"image": x[None].numpy()} for x in images()])

        def get_next(self):
            return next(self.feeds, None)

    if how == "dynamic":
        quantisation.quantize_dynamic(str(file), str(path))
    else:
        form = quantisation.QuantFormat[how]
        quantisation.quantize_static(str(file), str(path), Reader(), quant_format=form)
    nodes = by_name(compare(str(file), str(path), **QUICK))
    assert len(nodes) >= 5
    assert all(node.own < 0.03 for node in nodes.values())
    assert max(node.own for node in nodes.values()) > 1e-3
    assert nodes["logits"].accumulated < 0.05


def test_other_networks_have_a_reason_instead_of_a_table():
    """Nodes of other shapes do not pair, and the metrics are compared all the same."""
    narrow = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)).eval()
    pair = compare(opened(net()), opened(narrow), **QUICK).pairs[0]
    assert "variants of one graph" in pair.nodes
    assert pair.rows


def test_the_alignment_keeps_the_order_and_prefers_equal_values():
    """An additional tensor of the same shape is left out; order is kept."""
    from perimetry.adapters.model import NodeOutput

    made = torch.Generator().manual_seed(0)
    a, b, extra = (torch.randn(1, 4, 8, 8, generator=made) for _ in range(3))
    one = {"a": NodeOutput("x", a), "b": NodeOutput("x", b)}
    other = {"p": NodeOutput("x", a + 0.01), "q": NodeOutput("x", extra), "r": NodeOutput("x", b)}
    assert align(one, other) == [("a", "p"), ("b", "r")]


# ------------------------------------------------------------------ shifts


class Moved(nn.Module):
    """A network that sees its image moved by pixels down and to the right."""

    def __init__(self, body, rows, columns):
        super().__init__()
        self.body, self.move = body, (rows, columns)

    def forward(self, x):
        return self.body(torch.roll(x, self.move, (2, 3)))


@pytest.mark.parametrize("move", [(1, 0), (0, -1), (1, 1), (-2, 2)])
def test_a_shift_is_found_in_rows_and_columns(move):
    """A rolled map has its shift; a map of other values, or the same, has none."""
    a = torch.randn(1, 4, 12, 12, generator=torch.Generator().manual_seed(0))
    assert find_shift(a, torch.roll(a, move, (2, 3))) == move
    assert find_shift(a, a.clone()) is None
    assert find_shift(a, torch.randn(a.shape, generator=torch.Generator().manual_seed(1))) is None


def test_a_pure_shift_is_named_at_its_stage():
    """An image moved by 2 pixels gives a first stage of stride 2 that is moved by 1."""
    found = compare(opened(net()), opened(Moved(net(), 2, 2)), **(QUICK | {"nodes": False}))
    stages = found.pairs[0].stages
    assert stages[0].shift == (1, 1)
    text = " ".join(found.text().split())
    assert "They diverge at stage 1 of 3" in text
    assert "a shift by (1, 1) (rows, columns)" in text
    assert compare(opened(net()), opened(net(3)), **QUICK).pairs[0].stages[0].shift is None


# ------------------------------------------------------------------ one layer in eight bits


def test_weights_are_rounded_by_channel():
    """At most half a step of 1/127 of the channel's largest weight, and 0 stays 0."""
    kernel = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    kernel[1] = 0
    rounded = round_weights(kernel, 0)
    for before, after in zip(kernel, rounded, strict=True):
        step = np.abs(before).max() / 127
        assert np.abs(after - before).max() <= step / 2 + 1e-7
    assert len(np.unique(rounded[0])) <= 255


def test_one_layer_in_eight_bits_is_what_the_formula_gives(file):
    """The last layer by hand: weights by row, input in 255 steps of its range with 0."""
    model = load(str(file), device="cpu")
    x = images()[:1]
    found = dict(model.each_quantised(x))
    assert len(found) == 4
    module = net()
    with torch.no_grad():
        features = module[:-1](x)
        low, high = min(0.0, float(features.min())), max(0.0, float(features.max()))
        scale = (high - low) / 255
        levels = torch.clamp((features / scale).round() - round(low / scale), 0, 255)
        seen = (levels + round(low / scale)) * scale
        weight = torch.from_numpy(round_weights(module[-1].weight.numpy(), 0))
        wanted = seen @ weight.T + module[-1].bias
    assert relative(module(x).detach(), wanted) > 1e-4
    torch.testing.assert_close(found["logits"]["logits"], wanted, rtol=1e-3, atol=1e-5)


def test_the_table_has_what_each_layer_costs_alone(file, tmp_path):
    """`quantise_one_at_a_time` adds a number to every layer with weights, and to no other node."""
    found = compare(str(file), opened(net()), **QUICK, quantise_one_at_a_time=True)
    nodes = found.pairs[0].nodes.nodes
    alone = {node.operator for node in nodes if node.alone is not None}
    assert alone == {"Conv", "Gemm"}
    assert all(1e-5 < node.alone < 0.05 for node in nodes if node.alone is not None)
    assert {p.name for p in write_node_data(found, tmp_path)} >= {"01-alone.json", "01-own.json"}
    refused = compare(opened(net()), str(file), **QUICK, quantise_one_at_a_time=True)
    assert "float ONNX files only" in refused.pairs[0].nodes


def test_a_file_of_no_float_weights_cannot_be_quantised_one_at_a_time(tmp_path):
    """A graph without layers is refused with what was expected."""
    from onnx_files import model, node, save, weights

    proto = model(
        [node("Relu", ["image"], ["a"]), node("Add", ["a", "w"], ["map"])],
        {"w": weights(1, 3, 1, 1)},
        dims=[1, 3, 16, 16],
        outputs=["map"],
        opset=17,
    )
    opened_file = load(str(save(proto, tmp_path / "m.onnx")), device="cpu")
    with pytest.raises(NotApplicableError, match="float32"):
        list(opened_file.each_quantised(opened_file.spec.blank()))


def test_the_command_prints_nodes_and_writes_node_data(file, tmp_path):
    """`--nodes --node-data DIR`: a table, and JSON with a finite value for every tensor."""
    words = ["compare", str(file), f"{file}+box", "--suite", "structure", "--count", "4"]
    words += ["--device", "cpu", "--no-stages", "--node-data", str(tmp_path / "data")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Node by node, the largest own difference first" in " ".join(result.output.split())
    content = json.loads((tmp_path / "data" / "01-own.json").read_text())
    assert content["gradient"][0]["stop"] == 0
    assert content["gradient"][-1]["stop"] == 1
    assert {"/0/Conv_output_0", "logits"} <= content["results"].keys()
    assert all(np.isfinite(one["value"]) for one in content["results"].values())


def test_a_layer_that_is_called_twice_has_two_nodes():
    """Calls of one layer differ by their number; in-place layers keep what came before."""

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, 1, 1)
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x):
            return self.relu(self.conv(self.relu(self.conv(x)))).mean((2, 3))

    model = opened(Twice().eval())
    nodes = model.nodes(images()[:1])
    assert list(nodes) == ["conv", "relu", "conv#2", "relu#2", "output"]
    assert float(nodes["conv"].value.min()) < 0 <= float(nodes["relu"].value.min())
    assert model.reference == NAME
