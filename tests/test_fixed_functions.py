"""Fixed functions that follow one another: exact in `structure`, or noted as an approximation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_structure_exact import BLUR, Between, squared_jacobian
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import NOT_INDEPENDENT, measure_skeleton


def blurred(x, **options):
    """The map filtered by the same 3 x 3 taps in every channel."""
    channels = x.shape[1]
    return F.conv2d(x, BLUR.to(x).expand(channels, 1, 3, 3), groups=channels, **options)


def sampled(x):
    """The map at places along a turned and stretched grid."""
    turn = torch.tensor([[[0.8, 0.3, 0.1], [-0.2, 0.9, 0.0]]], dtype=x.dtype)
    grid = F.affine_grid(turn.expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def spread(x):
    """Transposed convolution with one fixed filter for every channel."""
    channels = x.shape[1]
    return F.conv_transpose2d(
        x, BLUR.to(x).expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels
    )


IN_A_ROW = {
    "mean of a mean": lambda x: F.avg_pool2d(F.avg_pool2d(x, 3, 2, 1), 3, 1, 1),
    "mean of a mean, of what is there": lambda x: F.avg_pool2d(
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 2, ceil_mode=True
    ),
    "three means": lambda x: F.avg_pool2d(
        F.avg_pool2d(F.avg_pool2d(x, (3, 5), 1, (1, 2)) / 3, 3, 2, 1) - 1, 3, 1, 1
    ),
    "mean of an interpolation": lambda x: F.avg_pool2d(F.interpolate(x, scale_factor=1.5), 2),
    "interpolated twice": lambda x: F.interpolate(
        F.interpolate(x, size=31, mode="bilinear"), scale_factor=0.75, mode="bicubic"
    ),
    "sum of a sum, turned": lambda x: x.cumsum(-1).flip(-1).cumsum(-1),
    "blurred twice": lambda x: blurred(blurred(x, stride=2) * 2),
    "blurred in other layouts": lambda x: blurred(
        F.pad(blurred(x).permute(0, 2, 3, 1).roll(3, 1), (0, 0, 2, 1)).permute(0, 3, 1, 2)
    ),
    "blurred, reflected, blurred": lambda x: blurred(F.pad(blurred(x), (1, 1, 1, 1), "reflect")),
    "blurred, circular, cut, blurred": lambda x: blurred(
        F.pad(blurred(x), (2, 2, 2, 2), "circular")[..., 1:, ::2]
    ),
    "reflected, blurred": lambda x: blurred(F.pad(x, (1, 1, 1, 1), "reflect"), stride=2),
    "replicated around channels last, mean": lambda x: F.avg_pool2d(
        F.pad(x.movedim(1, -1), (0, 0, 2, 2), "replicate").movedim(-1, 1), 3, 2
    ),
    "each twice, blurred": lambda x: blurred(
        x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1
    ),
    "side by side, mean": lambda x: F.avg_pool2d(x.repeat(1, 1, 1, 2), 3, 1, 1),
    "chosen units, blurred": lambda x: blurred(x[:, :, torch.arange(24) // 3]),
    "indices, mean": lambda x: F.avg_pool2d(x.index_select(3, torch.arange(48) // 2), (1, 3), 1),
    "sum of rows of a mean": lambda x: F.avg_pool2d(x, 3, 2, 1).sum(2, keepdim=True),
    "mean of a mean in another type": lambda x: F.avg_pool2d(
        F.avg_pool2d(x, 3, 1, 1).type_as(x).double(), 3, 1
    ),
    "listed units, mean": lambda x: F.avg_pool2d(x[..., [0, 1, 1, 2, 3, 3, 3, 9]], 3, 1),
    "reflected and cropped, mean": lambda x: F.avg_pool2d(
        F.pad(x, (2, 2, -2, -2), "reflect"), 3, 1
    ),
    "sampled, mean": lambda x: F.avg_pool2d(sampled(x), 3, 2, 1),
    "blurred, sampled": lambda x: sampled(blurred(x)),
    "spread, blurred": lambda x: blurred(spread(x)),
    "mean, uneven windows": lambda x: F.adaptive_avg_pool2d(F.avg_pool2d(x, 3, 2), (5, 4)),
    "mean of all of a mean": lambda x: blurred(x, stride=2).mean((2, 3), keepdim=True),
    "mean of all of two": lambda x: blurred(blurred(x)).permute(0, 2, 3, 1).mean((1, 2)),
    "tokens": lambda x: F.avg_pool1d(F.avg_pool1d(x.flatten(2), 5, 2), 4, 3),
    "normed": lambda x: blurred(
        F.batch_norm(blurred(x), *torch.tensor([[0.0] * 3, [4.0] * 3]).to(x))
    ),
}

NOTED = {
    "mean of a running sum by a matrix": lambda x: F.avg_pool2d(
        torch.ones(24, 24).tril().to(x) @ x, 3, 1
    ),
    "matrix behind a mean": lambda x: F.avg_pool2d(x, 3, 1, 1) @ torch.ones(24, 4).to(x),
    "half of it between": lambda x: F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1).tril(), 3, 1),
    "gathered, mean": lambda x: F.avg_pool2d(
        x.gather(3, (torch.arange(24) // 3).expand(*x.shape)), 3, 1
    ),
    "a sum between": lambda x: blurred(x + blurred(x, padding=1)),
    "a concatenation between": lambda x: blurred(torch.cat([blurred(x), blurred(x).flip(2)], 1)),
    "a shape of images between": lambda x: F.avg_pool2d(
        blurred(x).reshape(x.shape[0], 3, 11, 44), 3, 1, 1
    ),
    "another filter for each channel": lambda x: F.conv2d(
        blurred(x), torch.arange(1.0, 28.0).to(x).view(3, 1, 3, 3), groups=3
    ),
}

APART = {
    "mean of means without overlap": lambda x: F.avg_pool2d(F.avg_pool2d(x, 2), 3, 1),
    "nearest of an interpolation": lambda x: F.interpolate(
        F.interpolate(x, size=31, mode="bilinear"), scale_factor=2
    ),
    "mean": lambda x: F.avg_pool2d(x, 3, 1, 1) + x,
    "channels twice, mean": lambda x: F.avg_pool2d(x.repeat_interleave(2, 1)[:, ::2], 2),
    "zeros around, blurred": lambda x: blurred(F.pad(x, (1, 1, 1, 1))),
    "sum of a filter of one tap": lambda x: F.conv2d(
        x.cumsum(-1), torch.ones(3, 1, 1, 1).to(x), groups=3
    ),
}


@pytest.mark.parametrize("name", [*IN_A_ROW, *NOTED, *APART])
def test_fixed_mixtures_that_follow_one_another_are_exact_or_noted(name):
    """The map is the squared Jacobian; where it is not, a note says so."""
    function = {**IN_A_ROW, **NOTED, **APART}[name]
    skeleton = light_copy(Between(function))
    found = measure_skeleton(skeleton, (3, 24, 24))
    exact = squared_jacobian(function, 3, 24, 24)
    error = float((torch.tensor(found.maps["sensitivity"]) - exact).norm() / exact.norm())
    noted = any(n.startswith(NOT_INDEPENDENT) for n in found.notes)
    assert (error > 1e-9, noted) == (name in NOTED, name in NOTED)


@pytest.mark.parametrize("size", [(15, 15), (13, 17)])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("window", [(2, 2, 0), (2, 1, 1), (3, 2, 1), (4, 3, 2), (5, 2, 1)])
def test_a_mean_pool_that_is_cut_off_at_the_end_divides_by_what_is_left(window, counted, size):
    """As torch's with `ceil_mode`, along one axis and two."""
    options = {"ceil_mode": True, "count_include_pad": counted}
    for pool in (
        lambda x: F.avg_pool2d(x, *window, **options),
        lambda x: F.avg_pool1d(x.flatten(2), *window, **options)[:, :, None],
    ):
        found = energy_map(light_copy(Between(pool)), (3, *size))[0]
        exact = squared_jacobian(pool, 3, *size)
        np.testing.assert_allclose(found / found.mean(), exact, rtol=1e-9, atol=1e-12)


def test_random_weights_between_fixed_mixtures_leave_no_note():
    """A convolution between two mean pools makes their coefficients independent."""
    net = nn.Sequential(nn.AvgPool2d(3, 2, 1), nn.Conv2d(3, 4, 3), nn.AvgPool2d(3, 1, 1))
    notes = measure_skeleton(light_copy(net), (3, 32, 32)).notes
    assert not any(n.startswith(NOT_INDEPENDENT) for n in notes)
