"""Kernel padding of layers whose weight is computed from other parameters, and of none it can grow.

A weight under weight norm is padded as it is computed: the layer does what a plain one with the
same weight does.
"""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

from perimetry import audit
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module
from perimetry.adapters.treatment import UNTOUCHED, PaddingOptions

X = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


class Centred(nn.Module):
    def forward(self, weight):
        return weight - weight.mean((1, 2, 3), keepdim=True)


def centred(layer):
    parametrize.register_parametrization(layer, "weight", Centred())
    return layer


def pruned(layer):
    prune.random_unstructured(layer, "weight", 0.25)
    return layer


KINDS = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "parametrized weight norm": parametrizations.weight_norm,
    "parametrized spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "own parametrization": centred,
    "pruned": pruned,
}

pytestmark = pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning")


def network(make=lambda layer: layer):
    torch.manual_seed(0)
    return nn.Sequential(
        make(nn.Conv2d(3, 6, 3, stride=2, padding=1)),
        nn.ReLU(),
        nn.Conv2d(6, 6, 3, stride=2, padding=1),
        make(nn.ConvTranspose2d(6, 4, 3, stride=2, padding=1)),
    ).eval()


def plain(given):
    """The network with the computed weights as plain ones."""
    made = network()
    given(X)
    with torch.no_grad():
        for own, other in zip(made, given, strict=True):
            if not isinstance(own, nn.ReLU):
                own.weight.copy_(other.weight)
                own.bias.copy_(other.bias)
    return made


@pytest.mark.parametrize("fill", ["zero", "box", "kim2023"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_computed_weight_is_padded_like_the_same_plain_one(kind, fill):
    """The same layers grow and the outputs are those of plain layers with these weights."""
    given, other = network(KINDS[kind]), plain(network(KINDS[kind]))
    done, wanted = pad_module(given, fill, X), pad_module(other, fill, X)
    assert done.layers == wanted.layers
    assert done.refused_layers == wanted.refused_layers
    torch.testing.assert_close(given(X), other(X), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_zero_keeps_the_function_and_its_new_taps_can_be_trained(kind):
    """The output stays, and new taps next to the computed weight have gradients."""
    given = network(KINDS[kind])
    before = given(X)
    pad_module(given, "zero", X)
    torch.testing.assert_close(given(X), before, rtol=1e-4, atol=1e-5)
    given(X).square().sum().backward()
    assert all(given[i].weight_rows.grad.abs().max() > 0 for i in (0, 3))
    assert all(given[i].weight_columns.grad.abs().max() > 0 for i in (0, 3))


@pytest.mark.parametrize("kind", ["weight_norm", "parametrized weight norm"])
@pytest.mark.parametrize("fill", ["zero", "kim2023", "fit", "box", "fresh"])
def test_no_phase_stays_weak_behind_a_normed_layer(kind, fill):
    """`structure` finds all phases alike with every fill, as without the norm."""
    given = network(KINDS[kind])[:3]
    (record,) = audit(given, ("structure",), (fill,), size=(64, 64), count=2, device="cpu")
    assert record.metrics["weakest"].value == pytest.approx(1.0, abs=1e-6)
    assert not any("left by kernel padding" in note for note in record.notes)


def test_fit_leaves_taps_of_computed_weights_at_zero_and_says_so():
    """A weight that is no parameter cannot be moved: the layer is named among those left at 0."""
    model = load(network(weight_norm), size=(32, 32), device="cpu")
    done = model.padded("fit", PaddingOptions(images=torch.rand(4, 3, 32, 32)))
    module = done.module()
    assert not module[0].weight_rows.any()
    assert any("left at 0" in note and "0, 3" in note for note in done.notes)


class Functional(nn.Module):
    """Kernels in a list: the first is computed from the input, the second is a list's parameter."""

    def __init__(self):
        super().__init__()
        self.kernels = nn.ParameterList([torch.ones(4, 3, 3, 3), torch.ones(4, 4, 3, 3)])

    def forward(self, x):
        x = F.conv2d(x, self.kernels[0] * x.mean(), stride=2, padding=1)
        return F.conv2d(x, self.kernels[1], stride=2, padding=1)


@pytest.mark.parametrize(
    ("module", "fill", "name", "reason"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), Functional()), "zero", "1", "computed kernel"),
        (
            nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 2, dilation=2)),
            "box",
            "1",
            "dilation",
        ),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.MaxPool2d(3, 2)), "zero", "1", "maximum"),
    ],
)
def test_an_uneven_kernel_that_stays_is_named_in_a_note(module, fill, name, reason):
    """Among the notes of the padded model, with the reason."""
    if isinstance(module[1], Functional):
        module[0] = nn.Conv2d(3, 3, 3, 2, 1)
    model = load(module.eval(), size=(64, 64), device="cpu").padded(fill)
    (note,) = (n for n in model.notes if n.startswith(f"left by kernel padding {fill!r}"))
    assert f"{name} (" in note
    assert reason in note


def test_a_network_of_which_nothing_grew_has_the_reasons_with_the_note():
    """Not as one without uneven kernels, which has the note alone."""
    model = load(Functional().eval(), size=(64, 64), device="cpu").padded("zero")
    (note,) = (n for n in model.notes if n.startswith(UNTOUCHED))
    assert "computed kernel" in note
    even = load(nn.Sequential(nn.Conv2d(3, 4, 4, 2, 1)).eval(), size=(64, 64), device="cpu")
    assert UNTOUCHED in even.padded("zero").notes
