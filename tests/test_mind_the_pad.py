"""Mind the Pad: odd kernels are symmetric at 32a + 1; with kernel padding, at 32a."""

import pytest
import timm
import torch
from bias_tools import measure, values
from torch import nn
from validation.nets import linear_resnet50

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.padding.suite import PaddingSuite


def toy(side, treated=False):
    spec = InputSpec(side, side, channels=1, mean=(0.0,), std=(1.0,))
    return wrap(linear_resnet50(treated=treated), spec=spec, device="cpu")


def lean_of_plain(model, suite=None):
    found = values(measure(model, suite or PaddingSuite(grid=2, exchange=()), count=1))
    return found["constant_left_right"], found["constant_top_bottom"]


@pytest.mark.parametrize("multiple", [3, 7])
def test_odd_kernels_are_symmetric_at_32a_plus_1_and_not_at_32a(multiple):
    """Five stride-2 stages of odd kernels respond symmetrically at side 32a + 1, not at 32a."""
    assert max(lean_of_plain(toy(32 * multiple + 1))) < 1e-6
    assert min(lean_of_plain(toy(32 * multiple))) > 1e-3


@pytest.mark.parametrize("multiple", [3, 7])
def test_with_kernel_padding_it_is_the_reverse(multiple):
    """Kernel padding makes the same network symmetric at side 32a and not at 32a + 1."""
    assert max(lean_of_plain(toy(32 * multiple, treated=True))) < 1e-6
    assert min(lean_of_plain(toy(32 * multiple + 1, treated=True))) > 1e-3


def mirrored():
    """A real ResNet-18 whose kernels are made mirror-symmetric, rows and columns."""
    torch.manual_seed(0)
    net = timm.create_model("resnet18")
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                w = layer.weight
                layer.weight.copy_((w + w.flip(2) + w.flip(3) + w.flip(2, 3)) / 4)
    return net


@pytest.mark.parametrize(("fill", "even", "odd"), [("none", 97, 96), ("box", 96, 97)])
def test_a_resnet18_of_symmetric_kernels_is_symmetric_where_its_padding_is_even(fill, even, odd):
    """With mirror-symmetric kernels the bias vanishes exactly at sizes with even padding."""
    net = mirrored()
    for side, symmetric in ((even, True), (odd, False)):
        model = wrap(net, spec=InputSpec(side, side), device="cpu")
        model = model if fill == "none" else model.padded(fill)
        found = measure(model, PaddingSuite(grid=2, exchange=()), count=1)
        lean = max(found.metrics[f"constant_{a}"].value for a in ("left_right", "top_bottom"))
        assert lean < 1e-5 if symmetric else lean > 1e-3
        assert found.metrics["filter_left_right"].value == pytest.approx(0, abs=1e-9)
        # Kernel padding reads every padded row, but pads one side more at odd sizes.
        assert (found.metrics["uneven_layers"].value == 0) is (symmetric or fill == "box")
