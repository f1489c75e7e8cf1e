"""What `structure` makes of learned scales, of parts of images in the batch, and of activations.

Scales count as ones, whatever is computed from them; a map does not depend on what is computed
beside it; and an activation is the same in whatever way it is written.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from torch import nn

from perimetry import audit
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 24


class Branches(nn.Module):
    """Two branches of unlike fields, what `function` makes of them and of a learned scale."""

    def __init__(self, function, value=0.0, shape=(1,)):
        super().__init__()
        self.wide, self.small = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(3, 6, 1, 2)
        self.last = nn.Conv2d(6, 6, 3, 2, 1)
        self.scale = nn.Parameter(torch.full(shape, value))
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.wide(x), self.small(x), self.scale))


def sensitivity(net, size=SIDE):
    found = energy_map(light_copy(net.eval()), (3, size, size))[0].numpy()
    return found / found.mean()


PLAIN = sensitivity(Branches(lambda a, b, s: a + b))

MIXTURES = {
    "a share and the rest": (lambda a, b, s: s * a + (1 - s) * b, 0.5),
    "one less it": (lambda a, b, s: a + (1 - s) * b, 1.0),
    "lerp": (torch.lerp, 0.3),
    "lerp by a number and a share": (lambda a, b, s: 2 * torch.lerp(a, b, 0.5) * (1 - s), 0.3),
    "a sigmoid": (lambda a, b, s: s.sigmoid() * a + (1 - s.sigmoid()) * b, 0.0),
    "one more": (lambda a, b, s: (1 + s) * a + b, 0.0),
    "an exponential": (lambda a, b, s: s.exp() * a + b, 0.0),
    "parts of a circle": (lambda a, b, s: s * a + torch.sqrt(1 - s**2) * b, 0.7),
    "softplus": (lambda a, b, s: F.softplus(s) * a + b, 1.0),
}


@pytest.mark.parametrize("shape", [(), (1,), (6, 1, 1), (1, 6, 1, 1)])
@pytest.mark.parametrize("name", MIXTURES)
def test_what_is_computed_from_learned_scales_counts_as_one(name, shape):
    """Two branches that are mixed by learned shares have the map of their sum."""
    function, value = MIXTURES[name]
    np.testing.assert_allclose(sensitivity(Branches(function, value, shape)), PLAIN, rtol=1e-9)


def test_a_fixed_number_and_a_fixed_mask_keep_their_values():
    """0.25 of a branch has a sixteenth of the energy; a buffer times a scale is the buffer."""
    less = sensitivity(Branches(lambda a, b, s: a + 0.25 * b))
    mask = torch.full((1, 6, 1, 1), 0.25)
    np.testing.assert_allclose(
        sensitivity(Branches(lambda a, b, s: a + b * (s * mask), 1.0)), less, rtol=1e-9
    )
    assert np.abs(less - PLAIN).max() > 0.1


def test_a_parameter_without_axes_is_no_error():
    """A scale of one number, used or not, leaves the suite as it is (a temperature, a gate)."""
    net = Branches(lambda a, b, s: a + b, shape=()).eval()
    (found,) = audit(wrap(net, device="cpu", size=(SIDE, SIDE)), ("structure",))
    assert found.status == "ok"


class Quarters(nn.Module):
    """A network on the four quarters of an image, as images of a batch in an order of their own."""

    def __init__(self, net, order):
        super().__init__()
        self.net, self.order = net, order

    def forward(self, x):
        quarters = [half for side in x.chunk(2, 2) for half in side.chunk(2, 3)]
        if self.order == "joined":
            out = self.net(torch.cat(quarters)).chunk(4)
        else:
            out = self.net(torch.stack(quarters, 1).flatten(0, 1)).unflatten(0, (-1, 4)).unbind(1)
        return torch.cat([torch.cat(out[:2], 3), torch.cat(out[2:], 3)], 2)


@pytest.mark.parametrize("norm", [nn.Identity(), nn.BatchNorm2d(6)], ids=["plain", "norm"])
@pytest.mark.parametrize("order", ["joined", "images first"])
def test_parts_of_an_image_in_the_batch_are_not_taken_for_other_variants(order, norm):
    """Every quarter has the map of an image of its size, also beside maps of padded layers."""
    layers = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), norm, nn.ReLU(), nn.Conv2d(6, 6, 3, 2, 1))
    net = Quarters(layers, order).eval()
    found = measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    quarter = energy_map(light_copy(layers.eval()), (3, SIDE // 2, SIDE // 2))[0].numpy()
    exact = np.tile(quarter / quarter.mean(), (2, 2))
    np.testing.assert_allclose(found.maps["sensitivity"], exact, rtol=1e-9)
    assert len(found.tables["culprits"]) == 2
    assert all(row["reduction"] > 0.01 for row in found.tables["culprits"])


def in_place(y):
    y = y * 1
    return y.mul_(y.sigmoid())


WRITTEN = {
    "silu": (F.silu, lambda y: y * y.sigmoid()),
    "silu, gate first": (F.silu, lambda y: torch.sigmoid(y) * y),
    "silu in place": (F.silu, in_place),
    "silu of a scaled unit": (lambda y: F.silu(y / 2), lambda y: (y / 2) * (y / 2).sigmoid()),
    "quick gelu": (F.gelu, lambda y: y * torch.sigmoid(1.702 * y)),
    "hard swish": (F.hardswish, lambda y: y * F.relu6(y + 3) / 6),
    "hard swish by a clamp": (F.hardswish, lambda y: y * (torch.clamp(y + 3, 0, 6) / 6)),
    "hard swish by names": (F.hardswish, lambda y: y * (y + 3).clamp(min=0, max=6) * (1 / 6)),
    "hard swish by a gate": (F.hardswish, lambda y: F.hardsigmoid(y) * y),
    "relu by a bound": (F.relu, lambda y: y.clamp(min=0)),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_an_activation_is_the_same_in_any_way_of_writing_it(name):
    """A unit times a gate of itself is an activation, and no gated unit."""
    one, other = (sensitivity(Branches(lambda a, b, s, f=f: f(a) + b)) for f in WRITTEN[name])
    np.testing.assert_allclose(one, other, rtol=1e-9)


@pytest.mark.parametrize(
    ("function", "same"),
    [
        (lambda a, b, s: a * a.flip(-1).sigmoid() + b, lambda a, b, s: a / 2 + b),
        (lambda a, b, s: a * (2 * a + 1).sigmoid() + b, lambda a, b, s: a / 2 + b),
        (lambda a, b, s: (lambda g: a.add_(b) * g)(a.sigmoid()), lambda a, b, s: a + b),
        (lambda a, b, s: a * (a.sigmoid() - 0.25) + b, lambda a, b, s: a / 4 + b),
    ],
)
def test_a_gate_of_other_units_is_no_activation(function, same):
    """It halves the amplitude: of a neighbour, shifted, or of what the unit was before."""
    np.testing.assert_allclose(
        sensitivity(Branches(function)), sensitivity(Branches(same)), rtol=1e-9
    )


def silu_file(tmp_path, written):
    nodes = [
        node("Conv", ["image", "w1"], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["image", "w2"], ["b"], strides=[2, 2]),
        node("Sigmoid", ["a"], ["g"]),
        node("Mul", ["a", "g"], ["s"]) if written else node("HardSwish", ["a"], ["s"]),
        node("Add", ["s", "b"], ["y"]),
    ]
    stored = {"w1": weights(4, 3, 3, 3), "w2": weights(4, 3, 1, 1)}
    proto = model(nodes, stored, dims=[1, 3, SIDE, SIDE], outputs=["y"])
    return open_onnx(save(proto, tmp_path / f"{written}.onnx"), device="cpu")


def test_a_file_has_the_silu_that_its_nodes_write_out(tmp_path):
    """Sigmoid and Mul count as the HardSwish beside them does: half of the energy."""
    maps = [energy_map(silu_file(tmp_path, w).skeleton(), (3, SIDE, SIDE))[0] for w in (1, 0)]
    np.testing.assert_allclose(*maps, rtol=1e-9)


NOT_NEGATIVE = {
    "twice": lambda a, b, s: F.relu(F.relu(a)) + b,
    "bounded": lambda a, b, s: F.relu6(F.relu(a)) + b,
    "clamped": lambda a, b, s: F.relu(a).clamp(0) + b,
    "moved and joined": lambda a, b, s: (
        F.relu(torch.cat([F.relu(a)[:, :2], F.relu(a)[:, 2:]], 1).flip(-1)).flip(-1) + b
    ),
    "of means": lambda a, b, s: F.relu(F.avg_pool2d(F.relu(a), 1)) + b,
    "in place": lambda a, b, s: F.relu(a).relu_() + b,
}


@pytest.mark.parametrize("name", NOT_NEGATIVE)
def test_a_relu_of_what_is_not_negative_passes_all(name):
    """The second one changes nothing."""
    once = sensitivity(Branches(lambda a, b, s: F.relu(a) + b))
    np.testing.assert_allclose(sensitivity(Branches(NOT_NEGATIVE[name])), once, rtol=1e-9)


def test_a_relu_of_what_may_be_negative_halves():
    """Less a constant, times a scale that is learned, behind a norm: all of these may be."""
    twice = sensitivity(Branches(lambda a, b, s: a / 2 + b))
    for function in (
        lambda a, b, s: F.relu(F.relu(a) - 1) + b,
        lambda a, b, s: F.relu(F.relu(a) * s) + b,
        lambda a, b, s: F.relu(-F.relu(a)) + b,
    ):
        np.testing.assert_allclose(sensitivity(Branches(function, 1.0)), twice, rtol=1e-9)


class Computed(nn.Module):
    """Convolutions with weights that `function` computes of those of layers."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Conv2d(3, 6, 3, 2, 1)
        self.factors = nn.Parameter(torch.randn(6, 3, 4))
        self.register_buffer("basis", torch.randn(4, 3, 3))
        self.function = function

    def forward(self, x):
        return self.function(self, x, self.layer.weight)


def convolved(x, weight):
    return F.conv2d(x, weight, None, 2, 1)


def both(y):
    return y[:, :6] + y[:, 6:]


DOUBTS = {
    **{
        name: (lambda s, x, w, f=f: convolved(x, f(w)), f"'{name}' computes have a mean of 0")
        for name, f in {
            "softplus": F.softplus,
            "exp": torch.exp,
            "sigmoid": torch.sigmoid,
            "abs": torch.abs,
            "relu": F.relu,
            "softmax": lambda w: w.softmax(0),
        }.items()
    },
    "einsum": (
        lambda s, x, w: convolved(x, torch.einsum("oik,khw->oihw", s.factors, s.basis)),
        "'einsum' computes are alike",
    ),
    "matmul": (
        lambda s, x, w: convolved(x, (s.factors @ s.basis.flatten(1)).unflatten(2, (3, 3))),
        "'matmul' computes are alike",
    ),
    "a sum over a basis": (
        lambda s, x, w: convolved(x, (s.factors[..., None, None] * s.basis).sum(2)),
        "'sum' computes are independent",
    ),
    "central differences": (
        lambda s, x, w: convolved(x, w) - F.conv2d(x, w.sum((2, 3), keepdim=True), stride=2),
        "applied more than once",
    ),
    "a mean": (
        lambda s, x, w: F.conv2d(x, w.mean((2, 3), keepdim=True), stride=2),
        "'mean' computes have a variance",
    ),
    "joined": (
        lambda s, x, w: both(convolved(x, torch.cat([w, w.flip(-1)]))),
        "that are joined are independent",
    ),
}


@pytest.mark.parametrize("name", DOUBTS)
def test_weights_that_are_computed_in_other_ways_have_a_note(name):
    """Their mean is not 0, their entries are unlike, or they are the same ones again."""
    function, told = DOUBTS[name]
    found = measure_skeleton(light_copy(Computed(function)), (3, SIDE, SIDE))
    (note,) = [n for n in found.notes if "a guess" in n]
    assert told in note


@pytest.mark.parametrize(
    "function",
    [
        lambda w: (w - w.mean((1, 2, 3), True)) / (w.std((1, 2, 3), keepdim=True) + 1e-5),
        lambda w: w / w.norm(),
        lambda w: w.tanh(),
        lambda w: F.normalize(w.flatten(1)).view_as(w),
        lambda w: torch.cat([w[:3], w[3:]]),
        lambda w: torch.stack(w.unbind(0)),
    ],
)
def test_weights_that_are_standardised_or_moved_have_none(function):
    """Independent entries of mean 0 stay alike."""
    found = measure_skeleton(
        light_copy(Computed(lambda s, x, w: convolved(x, function(w)))), (3, SIDE, SIDE)
    )
    assert found.notes == []
