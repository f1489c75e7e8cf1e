"""Structure of ONNX graphs in which exporters wrote activations out as arithmetic."""

import numpy as np
import pytest
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.structure import measure_skeleton

SIDE = 32

INNER = {
    "by tracing": [
        node("Mul", ["x", "x"], ["square"]),
        node("Mul", ["x", "square"], ["cube"]),
        node("Mul", ["small", "cube"], ["term"]),
        node("Add", ["x", "term"], ["sum"]),
        node("Mul", ["root", "sum"], ["inner"]),
    ],
    "by dynamo": [
        node("Pow", ["x", "three"], ["cube"]),
        node("Mul", ["small", "cube"], ["term"]),
        node("Add", ["x", "term"], ["sum"]),
        node("Mul", ["root", "sum"], ["inner"]),
    ],
    "x outside": [
        node("Mul", ["x", "x"], ["square"]),
        node("Mul", ["square", "small"], ["term"]),
        node("Add", ["term", "one"], ["sum"]),
        node("Mul", ["x", "root"], ["scaled"]),
        node("Mul", ["scaled", "sum"], ["inner"]),
    ],
}

GATED = [
    node("Tanh", ["inner"], ["tanh"]),
    node("Add", ["tanh", "one"], ["gate"]),
    node("Mul", ["half", "gate"], ["halved"]),
    node("Mul", ["x", "halved"], ["y"]),
]

NUMBERS = {"small": 0.044715, "root": (2 / np.pi) ** 0.5, "three": 3, "one": 1, "half": 0.5}

SOFTPLUS = {
    "softplus": [
        node("Softplus", ["x"], ["smooth"]),
        node("Greater", ["x", "far"], ["large"]),
        node("Where", ["large", "x", "smooth"], ["y"]),
    ],
    "softplus of a multiple": [
        node("Mul", ["x", "two"], ["scaled"]),
        node("Softplus", ["scaled"], ["raw"]),
        node("Div", ["raw", "two"], ["smooth"]),
        node("Greater", ["scaled", "far"], ["large"]),
        node("Where", ["large", "x", "smooth"], ["y"]),
    ],
    "mish": [
        node("Softplus", ["x"], ["smooth"]),
        node("Tanh", ["smooth"], ["tanh"]),
        node("Mul", ["x", "tanh"], ["y"]),
    ],
}


def network(nodes, **numbers):
    """An activation between two layers, beside a layer of one tap, in opset 18."""
    held = {"w1": weights(8, 3, 3, 3), "w2": weights(6, 8, 3, 3, seed=1), "w3": weights(8, 3, 1, 1)}
    held |= {k: np.float32(v) for k, v in (NUMBERS | numbers).items()}
    graph = [
        node("Conv", ["image", "w1"], ["x"], strides=[2, 2], pads=[1, 1, 1, 1]),
        *nodes,
        node("Conv", ["image", "w3"], ["point"], strides=[2, 2]),
        node("Add", ["y", "point"], ["total"]),
        node("Conv", ["total", "w2"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    return model(graph, held, dims=[1, 3, SIDE, SIDE], outputs=["map"], opset=18)


class Net(nn.Module):
    """The same in torch, with batch norms where a file without norms is given them."""

    def __init__(self, function):
        super().__init__()
        self.wide, self.point = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(3, 8, 1, 2)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(8)])
        self.head, self.function = nn.Conv2d(8, 6, 3, 2, 1), function

    def forward(self, x):
        first, second = self.norms
        return self.head(self.function(first(self.wide(x))) + second(self.point(x)))


def assert_map(proto, function, path):
    """The sensitivity of the file is that of `Net` with the function."""
    opened = open_onnx(save(proto, path), device="cpu", target="map")
    found = measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))
    wanted = measure_skeleton(light_copy(Net(function)), (3, SIDE, SIDE))
    assert not [text for text in found.notes if "approximation" in text]
    for name, values in wanted.maps.items():
        np.testing.assert_allclose(found.maps[name], values, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", INNER)
def test_a_gelu_written_with_a_tanh_is_a_gelu(name, tmp_path):
    """The map is that of torch's module."""
    proto = network(INNER[name] + GATED)
    assert_map(proto, lambda x: F.gelu(x, approximate="tanh"), tmp_path / "tanh.onnx")


@pytest.mark.parametrize("changes", [{"small": 0.05}, {"root": 0.7}, {"half": 0.4}, {"one": 1.5}])
def test_other_numbers_make_no_gelu_of_a_cube(changes, tmp_path):
    """The cube is left without a rule."""
    path = save(network(INNER["by dynamo"] + GATED, **changes), tmp_path / "tanh.onnx")
    opened = open_onnx(path, device="cpu", target="map")
    with pytest.raises(NotApplicableError, match="Pow node"):
        opened.skeleton()


@pytest.mark.parametrize("name", SOFTPLUS)
def test_a_softplus_that_is_chosen_where_x_is_small_is_one(name, tmp_path):
    """The map is that of torch's function."""
    proto = network(SOFTPLUS[name], far=20, two=2)
    assert_map(proto, F.mish if name == "mish" else F.softplus, tmp_path / "written.onnx")


@pytest.mark.parametrize("changes", [{"far": 0.5, "two": 2}, {"far": 20, "two": 2, "other": 3}])
def test_another_choice_is_no_softplus(changes, tmp_path):
    """One that x decides sooner, or of which the factors differ, is refused."""
    nodes = list(SOFTPLUS["softplus of a multiple"])
    if "other" in changes:
        nodes[2] = node("Div", ["raw", "other"], ["smooth"])
    path = save(network(nodes, **changes), tmp_path / "written.onnx")
    opened = open_onnx(path, device="cpu", target="map")
    with pytest.raises(NotApplicableError, match="jumps"):
        measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))
