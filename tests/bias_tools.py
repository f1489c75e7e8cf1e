"""What the tests of the padding suite share: planted networks, a quick suite, one measurement."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.padding.suite import PaddingSuite

SPEC = InputSpec(40, 40)
QUICK = PaddingSuite(grid=5, exchange=())


class Planted(nn.Module):
    """Units of 8 x 8 pixels, each the mean of its patch times a planted gain (rows, columns)."""

    def __init__(self, gain):
        super().__init__()
        self.pool = nn.AvgPool2d(8)
        self.gain = nn.Parameter(torch.as_tensor(np.asarray(gain), dtype=torch.float32))

    def forward(self, x):
        return self.pool(x) * self.gain


def ring(border, inner):
    gain = np.full((5, 5), float(border))
    gain[1:-1, 1:-1] = inner
    return gain


def context(model, count=4, **options):
    images = open_images("dead-leaves", count)
    return Context(
        images.load(model.spec),
        draws=20,
        sized=lambda h, w: images.load(replace(model.spec, height=h, width=w)),
        **options,
    )


def measure(model, suite=QUICK, **options):
    return suite.measure(model, "forward", {}, context(model, **options))


def planted(gain, suite=None):
    """With stimuli of a patch each, places and units coincide."""
    model = wrap(Planted(gain), spec=SPEC, device="cpu")
    return measure(model, suite or replace(QUICK, stimulus=8))


def values(found):
    return {name: e.value for name, e in found.metrics.items()}


def approx(expected):
    return pytest.approx(expected, rel=1e-5, abs=1e-6)


class Circular(nn.Sequential):
    """Stride 1 throughout, so that any shift of the input is one of the target."""

    def __init__(self, mode):
        torch.manual_seed(0)
        super().__init__(
            nn.Conv2d(3, 8, 5, 1, 2, padding_mode=mode),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, 1, 1, padding_mode=mode),
        )


def classifier():
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)]
    return nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5))
