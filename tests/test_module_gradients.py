"""The gradient of a foreign module is checked against what it computes, before it is used."""

import pytest
import torch
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import NO_GRADIENTS
from perimetry.adapters.pytorch import derivative
from perimetry.adapters.pytorch.model import wrap

SIZE = (32, 32)
HOLE = slice(8, 12), slice(18, 23)


class Net(nn.Module):
    """Two convolutions behind `first`, which has the image and the features of it."""

    def __init__(self, first=lambda x, _features: x):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 3, 2, 1)
        self.first = first

    def features(self, x):
        return self.b(self.a(x).relu())

    def forward(self, x):
        return self.features(self.first(x, self.features)).mean((2, 3))


def hole_detached(x, _):
    """The image, of which a part has no gradient."""
    y = x.clone()
    y[:, :, *HOLE] = x.detach()[:, :, *HOLE]
    return y


class Blanked(torch.autograd.Function):
    """The image without a part, with a backward pass that knows nothing of it."""

    @staticmethod
    def forward(_ctx, x):
        y = x.clone()
        y[:, :, *HOLE] = 0
        return y

    @staticmethod
    def backward(_ctx, gradient):
        return gradient


class Rounded(torch.autograd.Function):
    """Sixteen levels for each unit, straight through."""

    @staticmethod
    def forward(_ctx, x):
        return (16 * x).round() / 16

    @staticmethod
    def backward(_ctx, gradient):
        return gradient


class NoGradBranch(Net):
    """Half of the map is computed a second time, without a gradient."""

    def features(self, x):
        with torch.no_grad():
            beside = super().features(x.flip(3))
        return super().features(x) + beside


def blanked(x, _):
    return Blanked.apply(x)


@pytest.mark.parametrize("net", [Net(hole_detached), Net(blanked), NoGradBranch()])
def test_a_gradient_that_is_not_the_derivative_is_not_used(net):
    """What is detached seemed dead, and what is blanked alive: forward passes are used instead."""
    found = {(r.suite, r.protocol): r for r in audit(net, ("deadpixel",), size=SIZE, count=2)}
    record = found["deadpixel", "energy"]
    assert record.status == "skipped"
    assert record.reason.startswith(f"{NO_GRADIENTS}the gradient is not the derivative")
    assert found["perturbation", "forward"].status == "ok"


def test_gradients_through_rounding_are_used_with_a_note():
    """Such networks are trained with them, and have no other."""
    net = Net(lambda x, _: Rounded.apply(x))
    (record,) = audit(net, ("deadpixel",), size=SIZE, count=2)
    assert record.status == "ok"
    assert derivative.STRAIGHT_THROUGH in record.notes


def in_single_precision(x, _):
    return (x.float().exp() / 3).to(x.dtype)


def by_chance(x, _):
    return x * (1 + 0.1 * torch.rand(1))


@pytest.mark.parametrize(
    "first", [lambda x, _: x.exp(), in_single_precision, by_chance, lambda x, _: x.clamp(0, 1)]
)
def test_right_gradients_and_what_cannot_be_judged_are_left_alone(first):
    """Parts in single precision, random numbers and kinks are no wrong gradients."""
    model = wrap(Net(first), size=SIZE)
    assert model.why_no_gradients is None
    assert derivative.STRAIGHT_THROUGH not in model.notes


def test_the_error_of_a_gradient_is_that_of_its_entries():
    """Relative L2 of what is left out of a linear function, whose gradient is known."""
    weight = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)).double()
    left_out = torch.zeros_like(weight)
    left_out[..., :4] = weight[..., :4]
    exact = float(left_out.norm() / (weight - left_out).norm())
    x = torch.ones_like(weight)

    def f(x):
        return (x * (weight - left_out)).sum() + (x.detach() * left_out).sum()

    said = derivative.gradient_fault(f, x)
    assert said.startswith("the gradient is not the derivative")
    (error,) = (float(word) for word in said.split() if word.startswith("0."))
    assert 0.3 * exact < error < 2 * exact  # four directions
    assert derivative.gradient_fault(lambda x: (x * weight).sum(), x) is None
