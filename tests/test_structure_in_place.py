"""`structure` of what is changed in place: parts, views, and masks that are written."""

import gc

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply, Between, squared_jacobian
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, output_map
from perimetry.suites.structure import measure_skeleton

SIDE = 8
MASK = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


def part_of_zeros(x):
    y = x.new_zeros(x.shape)
    y[:, :, :3].add_(x[:, :, 5:])
    return x.roll(1, 3) + y


def part_added(x):
    y = torch.zeros_like(x)
    part = y[:, :, :3]
    part += x[:, :, 5:]
    return y


def part_of_a_map(x):
    y = x * MASK
    y[:, :, 2:5].add_(y[:, :, 5:])
    return y


def places_written(x):
    y = x.clone()
    y[:, :, torch.tensor([0, 3])] = 2 * x[:, :, 5:7]
    return y


def zeroed(x):
    y = x * MASK
    y[..., :2].zero_()
    return y


def turned(x):
    y = x * MASK
    y.transpose_(2, 3)
    return y[:, :, :5]


EXACT = {
    f.__name__: f
    for f in (part_of_zeros, part_added, part_of_a_map, places_written, zeroed, turned)
}


@pytest.mark.parametrize("name", EXACT)
def test_what_is_written_in_place_counts(name):
    """The map is that of autograd's Jacobian."""
    found = measure_skeleton(light_copy(Between(EXACT[name])), (3, SIDE, SIDE))
    expected = squared_jacobian(EXACT[name], 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-6, atol=1e-9)


SAME = {
    "contiguous": lambda x: x.contiguous(),
    "to its own type": lambda x: x.to(x.dtype),
    "to another's type": lambda x: x.type_as(x),
    "to the device": lambda x: x.to("cpu"),
    "cpu": lambda x: x.cpu(),
    "plus": lambda x: +x,
    "dropout": lambda x: F.dropout(x, 0.5, training=False),
    "dropout of channels": lambda x: F.dropout2d(x, 0.5, False),
}
COPIES = {
    "clone": lambda x: x.clone(),
    "a copy of its own type": lambda x: x.to(x.dtype, copy=True),
    "minus": lambda x: x.neg().neg(),
    "channels last": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "another order": lambda x: x.contiguous(memory_format=torch.channels_last),
}


@pytest.mark.parametrize("change", ["product", "written"])
@pytest.mark.parametrize("name", SAME | COPIES)
def test_what_shares_its_entries_with_the_result_changes_with_it(name, change):
    """Torch returns the tensor itself where nothing has to be copied."""

    def function(x):
        x = 2 * x
        y = (SAME | COPIES)[name](x)
        if change == "product":
            y.mul_(MASK)
        else:
            y[:, :, :3] = 0
        return x + x.roll(3, 3)

    found = energy_map(light_copy(Between(function)), (3, SIDE, SIDE))[0]
    expected = squared_jacobian(function, 3, SIDE, SIDE)
    np.testing.assert_allclose(found / found.mean(), expected, rtol=1e-9, atol=1e-12)


LAST = {
    "multiplied": lambda y: y.mul_(MASK),
    "a part is written": lambda y: y[:, :, :5].fill_(0),
    "a part is multiplied": lambda y: y[:, :, :5].mul_(3),
}


@pytest.mark.parametrize("name", LAST)
def test_a_target_that_is_changed_in_place_at_the_end_is_what_it_is_then(name):
    """The network returns the tensor object, whatever was done to it."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            y = self.layer(x)
            LAST[name](y)
            return y

    def literal(x):
        y = 1 * x
        LAST[name](y)
        return y

    found = energy_map(light_copy(Net()), (3, SIDE, SIDE))[0]
    expected = squared_jacobian(literal, 3, SIDE, SIDE)
    np.testing.assert_allclose(found / found.mean(), expected, rtol=1e-6)


def view_of_the_whole(x):
    y = x.clone()
    view = y[:, :, :5]
    y.mul_(MASK)
    return torch.cat([view, y[:, :, 5:]], 2)


def whole_of_a_view(x):
    y = x * MASK
    view = y[:, :, :5]
    view[:, :, :3] = 2 * x[:, :, 5:]
    return y


def other_view(x):
    y = x * MASK
    one, other = y[:, :, :5], y[:, :, 3:8]
    one.mul_(3)
    return other


def reshaped_zeros(x):
    y = torch.zeros_like(x)
    y.view(*x.shape[:2], -1).add_(x.flatten(2))
    return y + x.roll(1, 3)


def part_without_gaps(x):
    y = x * MASK
    y[:, :2].contiguous().mul_(3)
    return y


@pytest.mark.parametrize(
    "function", [view_of_the_whole, whole_of_a_view, other_view, reshaped_zeros, part_without_gaps]
)
def test_a_view_that_another_one_changed_is_refused(function):
    """Energies share no storage: what torch would read there is not known."""
    with pytest.raises(NotApplicableError, match="changed in place"):
        measure_skeleton(light_copy(Between(function)), (3, SIDE, SIDE))


def test_parts_side_by_side_may_be_changed():
    """A chunk that another one is added to leaves that one as it was."""

    def function(x):
        one, other = (x * MASK).chunk(2, 2)
        one.add_(other)
        return torch.cat([one, other], 2)

    def literal(x):
        one, other = (x * MASK).chunk(2, 2)
        return torch.cat([one + other, other], 2)

    found = measure_skeleton(light_copy(Between(function)), (3, SIDE, SIDE))
    expected = squared_jacobian(literal, 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-6)


TOKENS = torch.arange(SIDE * SIDE) // 16
ALLOWED = TOKENS[:, None] == TOKENS  # groups of two rows


def written(logits):
    logits[:, ~ALLOWED] = -1e9
    return logits


MASKED = {
    "written": written,
    "chosen": lambda logits: torch.where(ALLOWED, logits, -torch.inf),
    "chosen among numbers": lambda logits: torch.where(
        ALLOWED, logits, torch.full_like(MASK[:1, :1], -1e9)
    ),
    "filled": lambda logits: logits.masked_fill(~ALLOWED, -1e9),
}


@pytest.mark.parametrize("name", MASKED)
def test_attention_reads_what_its_mask_allows_however_it_is_written(name):
    """A mean over the tokens of two rows each."""

    def function(x):
        tokens = x.flatten(2).mT
        weights = MASKED[name](tokens @ tokens.mT).softmax(-1)
        return (weights @ tokens).mT.unflatten(2, (SIDE, SIDE)) * MASK

    def literal(x):
        groups = x.unflatten(2, (4, 2)).mean((3, 4), keepdim=True)
        return groups.expand(-1, -1, 4, 2, SIDE).flatten(2, 3) * MASK

    found = measure_skeleton(light_copy(Between(function)), (3, SIDE, SIDE))
    expected = squared_jacobian(literal, 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-6)


def scores_written_to(x):
    """Attention with positions that are written into a part of its scores."""
    tokens = x.flatten(2).transpose(1, 2)
    scores = tokens @ tokens.transpose(1, 2)
    scores[:, 1:, 1:] = scores[:, 1:, 1:].reshape(len(x), -1, scores.shape[2] - 1) + x.mean()
    return x + (scores.softmax(-1) @ tokens).transpose(1, 2).view_as(x)


@pytest.mark.parametrize(
    "function", [scores_written_to, lambda x: x.clone().add_(1).relu_() + x.roll(1, 1)]
)
def test_no_tensor_of_a_pass_is_kept_behind_it(function):
    """What is written into a tensor and the tensor keep each other, in autograd and as marks."""
    number = output_map(light_copy(Apply(function).eval()), (3, 32, 32))[1].number
    gc.collect()
    tensors = (o for o in gc.get_objects() if issubclass(type(o), torch.Tensor))
    assert not [t for t in tensors if vars(t).get("in_pass") == number]
