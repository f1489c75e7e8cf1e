"""Products of units with gates, with numbers added to units, and with filters of the image's own.

Maps are compared with squared Jacobians of random weights and images, receptive fields with the
support of the gradient.
"""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import field_of
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.measuring.phases import phase_profile
from perimetry.suites.structure import measure_skeleton

SIDE = 16


class Two(nn.Module):
    """A function of two layers of stride 2, of which the second reads its input evenly."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.a = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.b = nn.Conv2d(3, 8, 4, 2, 1, bias=False)

    def forward(self, x):
        return self.function(self.a(x), self.b(x))


def expected(function):
    skeleton = light_copy(Two(function).eval())
    return energy_map(skeleton, (3, SIDE, SIDE))[0].numpy(), path_count_map(
        skeleton, (3, SIDE, SIDE)
    )[0].numpy()


def profile(energy):
    return phase_profile(energy[None], (2, 2))[0]


def measured(function, draws=400):
    """Squared Jacobians (rows, columns), mean over random weights and white images."""
    generator = torch.Generator().manual_seed(0)

    def noise(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    net, total = Two(function).double(), 0
    for _ in range(draws):
        for layer in (net.a, net.b):
            layer.weight.data = noise(*layer.weight.shape) * layer.weight[0].numel() ** -0.5
        x = noise(1, 3, SIDE, SIDE).requires_grad_()
        out = net(x)
        (gradient,) = torch.autograd.grad(out, x, noise(*out.shape))
        total = total + gradient[0].square().sum(0).numpy()
    return total / total.mean()


GATES = {
    "ReLU6": lambda t: F.relu6(t + 3) / 6,
    "in place": lambda t: t.add(3).clamp_(0, 6).div_(6),
    "bounded": lambda t: torch.clamp(t + 3.0, min=0.0, max=6.0) * (1 / 6),
    "hard tanh": lambda t: F.hardtanh(3 + t, 0.0, 6.0) / 6,
    "of another slope": lambda t: 0.5 * (0.4 * t + 1).clamp(0, 2),
    "smallest of a ReLU": lambda t: torch.minimum(F.relu(t + 3), torch.tensor(6.0)) / 6,
    "a sigmoid": lambda t: 1 / (1 + torch.exp(-t)),
    "a sigmoid, scaled": lambda t: t.sigmoid() * 2,
}


@pytest.mark.parametrize("gate", GATES.values(), ids=GATES.keys())
def test_a_gate_that_is_written_out_counts_as_that_gate(gate):
    """Hard sigmoids by ReLU6 were products of independent units, which squeeze-excites half are."""
    found, paths = expected(lambda a, b: a * gate(b))
    wanted, paths_wanted = expected(lambda a, b: a * F.hardsigmoid(b))
    assert found / found.mean() == pytest.approx(wanted / wanted.mean(), rel=1e-9)
    assert (paths == paths_wanted).all()


OFFSETS = {
    "one": lambda a, b: a * (1 + b),
    "two, on the other side": lambda a, b: (b - 2) * a,
    "both": lambda a, b: (1 + a) * (0.5 - b),
    "scaled and moved": lambda a, b: a * ((b + 2) / 4).roll(1, 1),
    "two of three": lambda a, b: (1 + a) * (1 + b) * a.flip(3),
    "two of three, of matrices": lambda a, b: (
        ((a.movedim(1, 3).unsqueeze(3) + 1) @ (b.movedim(1, 3).unsqueeze(4) + 1))[..., 0, 0][
            :, None
        ]
        * a.flip(3)
    ),
    "of ones": lambda a, b: a * (torch.ones_like(b) + b),
    "behind a tanh": lambda a, b: a * (1 + torch.tanh(b)),
    "in a sum of products": lambda a, b: torch.einsum("bchw,bdhw->bchw", a, 1 + b[:, :1]),
    "of matrices": lambda a, b: (
        (a.movedim(1, 3).unsqueeze(4) @ (b[:, :1].movedim(1, 3).unsqueeze(3) + 1))[..., 0]
    ).movedim(3, 1),
    "before a ReLU": lambda a, b: a * F.relu(1 + b),
    "subtracted before a ReLU": lambda a, b: a + F.relu(b - 1),
    "an exponential": lambda a, b: a * torch.exp(b * 0.2),
}


@pytest.mark.parametrize("function", OFFSETS.values(), ids=OFFSETS.keys())
def test_a_number_added_to_units_is_a_path_of_its_own_in_a_product(function):
    """`a (1 + b)` passes a as it is, too; the number vanished, and b counted as much as a."""
    found, _ = expected(function)
    assert profile(found) == pytest.approx(profile(measured(function)), abs=0.06)


def tokens(t):
    """The units of the map `t` (1, channels, rows, columns) as (1, tokens, channels)."""
    return t.flatten(2).transpose(1, 2)


def attention(weights):
    """Attention in which `weights` turns logits (1, tokens, tokens) to weights of tokens."""

    def attended(a, b):
        keys = tokens(b)
        found = weights(keys @ keys.mT) @ tokens(a)
        return found.transpose(1, 2).view_as(a) + b

    return attended


def over_their_sum(s):
    e = torch.exp(s - 1)
    return e / e.sum(-1, keepdim=True)


def over_their_sum_by_index(s):
    e = s.exp()
    return e / (e.sum(2)[..., None] + 1e-6)


def masked(s):
    e = s.exp() * EARLIER
    return e / e.sum(-1, keepdim=True)


def masked_by_filling(s):
    e = s.exp().masked_fill(EARLIER == 0, 0.0)
    return e / e.sum(-1).unsqueeze(-1)


EARLIER = torch.ones(64, 64).tril()
SOFTMAXES = {
    "exponentials over their sum": over_their_sum,
    "sum without its axis": over_their_sum_by_index,
    "exponentials of logarithms": lambda s: F.log_softmax(s, -1).exp(),
    "masked": masked,
    "masked by filling": masked_by_filling,
}


@pytest.mark.parametrize(("name", "weights"), SOFTMAXES.items(), ids=SOFTMAXES.keys())
def test_a_softmax_that_is_written_out_counts_as_a_softmax(name, weights):
    """Exponentials were units like others, and log-softmaxes the probabilities themselves."""
    found, paths = expected(attention(weights))
    left_out = EARLIER == 0 if "masked" in name else torch.zeros(64, 64, dtype=torch.bool)
    softmax = attention(lambda s: s.masked_fill(left_out, float("-inf")).softmax(-1))
    wanted, paths_wanted = expected(softmax)
    assert found == pytest.approx(wanted, rel=1e-9)
    assert name == "masked" or (paths == paths_wanted).all()  # all factors of paths are 1


def normalised_attention(a, b):
    """Linear attention by 1 + elu: its sums of keys are far from 0."""
    queries, keys, values = F.elu(tokens(a)) + 1, F.elu(tokens(a.flip(1))) + 1, tokens(b)
    found = (queries @ (keys.mT @ values)) / (queries @ keys.sum(1)[..., None])
    return found.transpose(1, 2).view_as(a) + a


def test_sums_of_units_with_numbers_added_divide_by_their_sum():
    """Divisors counted as units of mean 0, so that the quotient was ten times too large."""
    found, _ = expected(normalised_attention)
    assert profile(found / found.mean()) == pytest.approx(
        profile(measured(normalised_attention)), abs=0.06
    )


@pytest.mark.parametrize(
    "function",
    [lambda a: a / (1 + a.abs()), lambda a: a / (2 + torch.exp(-a)), lambda a: a + torch.exp(a)],
)
def test_functions_of_one_unit_that_meet_have_a_note(function):
    """In quotients and behind exponentials they were taken for independent in silence."""
    layers = light_copy(Two(lambda a, b: function(a) + b).eval())
    notes = measure_skeleton(layers, (3, SIDE, SIDE)).notes
    assert any("behind a function of the same units" in note for note in notes)


def of_keys_and_values(product):
    """Linear attention: `product` sums keys (1, tokens, channels) times values over the tokens."""

    def attended(a, b):
        found = tokens(a) @ product(F.relu(tokens(a.flip(1))), tokens(b))
        return found.transpose(1, 2).view_as(a) + a

    return attended


PRODUCTS = "products summed over places"
MEAN = "'mul' multiplies by has the mean of the number added to it"
GATES_OF_PLACES = "gates by which 'mul' multiplies places are constants"
AGAIN = "passes half of what an activation returned"
LARGER = "keeps each as often, though an activation made one"
NOTED = {
    "an activation of an activation": (lambda a, b: F.silu(F.elu(a)) + b, AGAIN),
    "of what is not negative": (lambda a, b: F.gelu(F.avg_pool2d(a.relu(), 3, 1, 1)) + b, AGAIN),
    "a bound of an activation": (lambda a, b: F.leaky_relu(a).clamp(min=0) + b, AGAIN),
    "none: a ReLU of a ReLU": (lambda a, b: F.relu(2 * a.relu()) + b, None),
    "none: an activation of a sum": (lambda a, b: F.relu(a.relu() + b), None),
    "none: a tanh of a ReLU": (lambda a, b: a.relu().tanh() + b, None),
    "the larger of a ReLU and another": (lambda a, b: torch.maximum(a.relu(), b), LARGER),
    "the larger of a leaky ReLU and another": (
        lambda a, b: torch.maximum(a, F.leaky_relu(b, 0.1)),
        LARGER,
    ),
    "the larger of a maximum and another": (
        lambda a, b: torch.maximum(a, F.max_pool2d(b, 3, 1, 1)),
        "maxima pass activations",
    ),
    "the larger of a ReLU and another, in a stack": (
        lambda a, b: torch.stack([a.relu(), b], 1).amax(1),
        LARGER.replace("maximum", "amax"),
    ),
    "none: the largest place of each of them": (
        lambda a, b: torch.cat([a.relu(), b], 1).amax((2, 3)),
        None,
    ),
    "none: the larger of two ReLUs": (lambda a, b: torch.maximum(a.relu(), b.relu()), None),
    "keys times values": (of_keys_and_values(lambda k, v: k.mT @ v), PRODUCTS),
    "with letters": (
        of_keys_and_values(lambda k, v: torch.einsum("b n d, b n e -> b d e", k, v)),
        PRODUCTS,
    ),
    "and dots": (of_keys_and_values(lambda k, v: torch.einsum("...nd,...ne", k, v)), PRODUCTS),
    "in a batch": (of_keys_and_values(lambda k, v: torch.bmm(k.mT, v)), PRODUCTS),
    "written by a mean": (
        lambda a, b: a * (a.flip(1) * b).mean((2, 3), keepdim=True) + b,
        PRODUCTS,
    ),
    "none: a mean of channels": (lambda a, b: a * (a.flip(1) * b).mean(1, keepdim=True), None),
    "none: weights of tokens": (attention(lambda s: s / 64), None),
    "none: weights of channels": (
        of_keys_and_values(lambda k, v: (k.mT @ v).softmax(-1)),
        None,
    ),
    "a softplus": (lambda a, b: a * F.softplus(b), MEAN),
    "one plus a size": (lambda a, b: (1 + b.abs()) * a, MEAN),
    "one minus a ReLU": (lambda a, b: a * (1 - F.relu(b)), MEAN),
    "none: a ReLU": (lambda a, b: a * F.relu(b), None),
    "none: one plus a unit": (lambda a, b: a * (1 + b), None),
    "squares": (lambda a, b: a * (b**2 + 1), "squares by which 'mul' multiplies"),
    "squares in a matrix": (
        lambda a, b: a + (tokens(a) @ (b**2)[0, :, 0]).mT.view_as(a),
        "squares by which 'matmul' multiplies",
    ),
    "a maximum": (lambda a, b: a * b.amax((2, 3), keepdim=True), "to which 'mul' joins them"),
    "none: a norm": (lambda a, b: a * b.square().mean(1, keepdim=True).rsqrt(), None),
    "none: both are maxima": (lambda a, b: F.max_pool2d(a, 2) * F.max_pool2d(b, 2), None),
    "gates of places": (lambda a, b: a * b.sigmoid().mean(1, keepdim=True) / 2, GATES_OF_PLACES),
    "gates of tokens": (
        lambda a, b: (tokens(a) * F.hardsigmoid(tokens(b))).mT.view_as(a),
        GATES_OF_PLACES,
    ),
    "gates of places, resized": (
        lambda a, b: a * F.interpolate(F.avg_pool2d(b, 2).sigmoid(), scale_factor=2),
        GATES_OF_PLACES,
    ),
    "none: a mean of gates of places": (
        lambda a, b: a * b.sigmoid().mean((2, 3), keepdim=True),
        None,
    ),
    "a gated linear unit": (lambda a, b: F.glu(a + b, 1), "gates by which 'glu' multiplies places"),
    "none: gates of channels": (lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid(), None),
    "none: gates of channels, expanded": (
        lambda a, b: a * b.mean((2, 3), keepdim=True).sigmoid().expand_as(a),
        None,
    ),
    "none: gates of the units themselves": (lambda a, b: a * a.sigmoid() + b, None),
}


@pytest.mark.parametrize(("function", "note"), NOTED.values(), ids=NOTED.keys())
def test_factors_that_are_no_independent_units_have_a_note(function, note):
    """Squares, which are statistics, lost a path; maxima of many are larger than one unit."""
    notes = measure_skeleton(light_copy(Two(function).eval()), (3, SIDE, SIDE)).notes
    found = [text for text in notes if "it is assumed" in text]
    assert not found if note is None else note in found[0]


def averaged(join):
    """A mean over columns of what joins units (1, channels, 1, 1) to a map, and that map."""

    def function(a, b):
        units = F.silu(a.mean((2, 3), keepdim=True))
        return join(units, b).mean(3, keepdim=True)

    return function


COPIED = {
    "added": averaged(lambda t, b: b + t),
    "added in place": averaged(lambda t, b: b.clone().sub_(t)),
    "times a mask": averaged(lambda t, b: t * torch.ones(1, 1, 8, 8) - b),
    "plus numbers of places": averaged(lambda t, b: b + torch.rsub(torch.zeros(8, 8), t)),
    "masked": averaged(lambda t, b: t.masked_fill(torch.arange(8) > 8, 0.0) - b),
    "expanded": averaged(lambda t, b: t.expand_as(b) + b),
}


@pytest.mark.parametrize("function", COPIED.values(), ids=COPIED.keys())
def test_units_that_broadcasting_copies_have_a_note_where_they_are_averaged(function):
    """A mean of 8 equal units is as large as one of them; in silence it had an eighth."""
    notes = measure_skeleton(light_copy(Two(function).eval()), (3, SIDE, SIDE)).notes
    assert any("'mean' behind 'expand" in text for text in notes)


class Scaled(Two):
    """Units times a mean over the places of others, which `behind` made of a layer's."""

    def __init__(self, behind):
        super().__init__(lambda a, b: a * b.mean((2, 3), keepdim=True) + a.flip(1))
        self.behind = behind

    def forward(self, x):
        return self.function(self.a(x), self.behind(self.b(x)))


BEHIND = {
    "an activation and weights": ([nn.ReLU(), nn.Conv2d(8, 8, 1)], True),
    "and a batch norm": ([nn.ReLU(), nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)], False),
    "and a group norm": ([nn.ReLU(), nn.Conv2d(8, 8, 1), nn.GroupNorm(2, 8)], True),
    "weights alone": ([nn.Conv2d(8, 8, 1)], False),
}


@pytest.mark.parametrize(("layers", "noted"), BEHIND.values(), ids=BEHIND.keys())
def test_means_of_units_that_are_not_around_0_have_a_note_as_factors(layers, noted):
    """Random weights keep the mean of activations over the places, a batch norm takes it off."""
    skeleton = light_copy(Scaled(nn.Sequential(*layers)).eval())
    notes = measure_skeleton(skeleton, (3, SIDE, SIDE)).notes
    assert any("means of activations are as small" in text for text in notes) == noted


def of_channels(t):
    """A number for each of the 8 channels of the map `t` (1, 8, rows, columns)."""
    return t.mean((0, 2, 3))


def along_channels(t):
    return t[:, None, None]


def matrix(t):
    return of_channels(t)[:, None] * of_channels(t.flip(1))


FROM_IMAGE = {
    "scale of a batch norm": (
        lambda a, b: F.batch_norm(a, None, None, of_channels(b), None, True),
        lambda a, b: F.batch_norm(a, None, None, None, None, True) * along_channels(of_channels(b)),
    ),
    "scale of a group norm": (
        lambda a, b: F.group_norm(a, 2, weight=of_channels(b)),
        lambda a, b: F.group_norm(a, 2) * along_channels(of_channels(b)),
    ),
    "scale of a layer norm": (
        lambda a, b: F.layer_norm(a.movedim(1, 3), (8,), of_channels(b)).movedim(3, 1),
        lambda a, b: (F.layer_norm(a.movedim(1, 3), (8,)) * of_channels(b)).movedim(3, 1),
    ),
    "shift of an instance norm": (
        lambda a, b: F.instance_norm(a, bias=of_channels(b)),
        lambda a, b: F.instance_norm(a) + along_channels(of_channels(b)),
    ),
    "bias": (
        lambda a, b: F.conv2d(a, torch.ones(8, 1, 1, 1).to(a), of_channels(b), groups=8),
        lambda a, b: a + along_channels(of_channels(b)),
    ),
    "matrix": (
        lambda a, b: F.linear(a.movedim(1, 3), matrix(b), of_channels(b)).movedim(3, 1),
        lambda a, b: (a.movedim(1, 3) @ matrix(b).mT + of_channels(b)).movedim(3, 1),
    ),
}


@pytest.mark.parametrize(("layer", "written"), FROM_IMAGE.values(), ids=FROM_IMAGE.keys())
def test_what_a_layer_takes_from_the_image_counts_as_if_it_were_written_out(layer, written):
    """Biases, scales and matrices of hyper-networks were passed over, or taken for constants."""
    found, wanted = expected(layer), expected(written)
    assert found[0] / found[0].mean() == pytest.approx(wanted[0] / wanted[0].mean(), rel=1e-9)
    assert (found[1] == wanted[1]).all()
    assert field_of(Two(layer), SIDE).size == field_of(Two(written), SIDE).size
    assert field_of(Two(layer), SIDE).global_


def cross_correlated(a, b):
    """A map correlated, channel by channel, with a part of another (8, 1, 3, 3)."""
    return F.conv2d(a, b[0, :, None, 2:5, 2:5], groups=8)


def test_filters_cut_from_a_map_are_units_of_it():
    """Cross-correlation: filters were fixed numbers, their energies squared, and had no field."""
    found, _ = expected(cross_correlated)
    found, wanted = found / found.mean(), measured(cross_correlated)
    assert found.mean(0) == pytest.approx(wanted.mean(0), abs=0.1)
    assert found.mean(1) == pytest.approx(wanted.mean(1), abs=0.1)
    net = Two(cross_correlated)
    x = torch.rand(1, 3, SIDE, SIDE, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, :, 3, 3].sum(), x)
    read = gradient.abs().sum((0, 1)) > 0
    size = tuple(
        int(side.nonzero().max() - side.nonzero().min()) + 1 for side in (read.any(1), read.any(0))
    )
    assert field_of(net, SIDE).size == size


def test_filters_from_the_image_work_where_layers_are_padded_one_by_one():
    """All maps of a suite are computed in one pass, of which each would need its own filters."""
    net = Two(lambda a, b: F.conv2d(a, of_channels(b).view(8, 1, 1, 1), groups=8))
    found = measure_skeleton(light_copy(net.eval()), (3, SIDE, SIDE))
    assert [row["name"] for row in found.tables["culprits"]] == ["a"]


def test_transposed_filters_from_the_image_are_refused():
    """They have no rule."""
    with pytest.raises(NotApplicableError, match=r"'conv_transpose2d'.*depend on the image"):
        expected(lambda a, b: F.conv_transpose2d(a, b[0, :, None, 2:5, 2:5], groups=8))


def along_each_axis(a, b):
    """Coordinate attention: gates of rows and of columns, from means joined in one line."""
    rows, columns = a.mean(3, keepdim=True), a.mean(2, keepdim=True).transpose(2, 3)
    first, second = torch.cat([rows, columns], 2).split([SIDE // 2, SIDE // 2], 2)
    return a * first.sigmoid() * second.transpose(2, 3).sigmoid()


def test_gates_of_rows_and_columns_leave_the_stride():
    """The joined line was taken for a map of one column, and the stride for a multiple."""

    class Net(Two):
        def forward(self, x):
            return F.max_pool2d(super().forward(x), 2)

    found = measure_skeleton(light_copy(Net(along_each_axis).eval()), (3, SIDE, SIDE))
    assert found.metrics["target_stride"].value == 4
