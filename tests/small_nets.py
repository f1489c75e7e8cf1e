"""A small network for comparisons and gates, quick to audit, and copies with planted changes."""

from __future__ import annotations

import torch
from torch import nn

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.execution.settings import RunOptions
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.store import Store

SPEC = InputSpec(48, 48, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
SUITES = ("structure", "erf", "deadpixel")
NAME = "net"
TOOLS = RunOptions(device="cpu", batch=8)
CONVOLUTIONS = (0, 3, 6)
WEIGHTS = (*CONVOLUTIONS, 11)


class Normalise(nn.Module):
    """Normalisation inside the network, as vendors' files have it."""

    def __init__(self, mean, std):
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, x):
        return (x - self.mean) / self.std


def net(seed=0):
    """Three strided convolutions with norms and ReLUs, then a classifier of ten classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = []
        for wide, wider in ((3, 16), (16, 24), (24, 32)):
            norm = nn.BatchNorm2d(wider)
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 1.5)
            layers += [nn.Conv2d(wide, wider, 3, 2, 1), norm, nn.ReLU()]
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
        return nn.Sequential(*layers, *head).eval()


def opened(module, spec=SPEC):
    return wrap(module, name=NAME, spec=spec, device="cpu")


def baseline(folder, module=None, *, spec=SPEC, suites=SUITES, count=8, fills=("none",)):
    """A folder with the records of `module`, by default of `net()`."""
    store = Store(folder)
    model = opened(net() if module is None else module, spec)
    for record in audit(model, suites, fills, count=count, draws=100, device="cpu", batch=8):
        assert record.status == "ok", record.error
        store.put(record)
    write_manifest(store)
    return folder


def perturbed(layer, share=0.01, *, scale=False, seed=1):
    """`net()` with the weights of one layer changed by `share` of their norm, or scaled by it."""
    module = net()
    weight = module[layer].weight
    noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        weight += share * (weight if scale else noise * weight.norm() / noise.norm())
    return module


def mirrored(layer=3, mode="reflect"):
    """`net()` with the zero padding of one convolution exchanged."""
    module = net()
    old = module[layer]
    new = nn.Conv2d(old.in_channels, old.out_channels, 3, 2, 1, padding_mode=mode)
    new.load_state_dict(old.state_dict())
    module[layer] = new
    return module.eval()


def quantised(module=None, bits=8):
    """A copy whose weights were rounded to `bits` bits, one scale a tensor."""
    module = net() if module is None else module
    with torch.no_grad():
        for value in module.parameters():
            if value.ndim > 1:
                step = value.abs().max() / (2 ** (bits - 1) - 1)
                value.copy_((value / step).round() * step)
    return module
