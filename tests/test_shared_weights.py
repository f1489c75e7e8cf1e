"""What units share behind random weights: the expected map is exact, or noted as an approximation.

Weights are the same at all positions, and of their own for each pair of channels and each tap. So
two paths from one pixel add up in amplitude only where they pass through the same weights: their
units lie in several places of one channel, and what is behind the weights reads several places.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_weights import SIDE, Net, expected_map, mean
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.expected_maps import NOT_INDEPENDENT
from perimetry.suites.structure import measure_skeleton


def blurred(x):
    return F.conv2d(x, torch.ones(x.shape[1], 1, 2, 2).to(x), groups=x.shape[1], stride=2)


def partial_residual(y, x):
    """As ReXNet's: the first channels have a skip connection."""
    return torch.cat([y[:, :2] + x, y[:, 2:]], 1)


def written_residual(y, x):
    """The same, written into a part of a tensor."""
    whole = y.new_zeros(y.shape)
    whole[:, 2:] = y[:, 2:]
    whole[:, :2] = y[:, :2] + x
    return whole


def beside_a_part(x):
    return torch.cat([x, x[:, :1]], 1)


def rotary(x):
    """A rotary embedding of two channels."""
    angle = torch.arange(SIDE, dtype=torch.float64)
    turned = torch.cat([-x[:, 1:], x[:, :1]], 1)
    return x * angle.cos() + turned * angle.sin()


def shuffled(x):
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


def conv(have, give, size=1, **options):
    return lambda: nn.Conv2d(have, give, size, bias=False, **options)


EXACT = {
    "a part of itself joined": (
        lambda x, one: mean(one(beside_a_part(x))),
        [conv(3, 2)],
    ),
    "behind a kernel, a part of itself joined": (
        lambda x, one, two: mean(two(beside_a_part(one(x)))),
        [conv(2, 2), conv(3, 2)],
    ),
    "itself joined, in tokens": (
        lambda x, one: mean(one(torch.cat([x, x], 1)[:, :, :, 1:])),
        [conv(4, 1, (1, 3), padding=(0, 1))],
    ),
    "a partial residual": (
        lambda x, one, two: mean(two(partial_residual(one(x), x))),
        [conv(2, 3), conv(3, 1)],
    ),
    "a partial residual, written": (
        lambda x, one, two: mean(two(written_residual(one(x), x))),
        [conv(2, 3), conv(3, 1)],
    ),
    "a partial residual of one tensor": (
        lambda x, one, two: mean(two(partial_residual(y := one(x), y[:, 1:]))),
        [conv(2, 3), conv(3, 1)],
    ),
    "a rotary embedding": (
        lambda x, one, two: mean(two(rotary(one(x)))),
        [conv(2, 2), conv(2, 1)],
    ),
    "shuffled channels": (
        lambda x, one, two: mean(two(shuffled(one(x)))),
        [conv(2, 4, groups=2), conv(4, 2, groups=2)],
    ),
    "channels with some of a cheap layer": (
        lambda x, one, two: mean(two(torch.cat([x, one(x)], 1))),
        [conv(2, 2, (1, 3), padding=(0, 1), groups=2), conv(4, 1)],
    ),
    "a sum of two halves of the channels": (
        lambda x, one, two: mean(two(sum(one(x).chunk(2, 1)))),
        [conv(2, 4), conv(2, 1)],
    ),
    "a tensor and itself with the channels turned": (
        lambda x, one: mean(one(x + 2 * x[:, [1, 0]])),
        [conv(2, 2)],
    ),
    "pixels shuffled": (
        lambda x, one, two: F.avg_pool2d(two(F.pixel_shuffle(one(x), 2)), 2),
        [conv(2, 4), conv(1, 1)],
    ),
    "windows without overlap": (
        lambda x, one: F.avg_pool2d(one(F.avg_pool2d(x, 2)), 2),
        [conv(2, 2, (3, 1), padding=(1, 0))],
    ),
    "windows without overlap, and then with": (
        lambda x, one: mean(one(F.avg_pool2d(x, 2))),
        [conv(2, 2)],
    ),
    "windows that overlap, and then nothing": (
        lambda x, one: one(mean(x)),
        [conv(2, 2, (3, 1), padding=(1, 0))],
    ),
    "itself joined, before a depthwise layer": (
        lambda x, one: one(with_its_half(x)).unflatten(1, (2, 2)).sum(1),
        [conv(4, 4, groups=4)],
    ),
    "a sum over channels of windows that overlap": (
        lambda x, one: one(mean(x)).sum(1, keepdim=True),
        [conv(2, 2)],
    ),
}

NOTED = {
    "windows that overlap": (lambda x, one: mean(one(mean(x))), [conv(2, 2)]),
    "windows that overlap around a kernel": (
        lambda x, one: mean(one(mean(x))),
        [conv(2, 1, (1, 3), padding=(0, 1))],
    ),
    "windows that overlap around a depthwise layer": (
        lambda x, one: mean(one(mean(x))),
        [conv(2, 2, groups=2)],
    ),
    "windows that overlap around two layers": (
        lambda x, one, two: mean(two(one(mean(x)))),
        [conv(2, 2), conv(2, 1)],
    ),
    "windows that overlap, and themselves joined": (
        lambda x, one: mean(one(beside_a_part(mean(x)))),
        [conv(3, 2)],
    ),
    "windows that overlap, behind a join": (
        lambda x, one: mean(one(mean(beside_a_part(x)))),
        [conv(3, 2)],
    ),
    "shifted and added": (
        lambda x, one: ((y := one(x + x.roll(1, 3))) + y.roll(1, 3))[..., ::2],
        [conv(2, 2)],
    ),
    "shifted and joined": (
        lambda x, one: mean(one(torch.cat([x, x.roll(1, 3)], 3))),
        [conv(2, 1)],
    ),
    "shifted and written": (
        lambda x, one: mean(one(written_beside(x))),
        [conv(2, 1)],
    ),
    "repeated units": (
        lambda x, one: F.avg_pool2d(one(F.interpolate(x, scale_factor=1.5)), 3),
        [conv(2, 2)],
    ),
    "interpolations": (
        lambda x, one: F.interpolate(
            one(F.interpolate(x, scale_factor=2, mode="bilinear")), size=SIDE, mode="bilinear"
        ),
        [conv(2, 1)],
    ),
    "itself joined, before an activation": (
        lambda x, one: one(with_its_half(x).relu().mean(1, keepdim=True)),
        [conv(1, 1)],
    ),
    "itself joined, before weights of positions": (
        lambda x, one: one(with_its_half(x).flatten(2).transpose(1, 2)).unflatten(2, (2, 2)).sum(2),
        [lambda: nn.Conv1d(SIDE * SIDE, 2, 1, bias=False)],
    ),
    "itself joined, its channels as images": (
        lambda x, one: (
            one(with_its_half(x).flatten(0, 1)[:, None]).view(len(x), 2, 2, SIDE, SIDE).sum(1)
        ),
        [conv(1, 1)],
    ),
}


def written_beside(x):
    """The first column again, before all columns."""
    y = x.new_zeros(len(x), 2, SIDE, SIDE + 1)
    y[:, :, :, 1:] = x
    y[:, :, :, :1] = x[:, :, :, :1]
    return y


def with_its_half(x):
    """The map and, in other channels, a part of its units."""
    return torch.cat([x, x * torch.ones(SIDE, SIDE).tril().to(x)], 1)


@pytest.mark.parametrize("name", [*EXACT, *NOTED])
def test_what_units_share_is_exact_or_noted_behind_random_weights(name):
    """The map is the mean over all weights; where it is not, a note says so."""
    function, makers = {**EXACT, **NOTED}[name]
    net = Net(function, *(make() for make in makers)).double()
    found = measure_skeleton(light_copy(net), (2, SIDE, SIDE))
    exact = expected_map(net)
    error = float(np.abs(found.maps["sensitivity"] - exact.numpy()).max())
    noted = any(n.startswith(NOT_INDEPENDENT) for n in found.notes)
    assert (error > 1e-9, noted) == (name in NOTED, name in NOTED)


class Head(nn.Module):
    """Overlapping windows, random weights, and a function of their map with weights of its own."""

    def __init__(self, function, *layers):
        super().__init__()
        self.stem, self.layers = nn.Conv2d(2, 4, 1), nn.ModuleList(layers)
        self.function = function

    def forward(self, x):
        return self.function(self.stem(mean(x)), *self.layers)


def gate(x, layer):
    return x * layer(x.mean((2, 3), keepdim=True)).sigmoid()


def attention(x, queries, values):
    """Queries are embedded by their place and its neighbour's; values are not."""
    q, v = (layer(x).flatten(2).transpose(1, 2) for layer in (queries, values))
    q = q * torch.ones(SIDE * SIDE, 1).tril().to(x) + q.roll(1, 1)
    return F.scaled_dot_product_attention(q, q, v).transpose(1, 2).view_as(x)


def normalised(x, layer):
    """A map over the root mean square of its own windows."""
    return x + layer(x) / (mean(x) ** 2).mean((2, 3), keepdim=True).sqrt()


def divided(x, layer):
    return x + layer(x) / mean(x)


READ_BY = {
    "a gate": (gate, [conv(4, 4)], False),
    "queries": (attention, [conv(4, 4), conv(4, 4)], False),
    "values": (lambda x, *ls: attention(mean(x), *ls), [conv(4, 4), conv(4, 4)], True),
    "a norm": (normalised, [conv(4, 4)], True),
    "a divisor": (divided, [conv(4, 4)], True),
    "a gate and a sum": (lambda x, one: gate(x, one) + mean(x), [conv(4, 4)], True),
}


@pytest.mark.parametrize("name", READ_BY)
def test_a_mixture_is_noted_only_if_the_map_depends_on_it(name):
    """Gates and the weights of attention are constants; norms and divisors are statistics."""
    function, makers, noted = READ_BY[name]
    net = Head(function, *(make() for make in makers)).double()
    notes = measure_skeleton(light_copy(net), (2, SIDE, SIDE)).notes
    assert any(n.startswith(NOT_INDEPENDENT) for n in notes) == noted
