"""Networks with a planted gain for each phase, whose answers to small changes are formulas."""

from __future__ import annotations

import torch
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.images import open_images
from perimetry.suites.perturbation.suite import Perturbation

GREY = InputSpec(32, 32, channels=1, mean=(0.5,), std=(0.25,))
GAINS = ((1.0, 2.0), (3.0, 4.0))


def shared(gains=GAINS) -> nn.Conv2d:
    """One unit a cell: the sum over its pixels, each times the gain of its phase."""
    table = torch.tensor(gains)
    conv = nn.Conv2d(1, 1, table.shape, table.shape, bias=False)
    with torch.no_grad():
        conv.weight[0, 0] = table
    return conv


def private(gains=GAINS) -> nn.Conv2d:
    """As many units a cell as it has pixels, each one pixel times the gain of its phase."""
    table = torch.tensor(gains)
    conv = nn.Conv2d(1, table.numel(), table.shape, table.shape, bias=False)
    with torch.no_grad():
        conv.weight.zero_()
        for unit, gain in enumerate(table.flatten()):
            conv.weight[unit, 0].view(-1)[unit] = gain
    return conv


def copying(channels: int) -> nn.Conv2d:
    """A 1 x 1 convolution that returns its input: the identity, as a layer with a feature map."""
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.eye(channels)[..., None, None])
    return conv


def classifier(body: nn.Conv2d) -> nn.Sequential:
    """Two logits, plus and minus the mean over the units of `body`."""
    head = nn.Linear(body.out_channels, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(
            torch.stack([torch.ones(body.out_channels), -torch.ones(body.out_channels)])
        )
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def measure(module, *, spec=GREY, count=4, seed=0, batch=64, sized=None, **settings):
    """What the suite finds in `module`, in double precision on the CPU."""
    model = wrap(module, spec=spec, device="cpu", precision="float64")
    return measure_model(model, count=count, seed=seed, batch=batch, sized=sized, **settings)


def measure_model(model, *, count=4, seed=0, batch=64, sized=None, **settings):
    """What the suite finds in `model` on dead leaves."""
    images = open_images("dead-leaves", count, seed).load(model.spec)
    options = {} if sized is None else {"sized": sized}
    context = Context(images, seed=seed, batch=batch, draws=50, **options)
    return Perturbation(**settings).measure(model, "forward", {}, context)
