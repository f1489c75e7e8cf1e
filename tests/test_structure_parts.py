"""Sums of parts of one tensor and of stacked tensors: a note where they share a unit, or none."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply, Between, squared_jacobian
from test_structure_shared_units import remarks
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.places import MOST_WAYS, all_ways
from perimetry.suites.architecture.propagate import energy_map

SIDE = 64


def grey(x):
    return 0.3 * x[:, 0:1] + 0.6 * x[:, 1:2] + 0.1 * x[:, 2:3]


def whole(x, part):
    """The part beside channels of the map, six in all."""
    return torch.cat([part, x[:, : 6 - part.shape[1]]], 1)


def largest(x):
    return F.max_pool2d(x, 3, 1, 1)


def selected(stacked):
    """A sum over stacked branches, weighted by attention over them."""
    weights = stacked.sum(1).mean((2, 3), keepdim=True)[:, None]
    return (stacked * torch.cat([weights, weights], 1).softmax(1)).sum(1)


APART = {
    "colours": lambda x, a, b: a(F.relu(grey(x)).repeat(1, 6, 1, 1)),
    "disjoint channels": lambda x, a, b: whole(x, sum(x.chunk(3, 1))),
    "of largest ones": lambda x, a, b: whole(x, sum(largest(x).chunk(3, 1))),
    "and their rectified values": lambda x, a, b: whole(
        x, x[:, :2] + x[:, 2:4].relu() + x[:, 4:].tanh()
    ),
    "in place": lambda x, a, b: whole(x, x[:, :2].clone().add_(x[:, 2:4]).add_(x[:, 4:])),
    "stacked": lambda x, a, b: torch.stack([a(largest(x)), b(largest(x))], 1).sum(1),
    "their mean": lambda x, a, b: torch.stack([a(largest(x)), b(largest(x))]).mean(0),
    "joined": lambda x, a, b: torch.cat([f(largest(x))[:, None] for f in (a, b)], 1).sum(1),
    "split channels": lambda x, a, b: whole(
        x, a(largest(x)).view(len(x), 2, 3, *x.shape[2:]).sum(1)
    ),
    "selective kernels": lambda x, a, b: selected(
        torch.stack([a(largest(x)).relu(), b(largest(x)).relu()], 1)
    ),
    "a sum of stacked and another": lambda x, a, b: x + torch.stack([a(x), b(x)], 1).sum(1),
}

MEETING = {
    "a part twice": lambda x, a, b: whole(x, x[:, :2] + x[:, 2:4] + x[:, :2].relu()),
    "the first of a long sum": lambda x, a, b: whole(
        x, x[:, :1] + x[:, 1:2] + x[:, 2:3] + x[:, 3:4] + x[:, :1].relu()
    ),
    "a part in the second place": lambda x, a, b: whole(
        x, torch.cat([x[:, :1], x[:, 1:2].relu() + x[:, 2:3]], 1) + x[:, 4:] + x[:, 1:3].tanh()
    ),
    "written over": lambda x, a, b: whole(
        x, (x[:, :2] + x[:, 2:4]).index_put((torch.tensor(0),), x[0, 4:]) + x[:, :2].relu()
    ),
    "a part and its mean": lambda x, a, b: whole(
        x, x[:, :1] + x[:, 1:2] + F.avg_pool2d(x[:, :1], 3, 1, 1)
    ),
    "a mean and rolled channels": lambda x, a, b: F.avg_pool2d(x, 3, 1, 1) + x.roll(2, 1),
    "one stacked with itself": lambda x, a, b: torch.stack([x, x.relu()], 1).sum(1),
    "with its largest": lambda x, a, b: torch.stack([a(x), largest(x), x], 1).mean(1),
    "a gate on each": lambda x, a, b: (
        torch.stack([x, x.relu()], 1) * torch.arange(1.0, 3).view(1, 2, 1, 1, 1)
    ).sum(1),
    "a mean of both and one of them": lambda x, a, b: torch.stack([a(x), x], 1).sum(1) + largest(x),
    "places of one map": lambda x, a, b: F.interpolate(
        largest(x).view(*x.shape[:2], 2, -1, x.shape[3]).sum(2), x.shape[2:]
    ),
}


def of(function):
    """The function with two layers of its own."""
    layers = {key: nn.Conv2d(6, 6, 3, padding=1) for key in ("a", "b")}
    return Apply(function, **layers)


@pytest.mark.parametrize("name", APART)
def test_parts_without_a_common_unit_add_up_without_a_note(name):
    """Channels that are apart stay so through sums, and layers stay independent in a stack."""
    assert remarks(of(APART[name]), SIDE) == []


@pytest.mark.parametrize("name", MEETING)
def test_parts_that_share_a_unit_have_one(name):
    """Whatever was added in between, or however they were joined."""
    assert remarks(of(MEETING[name]), SIDE) != []


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.avg_pool2d(grey(x), 3, 1, 1).repeat(1, 3, 1, 1),
        lambda x: grey(F.avg_pool2d(x, 3, 1, 1)).repeat(1, 3, 1, 1),
        lambda x: F.avg_pool2d(F.avg_pool2d(sum(x.chunk(3, 1)), 3, 1, 1), 3, 1, 1).repeat(
            1, 3, 1, 1
        ),
        lambda x: torch.stack([x, 2 * x.flip(-1)], 1).sum(1),
    ],
)
def test_fixed_sums_of_parts_are_exact(function):
    """The expected map is the squared Jacobian, whether units meet or not."""
    found = energy_map(light_copy(Between(function).eval()), (3, 12, 10))[0].detach().numpy()
    exact = squared_jacobian(function, 3, 12, 10).numpy()
    np.testing.assert_allclose(found / found.mean(), exact, rtol=1e-9)


def test_too_many_ways_are_joined_into_one():
    """What they agree in is kept: here the rows, not the channels."""
    ways = [((n,), (0, 1)) for n in range(MOST_WAYS + 1)]
    assert all_ways([ways[:3], ways[1:5]]) == tuple(ways[:5])
    assert all_ways([ways[:3], ways[3:]]) == ((None, (0, 1)),)
