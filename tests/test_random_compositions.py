"""Random compositions of fixed functions around random weights: what is off has a note."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from random_weights import SIDE, Net, expected_map, mean
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.expected_maps import NOT_INDEPENDENT
from perimetry.suites.structure import measure_skeleton

MOST_TUPLES, MOST_UNITS = 80, 600
"""Products of weights whose coefficients are computed, and units of the result."""


def half(x):
    return x * torch.ones(x.shape[-2:]).tril().to(x)


def turned(x):
    return x[:, list(reversed(range(x.shape[1])))]


def last(function):
    return lambda x: function(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def written(x):
    y = x.new_zeros(*x.shape[:2], x.shape[2] + 1, x.shape[3])
    y[:, :, 1:] = x
    y[:, :, :1] = x[:, :, -1:]
    return y


FUNCTIONS = {
    "mean": mean,
    "its half joined": lambda x: torch.cat([x, half(x)], 1),
    "half of it turned added": lambda x: x + half(turned(x)),
    "a part joined": lambda x: torch.cat([x, x[:, :1]], 1),
    "a part joined last": last(lambda x: torch.cat([x, x[..., :1]], -1)),
    "shifted, added": lambda x: x + x.roll(1, 3),
    "shifted, joined": lambda x: torch.cat([x, x.roll(1, 2)], 1),
    "mean joined": lambda x: torch.cat([x, mean(x)], 1),
    "row joined": lambda x: torch.cat([x, x[:, :, :1]], 2),
    "row written": written,
    "reflected": lambda x: F.pad(x, (1, 0, 0, 0), "reflect"),
    "turned": turned,
    "halves of channels": lambda x: sum(x.chunk(2, 1)),
    "halves of rows": lambda x: x[:, :, : x.shape[2] // 2] + x[:, :, -(x.shape[2] // 2) :],
    "shuffled": lambda x: x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2),
    "sum over groups": lambda x: x.unflatten(1, (2, -1)).sum(1),
    "sum over channels": lambda x: x.sum(1, keepdim=True),
    "mean over channels last": lambda x: x.permute(0, 2, 3, 1).mean(3)[:, None],
    "mean over rows": lambda x: x.mean(2, keepdim=True),
    "mean of two": lambda x: torch.stack([x, x.flip(3)]).mean(0),
    "nearest": lambda x: F.interpolate(x, scale_factor=1.5),
    "pool": lambda x: F.avg_pool2d(x, 2),
    "pool of tokens": lambda x: F.avg_pool1d(x.flatten(2), 3, 1)[:, :, None],
    "pool of channels": lambda x: F.avg_pool1d(
        x.flatten(2).transpose(1, 2), min(2, x.shape[1]), 1
    ).transpose(1, 2)[:, :, None],
    "every second": lambda x: x[..., ::2],
    "activation": lambda x: x.relu(),
    "channels as images": lambda x: x.flatten(0, 1)[:, None],
    "channels twice": lambda x: x.repeat_interleave(2, 1),
    "one channel for all": lambda x: x[:, :1].expand(-1, 2, -1, -1),
    "a filter of channels": lambda x: F.conv2d(x, torch.ones(2, x.shape[1], 1, 1).to(x)),
    "a matrix of channels": lambda x: torch.einsum(
        "bchw,dc->bdhw", x, torch.ones(2, x.shape[1]).to(x)
    ),
}


class OfChannels(nn.Linear):
    """Weights over the channels, which lie last."""

    def forward(self, x):
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


LAYERS = {
    "one tap": lambda x: nn.Conv2d(x.shape[1], 2, 1, bias=False),
    "three taps": lambda x: nn.Conv2d(x.shape[1], 1, (1, 3), padding=(0, 1), bias=False),
    "depthwise": lambda x: nn.Conv2d(x.shape[1], x.shape[1], 1, groups=x.shape[1], bias=False),
    "linear": lambda x: OfChannels(x.shape[1], 2, bias=False),
    "of columns": lambda x: nn.Linear(x.shape[3], 2, bias=False),
}


def composed(seed):
    """A network of one or two random layers, functions before and behind each; None if it fails."""
    rng = np.random.default_rng(seed)
    steps, layers, x = [], [], torch.ones(1, 2, SIDE, SIDE, dtype=torch.float64)
    try:
        for kind in [*rng.choice([*LAYERS], rng.choice([1, 1, 1, 2])), None]:
            for name in rng.choice([*FUNCTIONS], rng.choice([0, 1, 1, 2])):
                steps.append(FUNCTIONS[name])
                x = steps[-1](x)
            if kind is not None:
                steps.append(None)
                layers.append(LAYERS[kind](x).double())
                x = layers[-1](x)
    except (RuntimeError, ValueError, IndexError):
        return None  # sizes that do not fit

    def function(x, *own):
        rest = iter(own)
        for step in steps:
            x = (next(rest) if step is None else step)(x)
        return x

    tuples = np.prod([layer.weight.numel() + 1 for layer in layers])
    return Net(function, *layers) if tuples <= MOST_TUPLES and 0 < x.numel() <= MOST_UNITS else None


@pytest.mark.parametrize("first", range(0, 200, 50))
def test_a_map_that_is_off_has_a_note(first):
    """Of fifty networks each, those without a note have the mean squared Jacobian."""
    compared = 0
    for seed in range(first, first + 50):
        net = composed(seed)
        try:
            found = None if net is None else measure_skeleton(light_copy(net), (2, SIDE, SIDE))
        except NotApplicableError:
            continue
        if found is None or any(n.startswith(NOT_INDEPENDENT) for n in found.notes):
            continue
        exact = expected_map(net)
        np.testing.assert_allclose(found.maps["sensitivity"], exact, rtol=1e-6, atol=1e-6)
        compared += 1
    assert compared > 10
