"""What has no rule in `structure` is refused by name, never run as it is."""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import SIDE, Apply
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.structure import measure_skeleton

REFUSED = {
    "fft_fft2": lambda x: torch.fft.fft2(x).real,
    "sort": lambda x: x.sort(-1)[0],
    "topk": lambda x: x.flatten(2).topk(144)[0].view_as(x),
    "cumprod": lambda x: x.cumprod(-1),
    "cummax": lambda x: x.cummax(-1)[0],
    "gt": lambda x: x * (x > 0),
    "sin": torch.sin,
    "erf": torch.erf,
    "grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "scatter": lambda x: torch.zeros_like(x).scatter(3, torch.zeros(x.shape).long(), x),
    "max_pool2d": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 3, 3, 1),
    "div": lambda x: torch.div(x, 3, rounding_mode="floor"),
    "to": lambda x: x.to(torch.int32).to(x.dtype) + x,
    "type": lambda x: x.type(torch.int32).to(x.dtype) + x,
    "bucketize": lambda x: torch.bucketize(x, torch.arange(4.0).double()).double() + x,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_a_rule_is_refused_by_name_and_layer(name):
    """It is never run as it is: the reason names the operation, and the layer it is in."""

    class Layer(nn.Module):
        def forward(self, x):
            return REFUSED[name](x)

    net = Apply(lambda x, layer: layer(x), layer=Layer())
    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert "modules_.layer" in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lstm", nn.LSTM(6, 6, batch_first=True)),
        ("gru", nn.GRU(6, 6, batch_first=True)),
        ("rnn_tanh", nn.RNN(6, 6, batch_first=True)),
    ],
)
def test_a_sequence_model_is_refused_by_name(name, layer):
    """Recurrent layers over the tokens of a map have no rule."""
    net = Apply(
        lambda x, layer: layer(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).view_as(x),
        layer=layer,
    )
    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert name in str(error.value)


class Squared(torch.autograd.Function):
    """A function whose insides the trace cannot follow."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_what_runs_outside_torch_s_functions_is_refused():
    """A custom autograd function, and an operator called by its overload, are not run as is."""
    for function in (Squared.apply, lambda x: torch.ops.aten.cumprod.default(x, 3) + x):
        with pytest.raises(NotApplicableError):
            measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))


def test_what_is_computed_again_in_the_backward_pass_is_refused():
    """The forward of a checkpoint runs twice, the second time where no energy is followed."""

    def function(x):
        again = torch.utils.checkpoint.checkpoint
        return again(lambda y: y.roll(1, 2) + y[:, :, :1], x, use_reentrant=False)

    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))
    assert "checkpoint" in str(error.value)


def test_a_tensor_whose_view_was_changed_in_place_is_refused():
    """Energies share no storage: a change of a view would be lost without a word."""

    def function(x):
        y = x.clone()
        y.flatten(2)[..., :6].mul_(0)
        return y

    with pytest.raises(NotApplicableError):
        measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))


class Kept(nn.Module):
    """A network that keeps what it computed by the value of `key`, and adds it."""

    def __init__(self, key):
        super().__init__()
        self.key, self.kept, self.layer = key, {}, nn.Conv2d(3, 3, 3, 2, 1)

    def forward(self, x):
        y = self.layer(x)
        return y + self.kept.setdefault(self.key(x), y)


def test_a_tensor_that_the_network_keeps_from_an_earlier_pass_is_refused():
    """Its energies are those of another image; what a pass keeps for itself counts."""
    with pytest.raises(NotApplicableError, match="earlier pass"):
        measure_skeleton(light_copy(Kept(lambda _: 0)), (3, SIDE, SIDE))
    images = []
    measure_skeleton(light_copy(Kept(lambda x: (images.append(x), id(x))[1])), (3, SIDE, SIDE))


def test_a_target_that_is_kept_from_an_earlier_pass_is_refused():
    """Nothing of the image of the pass at hand reaches it."""
    kept = []

    class Once(nn.Conv2d):
        def forward(self, x):
            kept.append(super().forward(x))
            return kept[0]

    with pytest.raises(NotApplicableError, match="earlier"):
        measure_skeleton(light_copy(Once(3, 3, 2, 2)), (3, SIDE, SIDE))
