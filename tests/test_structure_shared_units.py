"""Units that meet themselves in `structure`: behind maxima and activations, through equal weights.

What adds up in amplitude there is counted as independent. So it has a note, and what only looks
alike has none. What is left out of a sum is refused.
"""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from structure_nets import Apply
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.architecture.windows import LayerWindow
from perimetry.suites.structure import measure_skeleton

SIDE = 24
SMALL = 12


class Alone(nn.Module):
    """A function without weights."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def remarks(net, size=SIDE):
    found = {}
    energy_map(light_copy(net.eval()), (3, size, size), approximate=found)
    return [one.text for one in found]


def average(x):
    return F.avg_pool2d(x, 3, 2, 1)


def windows(x):
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)


SHARED = {
    "largest of windows, mean": lambda x: average(F.max_pool2d(x, 3, 2, 1)),
    "largest of lines": lambda x: average(
        F.max_pool1d(x.flatten(0, 2)[:, None], 3, 2, 1).view(1, 3, SMALL, SMALL // 2)
    ),
    "norms of windows": lambda x: average(F.lp_pool2d(x, 2, 3, 2)),
    "norms of means": lambda x: F.lp_pool2d(average(x), 2, 3, 1),
    "largest along axes of windows": lambda x: average(windows(x).amax((-1, -2))),
    "larger of neighbours": lambda x: average(torch.maximum(x, x.roll(1, -1))),
    "smaller of neighbours": lambda x: F.avg_pool2d(x.clamp(max=x.roll(1, 2)), 3, 1, 1),
    "dilated windows": lambda x: F.avg_pool2d(F.max_pool2d(x, 2, 2, 0, 2), 3, 1, 1),
}


def measured(function):
    """Mean over random maps of the squared Jacobian, summed over all outputs; mean 1."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4000, 3, SMALL, SMALL, generator=generator, dtype=torch.float64)
    total = torch.zeros(SMALL, SMALL, dtype=torch.float64)
    for one in x.split(1000):
        one.requires_grad_()
        outputs = torch.cat([function(image[None]) for image in one]).flatten(1).sum(0)
        for output in outputs:
            (gradient,) = torch.autograd.grad(output, one, retain_graph=True)
            total += (gradient**2).sum((0, 1))
    return (total / total.mean()).numpy()


@pytest.mark.parametrize("name", SHARED)
def test_a_mean_of_maxima_of_windows_that_overlap_has_a_note(name):
    """One unit may be the largest in several windows, which the mean then reads."""
    (noted,) = remarks(Alone(SHARED[name]), SMALL)
    assert " behind " in noted


def test_the_noted_map_differs_and_that_of_windows_apart_does_not():
    """Measured on random maps: with the overlap the map is another, without it is the expected."""
    apart = Alone(lambda x: F.avg_pool2d(F.max_pool2d(x, 2, 2), 3, 2, 1))
    assert remarks(apart, SMALL) == []
    for net, near in ((apart, True), (Alone(SHARED["largest of windows, mean"]), False)):
        found = energy_map(light_copy(net), (3, SMALL, SMALL))[0].numpy()
        off = np.abs(found / found.mean() - measured(net.function)).mean()
        assert (off < 0.03) == near, off


def test_random_weights_between_a_maximum_and_a_mean_leave_the_note():
    """They are the same at all positions; a pool of windows apart needs none."""
    conv = nn.Conv2d(6, 6, 3, padding=1)
    (noted,) = remarks(
        Apply(lambda x, conv: average(F.relu(conv(F.max_pool2d(x, 3, 1, 1)))), conv=conv)
    )
    assert "'avg_pool2d' behind 'max_pool2d'" in noted
    assert remarks(Apply(lambda x, conv: conv(F.max_pool2d(x, 3, 1, 1)), conv=conv)) == []


@pytest.mark.parametrize("stride", range(1, 7))
@pytest.mark.parametrize("dilation", range(1, 5))
@pytest.mark.parametrize("kernel", range(1, 5))
def test_windows_overlap_if_two_read_one_unit(kernel, stride, dilation):
    """Counted over forty windows."""
    read = [{n * stride + t * dilation for t in range(kernel)} for n in range(40)]
    shared = any(a & b for i, a in enumerate(read) for b in read[:i])
    assert LayerWindow(kernel=kernel, stride=stride, dilation=dilation).overlap == shared


MEETING = {
    "a unit and its rectified value": lambda x, other: x + F.relu(x),
    "and a part of it": lambda x, other: x - torch.tanh(other(x)) + F.gelu(x),
    "a unit and the largest around it": lambda x, other: x - F.max_pool2d(x, 3, 1, 1),
    "nested pools": lambda x, other: (
        F.max_pool2d(x, 3, 1, 1) + F.max_pool2d(F.max_pool2d(x, 3, 1, 1), 3, 1, 1)
    ),
    "a unit and a larger one": lambda x, other: x + torch.maximum(x, other(x)),
    "a square": lambda x, other: x * x + other(x),
    "a unit times what is around it": lambda x, other: x * F.avg_pool2d(x, 3, 1, 1),
}

APART = {
    "a residual block": lambda x, other: x + F.relu(other(x)),
    "halves": lambda x, other: torch.cat([a * F.relu(b) for a, b in [x.chunk(2, 1)] * 2], 1),
    "joined pools": lambda x, other: other(
        torch.cat([x[:, :3], F.max_pool2d(x, 3, 1, 1)[:, 3:]], 1)
    ),
    "both signs": lambda x, other: other(torch.cat([F.relu(x), F.relu(-x)], 1)[:, ::2]),
    "gates": lambda x, other: (
        x * other(x).sigmoid() + x * (1 - other(x.mean((2, 3), True)).sigmoid())
    ),
    "linear attention": lambda x, other: (
        F.relu(x[:, :3]) * (x[:, 3:] * x[:, :1].flatten(2).softmax(-1).view_as(x[:, :1]))
        .flatten(2).sum(-1, keepdim=True)[..., None].expand_as(x[:, :3])
    ).repeat(1, 2, 1, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", MEETING)
def test_a_sum_or_product_of_functions_of_one_unit_has_a_note(name):
    """An activation or a maximum passes a share of the amplitude, which adds up."""
    noted = remarks(Apply(MEETING[name], other=nn.Conv2d(6, 6, 3, padding=1)))
    assert len(noted) == 1, noted
    assert "'add' behind" in noted[0] or "'sub' behind" in noted[0] or "'mul' behind" in noted[0]


@pytest.mark.parametrize("name", APART)
def test_functions_of_other_units_have_none(name):
    """Other channels, other weights, gates: what is counted is exact, or a constant."""
    other = nn.Conv2d(6, 6, 3, padding=1)
    assert remarks(Apply(APART[name], other=other)) == []


REPEATED = "weights that are applied more than once are independent each time"


class Loop(nn.Module):
    """One layer again and again, or on several parts."""

    def __init__(self, function, computed=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.layer = nn.Conv2d(6, 6, 3, padding=1)
        self.function = function
        self.computed = computed

    def run(self, x):
        weight = self.layer.weight
        return F.conv2d(x, weight * 2 if self.computed else weight, padding=1)

    def forward(self, x):
        return self.function(self.run, self.stem(x))


@pytest.mark.parametrize("computed", [False, True])
@pytest.mark.parametrize(
    "function",
    [
        lambda layer, x: layer(F.relu(layer(x))),
        lambda layer, x: x + layer(x) + layer(F.relu(layer(x))),
        lambda layer, x: layer(x) + layer(F.avg_pool2d(x, 3, 1, 1)),
        lambda layer, x: torch.cat([layer(x), layer(x.flip(-1)).flip(-1)], 1),
    ],
)
def test_weights_that_are_applied_to_the_same_units_again_are_assumed_to_be_others(
    function, computed
):
    """In a row, beside each other, on parts that overlap; as stored or computed from what is."""
    noted = remarks(Loop(function, computed))
    assert any(text.startswith(REPEATED) for text in noted), noted


@pytest.mark.parametrize(
    "function",
    [
        lambda layer, x: layer(x),
        lambda layer, x: torch.cat([layer(part) for part in x.chunk(2, 2)], 2),
        lambda layer, x: torch.cat([layer(x[..., ::2]), layer(x[..., 1::2])], -1),
    ],
)
def test_weights_that_are_applied_to_other_units_are_not(function):
    """Parts of a map are read through the same weights, but no unit twice."""
    assert remarks(Loop(function)) == []


def test_the_layers_of_one_assumption_are_in_one_note():
    """A loop over three layers is told once."""

    class Blocks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)])

        def forward(self, x):
            for layer in [*self.layers, *self.layers]:
                x = layer(x)
            return x

    notes = measure_skeleton(light_copy(Blocks()), (3, SMALL, SMALL)).notes
    assert notes == [
        f"the expected sensitivity is a guess: it is assumed that {REPEATED} in layers "
        "'layers.0', 'layers.1', 'layers.2', 'layers.3' and 2 more"
    ]


LOST = {
    "square": lambda x: x**2,
    "norm": lambda x: x.norm(dim=1, keepdim=True).expand_as(x),
    "deviation": lambda x: x.std(1, keepdim=True).expand_as(x),
    "root": lambda x: (x.abs() + 1).rsqrt(),
    "square of a mean": lambda x: F.avg_pool2d(x, 3, 1, 1).pow(2),
}


@pytest.mark.parametrize("name", LOST)
@pytest.mark.parametrize(
    "join",
    [
        lambda x, lost: x + lost,
        lambda x, lost: 2 * lost - x,
        lambda x, lost: torch.cat([x[:, :3], lost[:, :3]], 1),
        lambda x, lost: torch.stack([x, lost], 1).sum(1),
    ],
)
def test_a_statistic_in_the_place_of_a_signal_is_refused(name, join):
    """Its energy would be left out of the sum, without a word."""
    net = Apply(lambda x: join(x, LOST[name](x)))
    with pytest.raises(
        NotApplicableError, match="has no energy rule: what it adds passes a square"
    ):
        energy_map(light_copy(net), (3, SIDE, SIDE))


def centred(x):
    return x - x.mean(1, True)


def response(x):
    return x.norm(dim=(2, 3), keepdim=True)


@pytest.mark.parametrize(
    "norm",
    [
        lambda x: centred(x) * (x.var(1, keepdim=True) + 1e-6).rsqrt(),
        lambda x: centred(x) / (centred(x) ** 2).mean(1, True).add(1e-6).sqrt(),
        lambda x: x / (x.pow(2).mean(1, keepdim=True) - x.mean(1, keepdim=True) ** 2 + 1e-6).sqrt(),
        lambda x: x + x * (response(x) / response(x).mean(1, True)),
    ],
)
def test_statistics_in_their_place_are_no_loss(norm):
    """Norms written out, and the response normalisation of ConvNeXt."""
    assert remarks(Apply(norm)) == []


def test_a_gate_that_is_added_is_assumed_to_be_constant():
    """A sigmoid is a gate by definition, whatever it is used for."""
    noted = remarks(Apply(lambda x: x + x.sigmoid()))
    assert noted == ["what 'add' adds of gates alone is constant"]


def test_a_detached_tensor_that_is_added_or_written_is_assumed_to_be_constant():
    """As where a quantisation is passed straight through, or a part of a map is written again."""

    def written(x):
        y = x.clone()
        y[..., :2] = x.detach()[..., :2]
        return y

    for function, name in ((lambda x: x + (2 * x - x).detach(), "add"), (written, "setitem")):
        noted = remarks(Apply(function))
        assert noted == [f"what {name!r} adds of detached tensors alone is constant"]


def test_other_powers_are_assumed_to_pass_all_energy():
    """Their derivatives have no second moment that the energy alone gives."""
    noted = remarks(Apply(lambda x, other: x**3 + other(x), other=nn.Conv2d(6, 6, 1)))
    assert noted == ["the power 3 passes all of the energy"]


@pytest.mark.parametrize(("share", "fraction"), [(3, False), (2, True)])
def test_path_counts_say_whether_they_are_whole_or_rounded(share, fraction):
    """Joined channels count by their mean; only numbers above 2^53 are too large."""

    net = Apply(lambda x: torch.cat([x[:, :share], (x + x + x)[:, share:]], 1))
    told = [n for n in measure_skeleton(light_copy(net), (3, SIDE, SIDE)).notes if "path" in n]
    weighed = "joined layers, gates or means weigh the paths"
    assert told == [f"path counts are no whole numbers: {weighed}"] * fraction


def file(tmp_path, *, joined, named=False):
    """Two convolutions in a row, with a third one beside them or not; perhaps with a known bias."""
    constants = {"w1": weights(4, 3, 3, 3), "w2": weights(4, 4, 3, 3), "w3": weights(4, 3, 1, 1)}
    bias = ["onnx::Conv_7"] if named else []
    nodes = [
        node("Conv", ["image", "w1", *bias], ["a"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["a"], ["b"]),
        node("Conv", ["b", "w2"], ["c"], pads=[1, 1, 1, 1]),
    ]
    if joined:
        nodes.append(node("Conv", ["image", "w3"], ["d"], strides=[2, 2]))
        nodes.append(node("Add", ["c", "d"], ["y"]))
    read = {name for n in nodes for name in n.input}
    constants |= {"onnx::Conv_7": weights(4)}
    kept = {name: value for name, value in constants.items() if name in read}
    proto = model(nodes, kept, dims=[1, 3, 16, 16], outputs=["y" if joined else "c"])
    return open_onnx(save(proto, tmp_path / "m.onnx"), device="cpu")


@pytest.mark.parametrize(
    ("joined", "named", "told"), [(True, False, True), (False, False, False), (True, True, False)]
)
def test_guessed_norms_are_told_where_the_map_depends_on_them(tmp_path, joined, named, told):
    """In a chain they change nothing, and an exporter's names are no guess."""
    opened = file(tmp_path, joined=joined, named=named)
    notes = measure_skeleton(opened.skeleton(), opened.spec.shape).notes
    guess = "batch norms were folded into the convolutions of the file, which names none"
    assert [guess in note for note in notes if "a guess" in note] == [True] * told
