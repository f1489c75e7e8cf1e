"""`structure` of weights that are masked, written to, padded or added, against their moments."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model as onnx_model
from onnx_files import node, save, weights
from torch import nn
from torch.nn.utils import prune

from perimetry import audit
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.structure import measure_skeleton

SIDE = 12
UPPER = torch.tensor([[1.0, 1, 1], [1, 1, 0], [0, 0, 0]])
EVERY = torch.ones(3, 3)


class Computed(nn.Module):
    """A strided convolution by what a function makes of its weights."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Conv2d(3, 4, 3, 2, 1)
        self.point = nn.Conv2d(3, 4, 1)
        self.raw = nn.Parameter(torch.randn(4, 3, 3, 3))
        self.mask_parameter = nn.Parameter(UPPER.clone(), requires_grad=False)
        self.register_buffer("mask", UPPER.clone())
        self.function = function

    def forward(self, x):
        return F.conv2d(x, self.function(self), stride=2, padding=1)


def written(net):
    weight = net.layer.weight.clone()
    weight[:, :, 2] = 0
    weight[:, :, 1, 2].zero_()
    return weight


def written_by_mask(net):
    weight = net.layer.weight * 1
    weight[:, :, net.mask == 0] = 0
    return weight


def halved(net):
    weight = net.layer.weight.clone()
    weight[..., 2].mul_(0.5)
    weight[:, :, 0] *= 0.5
    return weight


def masked_data(net):
    net.layer.weight.data *= net.mask
    return net.layer.weight


def built(net):
    weight = torch.zeros_like(net.layer.weight)
    weight[:, :, :2] = net.layer.weight[:, :, :2]
    weight[:, :, 1, 2] = 0
    return weight


def joined(net):
    weight = net.raw * UPPER
    lines = torch.zeros(4, 3, 1, 3, device=weight.device).to(weight)
    return torch.cat([weight[:, :, :2], lines], 2)


HALVED = torch.tensor([[1.0, 1, 0.5], [2, 2, 1], [2, 2, 1]]) / 2
KERNELS = {
    "product with a buffer": (lambda net: net.layer.weight * net.mask, UPPER),
    "product with a frozen mask": (lambda net: net.mask_parameter * net.raw, UPPER),
    "mask on the device of the weights": (
        lambda net: net.layer.weight * UPPER.to(net.layer.weight.device).to(net.layer.weight),
        UPPER,
    ),
    "written": (written, UPPER),
    "written by a mask": (written_by_mask, UPPER),
    "scaled in place": (halved, HALVED**2),
    "data": (masked_data, UPPER),
    "built from zeros": (built, UPPER),
    "joined with zeros": (joined, UPPER),
    "where": (lambda net: torch.where(net.mask > 0, net.raw, 0.0), UPPER),
    "masked_fill": (lambda net: net.layer.weight.masked_fill(net.mask == 0, 0), UPPER),
    "turned": (lambda net: (net.layer.weight * UPPER).flip(3).transpose(2, 3), UPPER.flip(1).T),
    "padded and added": (
        lambda net: net.layer.weight + F.pad(net.point.weight, (1, 1, 1, 1)),
        EVERY + 9 * torch.eye(3)[1].outer(torch.eye(3)[1]),
    ),
    "standardised": (lambda net: net.raw - net.raw.mean((1, 2, 3), keepdim=True), EVERY),
}


def literal(moments):
    """Each unit gives every pixel that it reads the second moment of the tap; mean 1."""
    found = torch.zeros(SIDE + 2, SIDE + 2, dtype=torch.float64)
    for row in range(0, SIDE, 2):
        for column in range(0, SIDE, 2):
            found[row : row + 3, column : column + 3] += moments
    found = found[1:-1, 1:-1]
    return found / found.mean()


@pytest.mark.parametrize("name", KERNELS)
def test_computed_weights_have_the_moments_that_are_left_of_them(name):
    """The map is that of the taps' moments, in every pass, and the field that of those."""
    function, moments = KERNELS[name]
    skeleton = light_copy(Computed(function).eval())
    for variants in (1, 2):
        found = energy_map(skeleton, (3, SIDE, SIDE), padded=(None,) * variants)[0]
        torch.testing.assert_close(found / found.mean(), literal(moments))
    units = path_count_map(skeleton, (3, SIDE, SIDE))[2]
    used = [moments.sum(1).nonzero().flatten(), moments.sum(0).nonzero().flatten()]
    for axis, places in enumerate(used):
        assert units.low[axis, 3, 3] == 5 + places.min()
        assert units.high[axis, 3, 3] == 5 + places.max()


def test_pruned_weights_of_unlike_filters_are_read_each_by_itself():
    """A mask of one filter's taps and of one channel's, by torch's own pruning."""
    layer = nn.Conv2d(3, 4, 3, 2, 1)
    mask = torch.ones(4, 3, 3, 3)
    mask[1], mask[2:, 0, 0] = 0, 0
    prune.custom_from_mask(layer, "weight", mask)
    found = energy_map(light_copy(layer), (3, SIDE, SIDE))[0]
    torch.testing.assert_close(found / found.mean(), literal(mask.sum((0, 1))))


def test_a_masked_matrix_of_tokens_reads_those_that_the_mask_leaves():
    """`F.linear`, a product and an `einsum` with a band of a matrix have the map of the band."""
    near = (torch.arange(16)[:, None] - torch.arange(16)).abs() < 3

    class Mixed(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.matrix = nn.Linear(16, 16, bias=False)
            self.function = function

        def forward(self, x):
            return self.function(x.flatten(2), self.matrix.weight * near).view(x.shape)

    for function in (
        F.linear,
        lambda x, matrix: x @ matrix.T,
        lambda x, matrix: torch.einsum("bcn,mn->bcm", x, matrix),
    ):
        skeleton = light_copy(Mixed(function))
        found = energy_map(skeleton, (3, 4, 4))[0].flatten()
        expected = near.double().sum(0)
        torch.testing.assert_close(found / found.mean(), expected / expected.mean())


@pytest.mark.parametrize("raw", [False, True])
def test_a_filter_that_is_a_parameter_is_fixed_if_all_channels_have_it(raw):
    """Its squares are the moments; random ones and the identity count as random weights."""
    taps = torch.tensor([[1.0, 2, 1], [0, 0, 0], [0, 0, 0]])

    class Blurred(nn.Module):
        def __init__(self, filters):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 3, 2, 1, groups=3, bias=False)
            self.filters = nn.Parameter(filters)
            self.layer.weight.data[:] = filters

        def forward(self, x):
            return F.conv2d(x, self.filters, None, 2, 1, 1, 3) if raw else self.layer(x)

    identity = nn.init.dirac_(torch.empty(3, 1, 3, 3), 3)
    kinds = [(torch.randn(3, 1, 3, 3), EVERY), (identity, EVERY)]
    for filters, moments in [(taps.repeat(3, 1, 1, 1), taps**2), *kinds]:
        found = energy_map(light_copy(Blurred(filters)), (3, SIDE, SIDE))[0]
        torch.testing.assert_close(found / found.mean(), literal(moments))


def test_weights_added_to_their_own_mirror_image_have_a_note():
    """Their sum is not of independent weights."""
    net = Computed(lambda net: net.layer.weight + net.layer.weight.flip(2))
    (note,) = measure_skeleton(light_copy(net), (3, SIDE, SIDE)).notes
    assert "added to or subtracted from each other are independent" in note


def test_masked_weights_that_are_resized_are_refused_by_name():
    """What becomes of their moments is not known."""
    net = Computed(lambda net: F.interpolate(net.layer.weight * net.mask, size=(5, 5)))
    with pytest.raises(Exception, match="weights that are not alike pass 'interpolate'"):
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))


@pytest.mark.parametrize("masked", [False, True])
def test_a_mask_that_was_multiplied_into_the_numbers_of_a_kernel_has_a_note(masked, tmp_path):
    """In a module and in a file: four of nine taps are 0 in every filter."""
    kernel = weights(4, 3, 3, 3) * (UPPER.numpy() if masked else 1)
    module = nn.Conv2d(3, 4, 3, 2, 1)
    module.weight.data = torch.from_numpy(kernel)
    nodes = [node("Conv", ["image", "w"], ["y"], strides=[2, 2], pads=[1, 1, 1, 1])]
    proto = onnx_model(nodes, {"w": kernel}, dims=[1, 3, SIDE, SIDE], outputs=["y"])
    file = load(save(proto, tmp_path / "kernel.onnx"), device="cpu").skeleton()
    for skeleton in (light_copy(module), file):
        notes = measure_skeleton(skeleton, (3, SIDE, SIDE)).notes
        assert any("4 of 9 taps are 0 in every filter" in note for note in notes) == masked


def test_units_that_a_file_writes_into_zeros_are_those_of_the_map(tmp_path):
    """`ScatterND` of a map into stored zeros: its first lines, and nothing of the others."""
    nodes = [
        node("Conv", ["image", "w"], ["map"]),
        node("Transpose", ["map"], ["lines"], perm=[2, 0, 1, 3]),
        node("Slice", ["lines", "start", "end"], ["first"]),
        node("ScatterND", ["zeros", "places", "first"], ["written"]),
        node("Transpose", ["written"], ["y"], perm=[1, 2, 0, 3]),
        node("Conv", ["y", "v"], ["out"]),
    ]
    constants = {
        "w": weights(4, 3, 1, 1),
        "v": weights(2, 4, 1, 1),
        "start": np.array([0]),
        "end": np.array([5]),
        "places": np.arange(5)[:, None],
        "zeros": np.zeros((SIDE, 1, 4, SIDE), np.float32),
    }
    proto = onnx_model(nodes, constants, dims=[1, 3, SIDE, SIDE], outputs=["out"])
    file = load(save(proto, tmp_path / "written.onnx"), device="cpu", target="out").skeleton()
    found = energy_map(file, (3, SIDE, SIDE))[0]
    assert bool((found[:5] == found[0, 0]).all())
    assert not found[5:].any()


def test_kernels_that_are_resized_at_run_time_have_a_note():
    """Their entries are mixtures of unlike numbers of weights."""
    for function in (
        lambda net: F.interpolate(net.layer.weight, size=(5, 5), mode="bilinear"),
        lambda net: F.avg_pool2d(net.raw, 2, 1),
    ):
        skeleton = light_copy(Computed(function))
        (note,) = measure_skeleton(skeleton, (3, SIDE, SIDE)).notes
        assert "the entries of weights that" in note


def test_what_is_written_into_a_constant_by_an_index_is_that_of_the_map():
    """The two lines that are written; the others are read by nothing."""

    class Written(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            out = torch.zeros(x.shape[0], 4, 3, SIDE)
            out[:, :, torch.tensor([0, 1])] = self.first(x)[:, :, 5:7]
            return self.last(out)

    found = energy_map(light_copy(Written()), (3, SIDE, SIDE))[0]
    assert path_count_map(light_copy(Written()), (3, SIDE, SIDE))[2].nominal == (1, 1)
    assert found[5:7].all()
    assert found[5:7].sum() == found.sum()


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("fill", ["zero", "box", "fresh"])
def test_kernel_padding_of_masked_weights_is_refused_and_that_of_others_has_no_note(fill, masked):
    """What the fill makes of taps that are not alike is unknown; zeros are not filled in there."""
    net = Computed(lambda net: net.layer.weight * (net.mask if masked else 2))
    settings = {"size": (32, 32), "count": 2, "device": "cpu", "name": "masked"}
    record = audit(net, ("structure",), (fill,), **settings)[0]
    assert ("masked or computed" in (record.reason or "")) == (masked and fill != "zero")
    assert not any("assumed" in note for note in record.notes)
