"""Pools of every kind in `structure`: squared Jacobians of means, shares of maxima and norms."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from structure_nets import Between, squared_jacobian
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map

MEANS = {
    "lines": lambda x: F.adaptive_avg_pool1d(x.flatten(2), 7)[:, :, None],
    "lines of a module": lambda x: nn.AdaptiveAvgPool1d(7)(x.flatten(2))[:, :, None],
    "uneven lines, mean": lambda x: F.avg_pool1d(
        F.adaptive_avg_pool1d(x.flatten(2), 101), 3, 1
    ).unsqueeze(2),
    "maps": lambda x: F.adaptive_avg_pool2d(x, (5, 7)),
    "maps of a module": lambda x: nn.AdaptiveAvgPool2d((None, 7))(x),
    "channels last": lambda x: F.adaptive_avg_pool2d(x.permute(0, 2, 3, 1), (7, 3)).movedim(3, 1),
    "volumes": lambda x: F.adaptive_avg_pool3d(x.unflatten(2, (4, 6)), (3, 2, 5)).flatten(2, 3),
    "volumes of a module": lambda x: nn.AdaptiveAvgPool3d((None, 5, 7))(x[:, :, None])[:, :, 0],
}


@pytest.mark.parametrize("name", MEANS)
def test_adaptive_means_have_the_map_of_the_squared_jacobian(name):
    """Windows of unlike sizes, over one, two and three axes."""
    found = energy_map(light_copy(Between(MEANS[name])), (3, 24, 24))[0]
    exact = squared_jacobian(MEANS[name], 3, 24, 24)
    np.testing.assert_allclose(found / found.mean(), exact, rtol=1e-9, atol=1e-12)


MAXIMA = {
    "lines": lambda x: F.adaptive_max_pool1d(x.flatten(2), 7)[:, :, None],
    "maps": lambda x: F.adaptive_max_pool2d(x, (5, 7)),
    "maps of a module": lambda x: nn.AdaptiveMaxPool2d(5)(x),
    "volumes": lambda x: F.adaptive_max_pool3d(x[:, :, None], (1, 5, 7))[:, :, 0],
    "norms": lambda x: F.lp_pool2d(x, 2, 3, 2),
    "norms of a module": lambda x: nn.LPPool2d(2, (2, 4), (1, 2))(x),
    "absolute values": lambda x: F.lp_pool2d(x.abs(), 1, 3, 1),
}


def mean_squared_jacobian(function, size, samples=6000):
    """Mean over random maps of the squared Jacobian of one output each, summed over all outputs."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(samples, 1, size, size, generator=generator, dtype=torch.float64)
    x.requires_grad_()
    outputs = function(x)
    found = torch.zeros(size, size, dtype=torch.float64)
    for one in outputs.flatten(1).sum(0):
        (gradient,) = torch.autograd.grad(one, x, retain_graph=True)
        found += (gradient**2).mean((0, 1))
    return found


@pytest.mark.parametrize("name", MAXIMA)
def test_maxima_and_norms_pass_the_energy_that_random_maps_pass(name):
    """Within sampling noise: 1 / window for maxima and 2-norms, 1 for sums of absolute values."""
    found = energy_map(light_copy(Between(MAXIMA[name])), (3, 12, 12))[0]
    one = energy_map(light_copy(Between(lambda x: x)), (3, 12, 12))[0]
    sampled = mean_squared_jacobian(MAXIMA[name], 12)
    assert float((found / one - sampled).abs().max()) < 0.15 * float(sampled.max())
    assert float((found / one).sum()) == pytest.approx(float(sampled.sum()), rel=1e-9)


def test_places_of_maxima_and_other_norms_are_refused_by_name():
    """The reason names the operation."""
    for name, function in {
        "adaptive_max_pool1d": lambda x: torch.adaptive_max_pool1d(x.flatten(2), 7)[0][:, :, None],
        "lp_pool2d": lambda x: F.lp_pool2d(x, 3, 2),
        "lp_pool1d": lambda x: F.lp_pool1d(x.flatten(2), 2, 3)[:, :, None],
        "max_pool3d_with_indices": lambda x: F.max_pool3d(x[:, None], 2, return_indices=True)[0][
            :, 0
        ],
        "fractional_max_pool2d": lambda x: F.fractional_max_pool2d(x, 2, output_size=5),
    }.items():
        with pytest.raises(NotApplicableError) as caught:
            energy_map(light_copy(Between(function)), (3, 12, 12))
        assert repr(name) in str(caught.value)


POOLS = {
    "LpPool": ({"kernel_shape": [3, 3], "strides": [2, 2]}, lambda x: F.lp_pool2d(x, 2, 3, 2)),
    "LpPool padded": (
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]},
        lambda x: F.max_pool2d(x, 3, 2, 1),
    ),
    "LpPool of signs": (
        {"kernel_shape": [3, 3], "strides": [2, 2], "p": 1},
        lambda x: F.lp_pool2d(x, 1, 3, 2),
    ),
    "LpPool dilated and padded": (
        {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [2, 2, 2, 2], "dilations": [2, 2]},
        lambda x: F.max_pool2d(F.pad(x, (2, 2, 2, 2), value=-torch.inf), 3, 2, dilation=2),
    ),
    "GlobalLpPool": ({}, lambda x: F.lp_pool2d(x, 2, tuple(x.shape[2:])).expand_as(x)),
}


@pytest.mark.parametrize("name", POOLS)
def test_norms_of_files_have_the_map_of_torch_s(name, tmp_path):
    """As it is, padded and of a whole channel; a padded unit has no share, as in a max-pool."""
    attributes, function = POOLS[name]
    nodes = [
        node("Conv", ["image", "w1"], ["a"], strides=[2, 2]),
        node(name.partition(" ")[0], ["a"], ["p"], **attributes),
        *([node("Expand", ["p", "shape"], ["q"])] if "Global" in name else []),
        node("Conv", ["q" if "Global" in name else "p", "w2"], ["map"]),
        node("GlobalAveragePool", ["map"], ["out"]),
    ]
    held = {"w1": weights(3, 3, 2, 2), "w2": weights(2, 3, 1, 1, seed=1)}
    held["shape"] = np.array([1, 3, 12, 12])
    proto = model(nodes, held, dims=["batch", 3, 24, 24], outputs=["out"])
    skeleton = open_onnx(save(proto, tmp_path / "m.onnx"), device="cpu", target="map").skeleton()

    class Same(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 3, 2, 2), nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.last(function(self.first(x)))

    for found, wanted in (
        [energy_map(m, (3, 24, 24))[0] for m in (skeleton, light_copy(Same()))],
        [path_count_map(m, (3, 24, 24))[0] for m in (skeleton, light_copy(Same()))],
    ):
        np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), rtol=1e-9)
