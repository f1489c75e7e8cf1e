"""Structure of ONNX graphs with pools and resizing of every kind, against torch and autograd."""

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from torch import nn

from perimetry.adapters.export import export_onnx
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 96


def pooled(*pools, opset=19):
    """A patch layer, pools, and a layer of 3 x 3 taps that is the target."""
    nodes = [
        node("Conv", ["image", "w1"], ["p0"], strides=[4, 4]),
        *pools,
        node("Conv", [pools[-1].output[0], "w2"], ["map"], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["map"], ["mean"]),
        node("Flatten", ["mean"], ["out"]),
    ]
    held = {"w1": weights(6, 3, 4, 4), "w2": weights(4, 6, 3, 3, seed=1)}
    return model(nodes, held, dims=["batch", 3, SIDE, SIDE], outputs=["out"], opset=opset)


def measured(proto, path):
    opened = open_onnx(save(proto, path), device="cpu", target="map")
    return measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))


def test_a_dilated_average_pool_reads_one_phase_in_four(tmp_path):
    """Windows of 3 with gaps of 2 at stride 2 read every second row and column only."""
    pool = node(
        "AveragePool",
        ["p0"],
        ["p1"],
        kernel_shape=[3, 3],
        dilations=[2, 2],
        strides=[2, 2],
        pads=[2, 2, 2, 2],
        count_include_pad=1,
    )
    found = measured(pooled(pool), tmp_path / "m.onnx")
    assert found.metrics["weakest"].value == 0
    assert found.metrics["imbalance"].value == pytest.approx(3**0.5)
    assert found.metrics["receptive_field"].value == 36
    assert found.metrics["coverage"].value == 0
    assert found.tables["layers"][1]["dilation"] == (2, 2)


class Pools(nn.Module):
    """Between two layers, a pool written with torch's functions."""

    def __init__(self, function):
        super().__init__()
        self.patch, self.head = nn.Conv2d(3, 6, 4, 4), nn.Conv2d(6, 4, 3, padding=1)
        self.function = function

    def forward(self, x):
        return self.head(self.function(self.patch(x)))


POOLS = {
    "asymmetric mean, padding not counted": (
        node("AveragePool", ["p0"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        lambda x: (
            F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)
            * (1 / F.avg_pool2d(F.pad(torch.ones(1, 1, 24, 24).to(x), (0, 1, 0, 1)), 3, 2))
        ),
    ),
    "asymmetric maximum": (
        node("MaxPool", ["p0"], ["p1"], kernel_shape=[3, 3], strides=[2, 2], pads=[0, 0, 1, 1]),
        lambda x: F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2),
    ),
    "dilated maximum": (
        node(
            "MaxPool",
            ["p0"],
            ["p1"],
            kernel_shape=[3, 3],
            strides=[2, 2],
            dilations=[2, 2],
            pads=[1, 1, 1, 1],
        ),
        lambda x: F.max_pool2d(x, 3, 2, 1, 2),
    ),
    "rounded up": (
        node("AveragePool", ["p0"], ["p1"], kernel_shape=[5, 5], strides=[3, 3], ceil_mode=1),
        lambda x: F.avg_pool2d(x, 5, 3, ceil_mode=True),
    ),
}


@pytest.mark.parametrize("name", POOLS)
def test_a_pool_of_a_file_has_the_map_and_field_of_torch_s(name, tmp_path):
    """Padding, gaps and rounding count as in the same network in torch, borders included."""
    pool, function = POOLS[name]
    found = measured(pooled(pool), tmp_path / "m.onnx")
    expected = measure_skeleton(light_copy(Pools(function)), (3, SIDE, SIDE))
    np.testing.assert_allclose(found.maps["sensitivity"], expected.maps["sensitivity"], rtol=1e-9)
    for metric in ("weakest", "receptive_field", "target_stride"):
        assert found.metrics[metric].value == pytest.approx(expected.metrics[metric].value)


class Resized(nn.Module):
    """Strided layers, a resize, and a layer behind it."""

    def __init__(self, **options):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.third, self.head = nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(8, 4)
        self.options = options

    def features(self, x):
        return self.third(F.interpolate(self.second(self.first(x)), **self.options))

    def forward(self, x):
        return self.head(self.features(x).mean((2, 3)))


@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 2, "mode": "bilinear"},
        {"scale_factor": 0.5, "mode": "bilinear"},
        {"scale_factor": 2, "mode": "bicubic"},
        {"scale_factor": 2, "mode": "nearest"},
        {"size": 31, "mode": "bilinear", "align_corners": True},
    ],
)
def test_a_resize_of_a_file_is_local_and_counts_as_in_torch(options, tmp_path):
    """Linear and cubic resizing are windows, not sums over the whole map."""
    net = Resized(**options).eval()
    path = tmp_path / "m.onnx"
    export_onnx(net, torch.zeros(1, 3, 64, 64), path)
    opened = open_onnx(str(path), device="cpu", target=last_convolution(path))
    file = measure_skeleton(opened.skeleton(), (3, 64, 64))
    wrapped = wrap(net, size=(64, 64), device="cpu", target="third")
    torch_ = measure_skeleton(wrapped.skeleton(), (3, 64, 64))
    assert not any("global" in note for note in file.notes)
    for metric in ("receptive_field", "receptive_field_columns", "target_stride"):
        assert file.metrics[metric].value == torch_.metrics[metric].value
    linear = energy_map(light_copy(Without(net)), (3, 64, 64))[0]
    expected = linear / linear.mean()
    np.testing.assert_allclose(torch_.maps["sensitivity"], expected, rtol=1e-9)


def last_convolution(path):
    """The name of what the last convolution of a file gives, which lies behind the resizing."""
    nodes = onnx.load(path).graph.node
    return [node.output[0] for node in nodes if node.op_type == "Conv"][-1]


class Without(nn.Module):
    """A network up to its last map."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net.features(x)


def test_a_bilinear_resize_by_two_reads_fifteen_pixels(tmp_path):
    """Two layers of 3 taps at stride 2 read 7 pixels; three of their units in a row read 15."""
    net = Resized(scale_factor=2, mode="bilinear").eval()
    export_onnx(net, torch.zeros(1, 3, 64, 64), tmp_path / "m.onnx")
    target = last_convolution(tmp_path / "m.onnx")
    opened = open_onnx(str(tmp_path / "m.onnx"), device="cpu", target=target)
    found = measure_skeleton(opened.skeleton(), (3, 64, 64))
    assert found.metrics["receptive_field"].value == 15


NORMS = {
    "ReduceL2": (
        (
            node("ReduceL2", ["p0", "axis"], ["norm"]),
            node("Clip", ["norm", "least"], ["clipped"]),
            node("Expand", ["clipped", "shape"], ["wide"]),
            node("Div", ["p0", "wide"], ["p1"]),
        ),
        F.normalize,
    ),
    "ReduceSumSquare": (
        (
            node("ReduceSumSquare", ["p0", "axis"], ["power"]),
            node("Div", ["p0", "power"], ["p1"]),
        ),
        lambda x: x / x.square().sum(1, keepdim=True),
    ),
    "MeanVarianceNormalization": (
        (node("MeanVarianceNormalization", ["p0"], ["p1"], axes=[2, 3]),),
        F.instance_norm,
    ),
    "LRN": ((node("LRN", ["p0"], ["p1"], size=5),), lambda x: F.local_response_norm(x, 5)),
}


class Normed(nn.Module):
    """A layer whose units are normalised, added to those of a layer of one tap."""

    def __init__(self, function):
        super().__init__()
        self.wide, self.point = nn.Conv2d(3, 6, 7, 2, 3), nn.Conv2d(3, 6, 1, 2)
        self.head, self.function = nn.Conv2d(6, 4, 3, 2, 1), function

    def forward(self, x):
        return self.head(self.function(self.wide(x)) + self.point(x))


@pytest.mark.parametrize("name", NORMS)
def test_norms_of_operators_are_those_of_torch(name, tmp_path):
    """The norm weighs its branch as torch's function does, which agrees with sampled weights."""
    nodes, function = NORMS[name]
    held = {"w1": weights(6, 3, 7, 7), "w2": weights(6, 3, 1, 1, seed=1), "w3": weights(4, 6, 3, 3)}
    held |= {"axis": np.array([1]), "least": np.array(1e-12, np.float32)}
    graph = [
        node("Conv", ["image", "w1"], ["p0"], strides=[2, 2], pads=[3, 3, 3, 3]),
        node("Conv", ["image", "w2"], ["point"], strides=[2, 2]),
        node("Shape", ["p0"], ["shape"]),
        *nodes,
        node("Add", ["p1", "point"], ["sum"]),
        node("Conv", ["sum", "w3"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
    ]
    proto = model(graph, held, dims=[1, 3, 48, 48], outputs=["map"], opset=18)
    opened = open_onnx(save(proto, tmp_path / "m.onnx"), device="cpu", target="map")
    skeleton = opened.skeleton()
    bare = skeleton.alternatives().popitem()[1] if skeleton.alternatives() else skeleton
    wanted = measure_skeleton(light_copy(Normed(function)), (3, 48, 48))
    found = measure_skeleton(bare, (3, 48, 48))
    np.testing.assert_allclose(
        found.maps["sensitivity"], wanted.maps["sensitivity"], rtol=1e-6, atol=1e-9
    )


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("filters", ["bilinear", "random"])
def test_one_filter_of_a_transposed_convolution_is_fixed_as_in_torch(filters, biased, tmp_path):
    """Its squared coefficients count, as those of a depthwise convolution do; a bias does not."""
    line = np.array([0.25, 0.75, 0.75, 0.25], np.float32)
    one = np.outer(line, line) if filters == "bilinear" else weights(4, 4, seed=5)
    held = {"w1": weights(6, 3, 4, 4), "w2": weights(4, 6, 1, 1, seed=1)}
    held |= {"up": np.tile(one, (6, 1, 1, 1)), "b": weights(6)}
    inputs = ["p0", "up", "b"] if biased else ["p0", "up"]
    graph = [
        node("Conv", ["image", "w1"], ["p0"], strides=[4, 4]),
        node("ConvTranspose", inputs, ["p1"], group=6, strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["p1", "w2"], ["map"]),
    ]
    proto = model(graph, held, dims=[1, 3, 32, 32], outputs=["map"], opset=18)
    opened = open_onnx(save(proto, tmp_path / "m.onnx"), device="cpu", target="map")
    found = energy_map(opened.skeleton(), (3, 32, 32))[0]
    taps = torch.from_numpy(one).double().square()[None, None]
    units = F.conv2d(torch.ones(1, 1, 16, 16, dtype=torch.float64), taps, stride=2, padding=1)
    wanted = units[0, 0].repeat_interleave(4, 0).repeat_interleave(4, 1)
    np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), 1e-6)
