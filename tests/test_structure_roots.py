"""Norms and softmaxes written out in other forms and layouts; norms of joined maps; slopes."""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply
from test_structure_products import expected, measured, profile
from torch import nn

from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 16


def by_hand(x, square, axis):
    return x * torch.rsqrt(square(x).mean(axis, keepdim=True) + 1e-6)


NORMS = {
    "a power": lambda x: by_hand(x, lambda t: t.pow(2), 1),
    "an operator": lambda x: by_hand(x, lambda t: t**2, 1),
    "a square": lambda x: by_hand(x, torch.square, 1),
    "a product": lambda x: by_hand(x, lambda t: t * t, 1),
    "channels last": lambda x: by_hand(x.movedim(1, 3), torch.square, 3).movedim(3, 1),
    "a quotient": lambda x: x / torch.sqrt(x.pow(2).mean(1, keepdim=True) + 1e-6),
    "a power of one half": lambda x: x / (x.pow(2).mean(1, keepdim=True) + 1e-6) ** 0.5,
    "powers by name": lambda x: (
        x / torch.pow(x.pow(exponent=2).mean(1, keepdim=True) + 1e-6, exponent=0.5)
    ),
    "powers in place": lambda x: x / (x.clone().pow_(2).mean(1, keepdim=True) + 1e-6).__ipow__(0.5),
    "powers of doubles": lambda x: (
        x * torch.float_power(x.float_power(2).mean(1, keepdim=True) + 1e-6, -0.5).float()
    ),
    "a sum": lambda x: x.shape[1] ** 0.5 * x / x.pow(2).sum(1, keepdim=True).sqrt(),
    "moved before the root": lambda x: (
        x * x.square().movedim(1, 3).mean(3).add(1e-6).rsqrt().unsqueeze(1)
    ),
    "torch's norm": lambda x: x / x.norm(2, 1, True) * 8**0.5,
    "torch's norm of vectors": lambda x: (
        x / torch.linalg.vector_norm(x, 2, [1], True).clamp_min(1e-9).expand_as(x) * 8**0.5
    ),
    "a bound": lambda x: x / (x * x).mean(1, keepdim=True).clamp(min=1e-9).sqrt(),
}


@pytest.mark.parametrize("activation", [F.relu, F.gelu, lambda x: x], ids=["ReLU", "GELU", "none"])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS.keys())
def test_a_norm_by_squares_is_the_same_in_every_form(norm, activation):
    """Squares of rectified units, and products, stayed activations: 0.002 for 0.55."""
    found, _ = expected(lambda a, b: a + norm(activation(b)))
    wanted, _ = expected(lambda a, b: a + F.normalize(activation(b), dim=1) * 8**0.5)
    assert found / found.mean() == pytest.approx(wanted / wanted.mean(), rel=1e-6)


def test_a_square_of_rectified_units_is_still_an_activation():
    """It is a statistic under a root alone."""
    function = lambda a, b: a + F.relu(b).square()  # noqa: E731 - three times the same
    found, _ = expected(function)
    assert profile(found / found.mean()) == pytest.approx(profile(measured(function)), abs=0.06)


def centred(x, variance, mean):
    return (x - mean) * torch.rsqrt(variance + 1e-6)


STATISTICS = {
    "apart": lambda x: centred(x, x.var(1, keepdim=True), x.mean(1, keepdim=True)),
    "at once": lambda x: centred(x, *torch.var_mean(x, 1, keepdim=True)),
    "by place": lambda x: centred(x, *torch.var_mean(x, (1,), False, True)),
    "as deviation": lambda x: (lambda s, m: centred(x, s**2, m))(
        *torch.std_mean(x, 1, keepdim=True)
    ),
}


@pytest.mark.parametrize("norm", STATISTICS.values(), ids=STATISTICS.keys())
def test_a_mean_of_activations_that_is_taken_off_has_a_note_in_every_form(norm):
    """`var_mean` had none: 0.50 for 0.63."""
    net = Apply(lambda x, other: other(x) + norm(F.relu(x)), other=nn.Conv2d(6, 6, 1))
    notes = measure_skeleton(light_copy(net.eval()), (3, SIDE, SIDE)).notes
    assert any("means of activations are as small" in note for note in notes)


def test_units_are_normalised_over_several_axes():
    """Torch takes a tuple of axes."""
    found, _ = expected(lambda a, b: F.normalize(a, dim=(2, 3)) + F.normalize(b, dim=(2, 3)))
    wanted, _ = expected(lambda a, b: F.instance_norm(a) + F.instance_norm(b))
    assert found / found.mean() == pytest.approx(wanted / wanted.mean(), rel=1e-6)


@pytest.mark.parametrize("slope", [0.3, 0.9])
@pytest.mark.parametrize("form", ["leaky", "random"])
def test_the_slope_of_a_leaky_rectifier_counts(slope, form):
    """The share of the other half that it passes: 0.95 for 0.67 at a slope of 0.9."""

    def function(a, b):
        leaky = F.leaky_relu(b, slope) if form == "leaky" else F.rrelu(b, slope - 0.1, slope + 0.1)
        return a + leaky

    found, _ = expected(function)
    assert profile(found / found.mean()) == pytest.approx(profile(measured(function)), abs=0.05)


@pytest.mark.parametrize("slope", [0, 0.3, 0.9])
def test_a_leaky_rectifier_leaves_less_constant_than_a_rectifier(slope):
    """A norm of each channel behind it takes the constant off."""

    def function(a, b):
        return a + F.instance_norm(F.leaky_relu(b, slope))

    found, wanted = expected(function)[0], measured(function)
    assert profile(found / found.mean()) == pytest.approx(profile(wanted), abs=0.06)


@pytest.mark.parametrize("name", ["exp", "expm1"])
def test_exponentials_have_a_note(name):
    """They count as the identity."""
    net = Apply(lambda x, other: getattr(torch, name)(x) + other(x), other=nn.Conv2d(6, 6, 1))
    notes = measure_skeleton(light_copy(net.eval()), (3, SIDE, SIDE)).notes
    assert any(f"{name!r} passes all of the energy" in note for note in notes)


def test_a_softmax_of_exponentials_has_no_note_of_them():
    """Its weights are constants."""

    def function(x):
        weights = torch.exp(x)
        return x.mean((2, 3), keepdim=True) * (weights / weights.sum(1, keepdim=True))

    notes = measure_skeleton(light_copy(Apply(function).eval()), (3, SIDE, SIDE)).notes
    assert not any("'exp'" in note for note in notes)


JOINED_NORMS = {
    "group": nn.GroupNorm(1, 32),
    "groups": nn.GroupNorm(4, 32),
    "instance": nn.InstanceNorm2d(32),
    "layer": nn.LayerNorm((32, 8, 8)),
    "rows": nn.LayerNorm(8),
}


class Joined(nn.Module):
    """A norm right behind two joined layers."""

    def __init__(self, norm):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 2, 2), nn.Conv2d(3, 16, 2, 2)
        self.norm, self.head = norm, nn.Conv2d(32, 8, 1)

    def forward(self, x):
        return self.head(self.norm(torch.cat([self.a(x), self.b(x)], 1)))


@pytest.mark.parametrize("norm", JOINED_NORMS.values(), ids=JOINED_NORMS.keys())
def test_a_norm_over_the_map_of_joined_layers_reads_all_of_it(norm):
    """Its result had the receptive fields of its argument."""
    net = Joined(norm).eval()
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, :, 4, 4].square().sum(), x)
    columns = int((gradient.abs().sum((0, 1, 2)) > 0).sum())
    found = measure_skeleton(light_copy(net), (3, 16, 16))
    assert columns == 16
    is_global = any("the receptive field is global" in note for note in found.notes)
    assert is_global or found.metrics["receptive_field_columns"].value == columns


PARTS = {
    "an activation": (lambda x, other: torch.cat([other(x), F.relu(x)], 1), True),
    "a pool": (
        lambda x, other: torch.cat([other(x), F.max_pool2d(x, 3, 1, 1)], 1),
        True,
    ),
    "all activations": (lambda x, other: F.relu(torch.cat([other(x), x], 1)), False),
    "layers alone": (lambda x, other: torch.cat([other(x), x], 1), False),
}


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(12), nn.GroupNorm(4, 12)], ids=["batch", "group"])
@pytest.mark.parametrize(("join", "noted"), PARTS.values(), ids=PARTS.keys())
def test_a_norm_of_activations_joined_to_others_has_a_note(join, noted, norm):
    """As in ENet's first block and dense blocks: 0.54 for 0.61."""

    def function(x, other, norm, back):
        return back(norm(join(x, other)))

    modules = {"other": nn.Conv2d(6, 6, 1), "norm": norm, "back": nn.Conv2d(12, 6, 1)}
    notes = measure_skeleton(light_copy(Apply(function, **modules).eval()), (3, SIDE, SIDE)).notes
    assert any("have like means and variances" in note for note in notes) == noted


class Windows(nn.Module):
    """Attention over windows of 4 x 4 of a map that is padded with zeros, in two forms."""

    def __init__(self, *, written):
        super().__init__()
        self.read, self.written = nn.Linear(6, 18), written

    def forward(self, x):
        size = x.shape[2]
        x = F.pad(x.movedim(1, 3), (0, 0, 0, -size % 4, 0, -size % 4))
        count = x.shape[1] // 4
        parts = x.unflatten(1, (count, 4)).unflatten(3, (count, 4)).transpose(2, 3)
        query, key, value = self.read(parts.reshape(-1, 16, 6)).chunk(3, -1)
        if self.written:
            out = (query @ key.mT / 6**0.5).softmax(-1) @ value
        else:
            out = F.scaled_dot_product_attention(query, key, value)
        out = out.view(parts.shape).transpose(2, 3).flatten(1, 2).flatten(2, 3)
        return out[:, :size, :size].movedim(3, 1)


def in_windows(x, windows):
    return windows(x)


def test_attention_reads_keys_that_are_zero_in_every_form():
    """A softmax took zeros of padding for a mask, which turned the border around."""
    maps = [
        energy_map(light_copy(Apply(in_windows, patch=2, windows=form).eval()), (3, 20, 20))[0]
        for form in (Windows(written=True), Windows(written=False))
    ]
    assert maps[0] == pytest.approx(maps[1])


def test_a_mask_still_excludes_keys_of_a_written_softmax():
    """By any function that takes the energy of logits."""
    near = torch.ones(16, 16).tril().bool()

    def attention(exclude):
        def function(x):
            tokens = x.flatten(2).transpose(1, 2)
            weights = exclude(tokens @ tokens.mT).softmax(-1)
            return (weights @ tokens).transpose(1, 2).view_as(x)

        return energy_map(light_copy(Apply(function).eval()), (3, SIDE, SIDE))[0]

    def written(logits):
        logits = logits.clone()
        logits[:, ~near] = float("-inf")
        return logits

    by_fill = attention(lambda logits: logits.masked_fill(~near, float("-inf")))
    assert attention(lambda logits: logits) != pytest.approx(by_fill)
    for exclude in (
        lambda logits: torch.where(near, logits, float("-inf")),
        lambda logits: logits + torch.zeros(16, 16).masked_fill(~near, -1e9),
        written,
    ):
        assert attention(exclude) == pytest.approx(by_fill)
