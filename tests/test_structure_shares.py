"""Shares of a sum that depend on means and variances: behind maxima, and norms of activations.

`structure` counts half of an activation, 1 / n of a maximum of n, and the mean square of what a
norm divides by. Where terms of a sum differ in what this leaves out, a note says so.
"""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply
from test_structure_shared_units import remarks
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map

SIDE = 16


def pooled(x):
    return F.max_pool2d(x, 3, 2, 1)


def written_norm(x):
    """An instance norm, step by step."""
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / torch.sqrt(x.var((2, 3), keepdim=True) + 1e-5)


def by_channels(x):
    """A layer norm over the channels of each place."""
    return F.layer_norm(x.permute(0, 2, 3, 1), (x.shape[1],)).permute(0, 3, 1, 2)


def joined(left, right):
    """A map through layer `a`, a function and layer `b`, and through `a`, another one and `c`."""
    return lambda x, a, b, c: b(left(a(x))) + c(right(a(x)))


def each(x):
    return x[..., ::2, ::2]


def beside(x, y):
    """The first 3 channels of a map and the last 3 of another."""
    return torch.cat([x[:, :3], y[:, 3:]], 1)


def in_windows(x):
    """Maps (batch, channels, rows, 2, columns, 2) of pairs of rows and columns."""
    return x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))


OFF = {
    "rectified, then pooled": joined(lambda x: pooled(x.relu()), lambda x: each(x.relu())),
    "pooled, then rectified": joined(lambda x: pooled(x).relu(), lambda x: each(x.relu())),
    "behind a smooth activation": joined(lambda x: pooled(F.silu(x)), lambda x: each(F.silu(x))),
    "behind a written one": joined(
        lambda x: pooled(x * x.sigmoid()), lambda x: each(x * x.sigmoid())
    ),
    "bounded at zero": joined(lambda x: pooled(x.clamp(min=0)), lambda x: each(x.clamp(min=0))),
    "scaled and moved in between": joined(
        lambda x: pooled((2 * x.relu()).flip(2)), lambda x: each(x.relu())
    ),
    "pooled, then normed": joined(lambda x: F.instance_norm(pooled(x)), each),
    "mixed in between": lambda x, a, b, c: F.instance_norm(b(pooled(x))) + c(each(x)),
    "by a written norm": joined(lambda x: written_norm(pooled(x)), each),
    "by its length": joined(lambda x: F.normalize(pooled(x), dim=1), each),
    "joined as channels": lambda x, a, b, c: torch.cat(
        [pooled(a(x).relu()), c(each(a(x).relu()))], 1
    ),
    "written into it": lambda x, a, b, c: torch.stack([pooled(a(x).relu()), each(a(x).relu())]).sum(
        0
    ),
    "multiplied": joined(lambda x: pooled(x.relu()), lambda x: each(x.relu()) * pooled(x.relu())),
    "larger windows than the other": joined(
        lambda x: F.max_pool2d(x.relu(), 4, 2, 1), lambda x: pooled(x.relu())
    ),
    "pooled twice": joined(
        lambda x: F.max_pool2d(x.relu(), 2, 2),
        lambda x: pooled(F.max_pool2d(x.relu(), 2, 1, 1))[..., :8, :8],
    ),
    "adaptive windows": joined(
        lambda x: F.adaptive_max_pool2d(x.relu(), SIDE // 2), lambda x: each(x.relu())
    ),
    "the larger of two": joined(
        lambda x: torch.maximum(x[:, :3].relu(), x[:, 3:].relu()).repeat(1, 2, 1, 1), torch.relu
    ),
    "the largest along axes": joined(
        lambda x: in_windows(x.relu()).amax((3, 5)), lambda x: each(x.relu())
    ),
    "a layer norm of activations": joined(lambda x: by_channels(F.gelu(x)), F.gelu),
    "a group norm of activations": joined(lambda x: F.group_norm(x.relu(), 1), torch.relu),
    "a layer norm of means of activations": lambda x, a, b, c: (
        a(x) + F.layer_norm(b(c(x).relu().mean((2, 3), keepdim=True)), (6, 1, 1))
    ),
    "a norm of adaptive means of activations": lambda x, a, b, c: (
        each(a(x)) + by_channels(b(F.adaptive_avg_pool2d(F.silu(c(x)), SIDE // 2)))
    ),
    "a norm of windows of activations": lambda x, a, b, c: (
        each(a(x)) + by_channels(b(F.avg_pool2d(c(x).relu(), 3, 2, 1)))
    ),
    "channels behind a pool beside others, then rectified": lambda x, a, b, c: b(
        beside(pooled(a(x)), each(c(x))).flip(2).relu()
    ),
    "a mean of activations as a factor": lambda x, a, b, c: (
        a(x) * b(c(x).relu().mean((2, 3), keepdim=True)) + x
    ),
}

ALIKE = {
    "no activation, no norm": joined(pooled, each),
    "all behind one pool": lambda x, a, b, c: (lambda y: F.instance_norm(b(y)).relu() + c(y))(
        pooled(a(x).relu())
    ),
    "equal pools": joined(lambda x: pooled(x.relu()), lambda x: pooled(x.relu())),
    "an activation before the layer in between": lambda x, a, b, c: (
        pooled(b(a(x).relu())) + c(each(a(x).relu()))
    ),
    "means": joined(lambda x: F.avg_pool2d(x.relu(), 3, 2, 1), lambda x: each(x.relu())),
    "instance norms of means": lambda x, a, b, c: (
        F.instance_norm(b(F.avg_pool2d(a(x).relu(), 2))) + each(c(x))
    ),
    "a rectifier behind a mean": lambda x, a, b, c: (
        b(F.avg_pool2d(a(x).relu(), 2)).relu() + each(c(x).relu())
    ),
    "a gate by a mean": lambda x, a, b, c: (
        a(x) * b(c(x).relu().mean((2, 3), keepdim=True)).sigmoid() + x
    ),
    "a norm of means of layers": lambda x, a, b, c: (
        a(x) + F.layer_norm(b(c(x).mean((2, 3), keepdim=True)), (6, 1, 1))
    ),
    "an odd activation": joined(lambda x: pooled(x.tanh()), lambda x: each(x.tanh())),
    "one entry": joined(lambda x: F.max_pool2d(x.relu(), 1, 2), lambda x: each(x.relu())),
    "layer norms of layers": joined(by_channels, lambda x: x),
    "an instance norm of activations": joined(
        lambda x: F.instance_norm(x.relu()), lambda x: x.relu()
    ),
    "channels behind a pool beside others, then weights": lambda x, a, b, c: F.silu(
        b(beside(pooled(a(x)), each(c(x))))
    ),
    "channels behind a pool beside others, then an instance norm": lambda x, a, b, c: b(
        F.instance_norm(beside(pooled(a(x)), each(c(x)))).relu()
    ),
    "channels behind equal pools": lambda x, a, b, c: b(beside(pooled(a(x)), pooled(c(x))).relu()),
    "a gate of what was pooled": joined(
        lambda x: x * F.adaptive_max_pool2d(x.relu(), 1).sigmoid(), lambda x: x
    ),
}


def net(function):
    layers = {key: nn.Conv2d(6, 6, 1) for key in ("a", "b", "c")}
    return Apply(function, **layers)


@pytest.mark.parametrize("name", OFF)
def test_terms_that_differ_in_means_or_variances_have_a_note(name):
    """Also where layers, moves and scales are in between, or the norm is written out."""
    assert any("joins" in note for note in remarks(net(OFF[name]), 4 * SIDE))


@pytest.mark.parametrize("name", ALIKE)
def test_terms_that_do_not_have_none(name):
    """What all terms pass alike changes no share, and an odd activation has no mean."""
    assert not any("joins" in note for note in remarks(net(ALIKE[name]), 4 * SIDE))


class TwoWays(nn.Module):
    """A map of `width` channels through a pool, and every other unit of it through a layer."""

    def __init__(self, width, pool, before):
        super().__init__()
        self.first, self.step = nn.Conv2d(3, width, 1), nn.Conv2d(width, width, 1, 2)
        self.last, self.pool, self.before = nn.Conv2d(width, 2, 1), pool, before

    def forward(self, x):
        x = self.before(self.first(x))
        return self.last(self.step(x) + self.pool(x))


def phases_of(energy):
    """Mean of a map at the places that every other unit is at, relative to the others' mean."""
    whole = energy.sum()
    own = energy[::2, ::2].sum()
    return float(own / ((whole - own) / 3))


def measured(net, draws=150, size=8):
    """The same of squared Jacobians of outputs in random directions, over draws of the weights."""
    torch.manual_seed(0)
    total = torch.zeros(size, size, dtype=torch.float64)
    net = net.double()
    for _ in range(draws):
        for layer in (net.first, net.step, net.last):
            nn.init.normal_(layer.weight, 0, layer.weight[0].numel() ** -0.5)
            nn.init.zeros_(layer.bias)
        x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        out = net(x)
        (gradient,) = torch.autograd.grad(out, x, torch.randn_like(out))
        total += (gradient**2).sum((0, 1))
    return phases_of(total)


@pytest.mark.parametrize(
    ("before", "passed"), [(torch.relu, 1 - 2.0**-4), (torch.tanh, None), (nn.Identity(), 1)]
)
def test_of_four_rectified_units_a_maximum_passes_fifteen_sixteenths(before, passed):
    """Two terms in phase: one unit of four, and 1 / 4 of each; the map counts 1/2 for 15/16."""
    net = TwoWays(24, nn.MaxPool2d(2), before)
    counted = phases_of(energy_map(light_copy(net.eval()), (3, 8, 8))[0].numpy())
    assert counted == pytest.approx(5)
    if passed is not None:
        half = 1 / 2 if before is torch.relu else 1
        assert measured(net) == pytest.approx((half + passed / 4) / (passed / 4), rel=0.1)
        assert bool(remarks(net, 8)) == (passed < 1)
