"""results/more-trained: README and records agree, and the records bear it out."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper

from perimetry import load_records

FOLDER = Path(__file__).parents[1] / "results" / "more-trained"


def script(name):
    """One of the set's scripts; what it puts on the path is taken back."""
    before = [*sys.path]
    sys.path.insert(0, str(FOLDER))
    try:
        spec = importlib.util.spec_from_file_location(f"more_trained_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def publish():
    return script("publish")


@pytest.fixture(scope="module")
def networks(publish):
    found = publish.by_name(load_records(FOLDER / "records.jsonl.gz"))
    return {
        name: {suite: record.metrics for suite, record in own.items()}
        for name, own in found.items()
    }


def test_the_readme_is_what_its_script_makes_of_its_data(publish):
    """Every number follows from the packed records; no mark is left over but a package's name."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert publish.render() == text
    assert "@" not in text.replace("@imgly/", "")


def test_what_the_readme_says_of_evenness_holds_in_the_records(networks):
    """VGG-16, CRAFT and HED are even, expected and measured; ISNet is less uneven than expected."""
    for name in ("vgg16", "craft", "hed"):
        assert networks[name]["structure"]["weakest"].value > 0.99
        assert networks[name]["deadpixel"]["weakest"].high == 1
    expected = networks["isnet-fp16"]["structure"]["imbalance"].value
    for name in ("isnet-fp16", "isnet-int8"):
        assert networks[name]["deadpixel"]["imbalance"].high < expected
    treated, plain = (networks[n]["deadpixel"] for n in ("isnet-fp16 box", "isnet-fp16"))
    assert treated["imbalance"].value < plain["imbalance"].value / 2
    assert networks["isnet-fp16 box"]["fidelity"]["feature_cosine"].low > 0.99


def test_eight_bits_differ_from_sixteen_by_less_than_their_intervals(networks):
    """What the README compares lies within the other's interval."""
    whole, eight = networks["isnet-fp16"], networks["isnet-int8"]
    for suite, metric in (("deadpixel", "weakest"), ("erf", "radius"), ("position", "row_r2")):
        other = eight[suite][metric]
        assert other.low < whole[suite][metric].value < other.high
    drops = [one["padding"]["border_drop"].value for one in (whole, eight)]
    assert drops[0] == pytest.approx(drops[1], abs=0.02)


def test_what_the_readme_says_of_position_and_fields_holds_in_the_records(networks):
    """CRAFT tells rows and columns, HED less and VGG-16 neither; CRAFT's field is twice as wide."""
    craft, hed, vgg = networks["craft"], networks["hed"], networks["vgg16"]
    for axis in ("row_r2", "column_r2"):
        assert craft["position"][axis].low > 0.8
        assert 0 < hed["position"][axis].low < hed["position"][axis].high < 0.5
        assert vgg["position"][axis].low == 0
    assert craft["erf"]["radius"].low > 2 * vgg["erf"]["radius"].value
    assert craft["padding"]["border_ratio"].low > 1
    assert hed["padding"]["constant_border_ratio"].value < 0.5
    assert hed["padding"]["border_drop"].value > 2 * craft["padding"]["border_drop"].value


def test_the_sizes_of_maps_that_the_readme_names_are_those_of_the_records():
    """14 x 14 units of CRAFT and HED, 5 x 5 of ISNet, which has 4,096 phases at 320 pixels."""
    for record in load_records(FOLDER / "records.jsonl.gz"):
        name, target = record.model.reference, record.model.target
        if record.suite in ("structure", "deadpixel"):
            units = {"vgg16.onnx": 7, "craft.onnx": 14, "hed.onnx": 14}.get(name, 5)
            assert (target["height"], target["width"]) == (units, units)
        if record.suite == "structure" and name.startswith("isnet"):
            assert record.metrics["target_stride"].value ** 2 == 4096
            assert record.model.spec["height"] == 320


def test_sizes_in_a_graph_are_written_for_the_smaller_image():
    """Constants that a resize takes are scaled, whether stored whole or joined of two parts."""
    networks = script("networks")
    sizes = [
        helper.make_tensor(name, onnx.TensorProto.INT64, [len(values)], values)
        for name, values in (("whole", (1, 8, 64, 32)), ("first", (1, 8)), ("second", (1024, 512)))
    ]
    image = helper.make_tensor_value_info("image", onnx.TensorProto.FLOAT, [1, 3, 1024, 1024])
    nodes = [
        helper.make_node("Constant", [], ["second"], value=sizes[2]),
        helper.make_node("Concat", ["first", "second"], ["joined"], axis=0),
        helper.make_node("Resize", ["image", "", "", "whole"], ["a"]),
        helper.make_node("Resize", ["a", "", "", "joined"], ["b"]),
    ]
    graph = helper.make_graph(nodes, "sizes", [image], [], initializer=sizes[:2])
    networks.resize(graph)
    stored = {one.name: onnx.numpy_helper.to_array(one).tolist() for one in graph.initializer}
    assert stored == {"whole": [1, 8, 20, 10], "first": [1, 8]}
    assert onnx.numpy_helper.to_array(graph.node[0].attribute[0].t).tolist() == [320, 160]
    sides = [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim]
    assert sides == [1, 3, 320, 320]


def test_craft_gives_two_maps_of_half_the_resolution():
    """The network takes the shapes of its weights by the names of the file of weights."""
    network = script("craft").Craft().eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 64, 96)).shape == (1, 2, 32, 48)
    names = network.state_dict()
    assert names["basenet.slice4.37.weight"].shape == (512, 512, 3, 3)
    assert names["upconv1.conv.0.weight"].shape == (512, 1536, 1, 1)


def test_hed_takes_every_weight_by_its_name_in_keras():
    """Each convolution has one name; edges come in the image's size."""
    network = script("hed").Hed().eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 32, 48)).shape == (1, 1, 32, 48)
    layers = network.convolutions()
    assert len(layers) == sum(isinstance(m, torch.nn.Conv2d) for m in network.modules()) == 19
    assert layers["block3/layers/conv2d_2"].weight.shape == (256, 256, 3, 3)
    assert layers["dsn4"].weight.shape == (1, 512, 1, 1)


def test_another_file_is_refused():
    """A file with another sha256 than the measured one is a ValueError."""
    networks = script("networks")
    with pytest.raises(ValueError, match="sha256"):
        networks.checked(b"other", networks.VGG)
