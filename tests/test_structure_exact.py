"""`structure` against autograd: maps are squared Jacobians, means over random weights."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import BLUR, SIDE, Apply, Between, field_of, squared_jacobian
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.architecture.receptive_field import layer_table

GRID = F.affine_grid(
    torch.tensor([[[0.9, 0.1, 0.05], [-0.1, 0.9, 0]]]), (1, 3, 24, 24), align_corners=False
)


MATRIX = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)) / 5


LINEAR = {
    "grid_sample": lambda x: F.grid_sample(
        x, GRID.to(x).expand(len(x), -1, -1, -1), align_corners=False
    ),
    "grid_sample at the nearest": lambda x: F.grid_sample(
        x,
        GRID.to(x).expand(len(x), -1, -1, -1),
        mode="nearest",
        padding_mode="border",
        align_corners=True,
    ),
    "linear by a buffer": lambda x: F.linear(x, MATRIX.to(x)),
    "matrix from the left": lambda x: MATRIX.to(x) @ x,
    "matrix from the right": lambda x: x @ MATRIX.to(x),
    "fixed filter": lambda x: F.conv2d(x, BLUR.to(x).expand(3, 1, 3, 3), groups=3, stride=2),
    "fixed equal filter beside its input": lambda x: (
        x + F.conv2d(x, torch.ones(3, 1, 3, 3).to(x), padding=1, groups=3).roll((5, 5), (2, 3))
    ),
    "fixed transposed filter": lambda x: F.conv_transpose2d(
        x, BLUR.to(x).expand(3, 1, 3, 3), stride=2, groups=3
    ),
    "cumulative sum": lambda x: x.cumsum(2),
    "mean-pool, borders not counted": lambda x: F.avg_pool2d(
        x, 3, 2, 1, ceil_mode=True, count_include_pad=False
    ),
    "lower triangle": torch.tril,
    "sum, operands by name": lambda x: torch.add(input=x, other=x.roll(7, 3), alpha=-2),
    "difference in place, by name": lambda x: x.clone().sub_(other=x.roll(7, 3), alpha=3),
    "product by name": lambda x: torch.mul(torch.ones(24, 24).tril().to(x), other=x),
    "quotient by name": lambda x: x.div(other=1 + torch.arange(24).to(x)),
    "matrix by name": lambda x: torch.matmul(input=x, other=MATRIX.to(x)),
    "matrices by name": lambda x: torch.mm(input=x.reshape(-1, 24), mat2=MATRIX.to(x)).view_as(x),
    "reshaped by name": lambda x: torch.reshape(input=x, shape=(-1, 3, 12, 48))[..., :40],
    "flipped by name": lambda x: torch.flip(input=x, dims=(2,))[:, :, 3:],
    "chosen, all by name": lambda x: torch.where(
        condition=torch.eye(24).bool(), input=x, other=x.roll(7, 3)
    ),
    "chosen by a method": lambda x: x.where(torch.eye(24).bool(), x.roll(7, 3)),
    "chosen by a method, by name": lambda x: x.where(condition=torch.eye(24).bool(), other=0.0),
    "between two, by name": lambda x: x.lerp(end=x.roll(7, 3), weight=0.25),
    "between two by place": lambda x: torch.lerp(x, x.roll(7, 3), torch.eye(24).to(x)),
    "between two, in place": lambda x: x.clone().lerp_(x.roll(7, 3), torch.arange(24).to(x) / 32),
    "constant and matrix": lambda x: torch.addmm(
        input=torch.ones(24).to(x), mat1=x.reshape(-1, 24), mat2=MATRIX.to(x), beta=2, alpha=3
    ).view_as(x),
    "constant and matrices": lambda x: torch.baddbmm(
        torch.ones(24, 24).to(x), x.flatten(0, 1), MATRIX.to(x).expand(3 * len(x), 24, 24)
    ).view_as(x),
    "product added": lambda x: torch.addcmul(
        input=x, tensor1=x.roll(4, 2), tensor2=torch.eye(24).to(x), value=3
    ),
    "quotient added": lambda x: torch.addcdiv(x, x.roll(4, 2), 2 + torch.eye(24).to(x), value=3),
    "in place on a copy": lambda x: x.clone().mul_(3) + x.roll(7, 2),
    "in place, then read again": lambda x: _doubled_first(x),
    **{
        f"interpolate {mode} {options}": (
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options)
        )
        for mode, options in [
            ("nearest", {"scale_factor": 0.7}),
            ("nearest-exact", {"size": 17}),
            ("bilinear", {"scale_factor": 0.43}),
            ("bilinear", {"scale_factor": 0.43, "recompute_scale_factor": True}),
            ("bilinear", {"scale_factor": 1.3, "align_corners": True}),
            ("bilinear", {"size": (11, 24), "antialias": True}),
            ("bicubic", {"scale_factor": (0.55, 2.2)}),
            ("bicubic", {"size": 10, "antialias": True, "align_corners": False}),
            ("area", {"scale_factor": 0.4}),
        ]
    },
}


def _doubled_first(x):
    y = x.clone()
    z = y
    z.mul_(2)
    return y + x.roll(3, 3)


@pytest.mark.parametrize("name", LINEAR)
def test_a_fixed_linear_function_counts_by_its_squared_coefficients(name):
    """The expected map is that of autograd's Jacobian, to rounding."""
    expected = squared_jacobian(LINEAR[name], 3, 24, 24)
    found = energy_map(light_copy(Between(LINEAR[name])), (3, 24, 24))[0]
    np.testing.assert_allclose(found / found.mean(), expected, rtol=1e-9, atol=1e-12)


def test_a_map_does_not_depend_on_the_variants_of_its_pass():
    """A product of activations near the size above which it is averaged: alone, and among three."""

    def squared(x):
        tokens = x.flatten(2)
        return x + (tokens.mT @ tokens @ tokens.mT).mT.view_as(x)

    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), Between(squared))
    net[1].head = nn.Conv2d(6, 2, 3, 2, 1)
    skeleton = light_copy(net)
    alone = energy_map(skeleton, (3, 32, 32))[0]
    for padded in ([None] * 5, [None, 0, 1]):
        np.testing.assert_allclose(energy_map(skeleton, (3, 32, 32), padded=padded)[0], alone)


def test_attention_reads_the_tokens_that_its_mask_allows():
    """Uniform attention under a mask is a mean over the allowed tokens, written in three ways."""
    side = 6
    place = torch.arange(side * side)
    allowed = (place[:, None] // 12) == (place // 12)  # groups of two rows
    mask = torch.zeros(36, 36).masked_fill(~allowed, -100.0)

    def fused(x):
        tokens = x.flatten(2).transpose(1, 2)
        out = F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask.to(x))
        return out.transpose(1, 2).view_as(x)

    def added(x):
        tokens = x.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.mT + mask.to(x)).softmax(-1)
        return (weights @ tokens).transpose(1, 2).view_as(x)

    def filled(x):
        tokens = x.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.mT).masked_fill(~allowed, -math.inf).softmax(-1)
        return (weights @ tokens).transpose(1, 2).view_as(x)

    def mean(x):
        return (
            x.unflatten(2, (3, 2)).mean((3, 4), keepdim=True).expand(-1, -1, 3, 2, 6).flatten(2, 3)
        )

    maps = [
        energy_map(light_copy(Between(lambda x, f=f: f(x).roll(1, 2))), (3, side, side))[0]
        for f in (fused, added, filled, mean)
    ]
    for found in maps[:3]:
        np.testing.assert_allclose(found, maps[3], rtol=1e-9)


def test_attention_of_torch_s_module_may_run_over_rolled_windows():
    """Windows as the batch of `nn.MultiheadAttention` give the map of a mean over each of them."""

    def windows(x, mean):
        parts = x.roll((-2, -2), (2, 3)).unflatten(3, (3, 4)).unflatten(2, (3, 4))
        tokens = parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
        out = mean(tokens).unflatten(1, (4, 4)).unflatten(0, (-1, 3, 3))
        merged = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return x + merged.roll((2, 2), (2, 3))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, tokens):
            return self.inner(tokens, tokens, tokens, need_weights=False)[0]

    def uniform(tokens):
        return tokens.mean((1, 2), keepdim=True).expand_as(tokens) * 6**0.5

    attention = Attention()
    whole = Apply(lambda x, mean: windows(x, mean), mean=attention)
    maps = [
        energy_map(light_copy(module), (3, SIDE, SIDE))[0]
        for module in (whole, Apply(lambda x: windows(x, uniform)))
    ]
    np.testing.assert_allclose(*maps, rtol=1e-9)
    field = field_of(whole)
    assert (field.size, field.global_) == ((32.0, 32.0), False)  # windows of units 2..5 and 6..9


def test_maps_of_random_weights_are_their_mean_squared_jacobian():
    """The map equals the mean squared Jacobian over 3,000 draws of the weights."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1),
        nn.ConvTranspose2d(4, 4, 3, 2, 1, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.Conv2d(4, 3, 3, 2, 1, dilation=2),
        nn.Upsample(scale_factor=1.7, mode="bicubic"),
    )
    expected = energy_map(light_copy(net), (2, 16, 16))[0]
    total = torch.zeros(16, 16)
    generator = torch.Generator().manual_seed(0)
    weights = [p for p in net.parameters() if p.ndim > 1]
    x = torch.randn(1, 2, 16, 16, generator=generator, requires_grad=True)
    for _ in range(3000):
        for p in weights:
            p.data.normal_(generator=generator)
        y = net(x)
        v = torch.randn(y.shape, generator=generator)
        (gradient,) = torch.autograd.grad(y, x, v)
        total += (gradient[0] ** 2).sum(0)
    measured, expected = total / total.mean(), expected / expected.mean()
    assert float((measured - expected).norm() / expected.norm()) < 0.05


def test_padding_that_no_maximum_can_be_is_no_unit_of_a_pool():
    """Windows over padding of minus infinity choose among the units of the map only."""
    padded = Between(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 2))
    plain = Between(lambda x: F.max_pool2d(x, 3, 2, 1))
    first, second = (energy_map(light_copy(net), (3, 24, 24)) for net in (padded, plain))
    np.testing.assert_allclose(first, second)
    rows = [layer_table(light_copy(n), torch.empty(1, 3, 24, 24))[0].row() for n in (padded, plain)]
    assert rows[0] == rows[1]


@pytest.mark.parametrize("square", [lambda x: x**2, torch.square, lambda x: x.pow(2)])
def test_the_square_of_a_rectified_value_is_an_activation(square):
    """Its squared derivative is 4 z^2 for z > 0: of a normal z, 2 in the mean."""
    z = torch.linspace(0, 12, 100_001, dtype=torch.float64)
    density = (-(z**2) / 2).exp() / (2 * torch.pi) ** 0.5
    factor = float(torch.trapezoid(4 * z**2 * density, z))
    linear, squared = (
        energy_map(light_copy(Between(f)), (3, 8, 8))[0]
        for f in (lambda x: x, lambda x: square(F.relu(x)))
    )
    np.testing.assert_allclose(squared, factor * linear, rtol=1e-6)


def test_the_square_of_a_value_that_was_not_rectified_is_a_statistic():
    """As in a norm that is written out: x over the root of its mean square."""
    norm = lambda x: x / (x**2).mean((1, 2, 3), keepdim=True).sqrt()  # noqa: E731
    found = energy_map(light_copy(Between(lambda x: norm(F.relu(x)[..., :5]))), (3, 8, 8))[0]
    assert float(found[:, :5].min()) > 0
