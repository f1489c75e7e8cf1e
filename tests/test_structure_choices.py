"""What a network chooses by values of the image, and norms other than the root of squares."""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import Apply
from test_structure_products import Two, expected, measured, profile
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 16


def token_list(x):
    return x.flatten(2).transpose(1, 2)


def pruned(x, score):
    """The four tokens of the largest scores, in all places."""
    tokens = token_list(x)
    best = score(tokens).softmax(1).topk(4, 1)[1]
    kept = tokens.gather(1, best.expand(-1, -1, 6)).repeat(1, 4, 1)
    return kept.transpose(1, 2).view_as(x)


def ordered(x, score):
    tokens = token_list(x)
    order = score(tokens).softmax(1)[0, :, 0].argsort()
    return tokens[:, order].transpose(1, 2).reshape(x.shape)


def routed(x, score):
    """A unit times whether it is the largest of its place, as of two experts."""
    chosen = score(token_list(x)).sigmoid().argmax(-1)
    return x * (chosen == 0).to(x.dtype).view(1, 1, 4, 4)


def largest_place(x, score):
    tokens = token_list(x)
    best = score(tokens).max(1)[1][..., None]
    return x + tokens.gather(1, best.expand(-1, -1, 6)).transpose(1, 2)[..., None]


def shut(x, score):
    gate = score(token_list(x)).sigmoid().view(1, 1, 4, 4)
    return torch.where(gate > 0.5, x, 0.1 * x)


CHOICES = {
    "tokens with the largest scores": (pruned, "gather", "topk"),
    "tokens by their order": (ordered, "getitem", "argsort"),
    "the largest place": (largest_place, "gather", "max"),
    "one of several": (routed, "mul", "argmax"),
    "a gate that is shut": (shut, "where", "gt"),
    "a gate of steps": (
        lambda x, score: x * (4 * score(token_list(x)).sigmoid()).round().view(1, 1, 4, 4),
        "mul",
        "round",
    ),
}


@pytest.mark.parametrize(("function", "reader", "chooser"), CHOICES.values(), ids=CHOICES.keys())
def test_what_the_image_chooses_is_refused(function, reader, chooser):
    """Gates are constants, so that the first places were chosen, in silence: a hole elsewhere."""
    net = Apply(function, score=nn.Linear(6, 1)).eval()
    reason = f"'{reader}'.*by '{chooser}', which depend on the image"
    with pytest.raises(NotApplicableError, match=reason):
        energy_map(light_copy(net), (3, SIDE, SIDE))


def test_what_the_image_chooses_may_lead_elsewhere():
    """Choices that no unit of the target reads, as of a detector's boxes, are carried out."""

    def function(x, score):
        scores = score(token_list(x)).softmax(1)
        assert scores.topk(4, 1)[1].shape == (1, 4, 1)
        assert (scores > 0.5).sum() >= 0
        assert x.max(1)[1].shape == (1, 4, 4)
        return x

    net = Apply(function, score=nn.Linear(6, 1)).eval()
    found = measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert found.metrics["weakest"].value == pytest.approx(1)


NORMS = {
    "normalised": lambda a, b: F.normalize(a, p=1, dim=1) + b / 8,
    "by its norm": lambda a, b: a / a.norm(1, dim=1, keepdim=True) + b / 8,
    "by its order": lambda a, b: (
        a / torch.linalg.vector_norm(a, ord=1, dim=1, keepdim=True) + b / 8
    ),
    "logarithm of a sum": lambda a, b: torch.logsumexp(a / 4, 1, keepdim=True) + b[:, :1] / 8,
}


@pytest.mark.parametrize("function", NORMS.values(), ids=NORMS.keys())
def test_norms_of_absolute_values_divide_by_their_sum(function):
    """They counted as roots of squares, less than half as large; log-sums as maxima."""
    found, _ = expected(function)
    assert profile(found / found.mean()) == pytest.approx(profile(measured(function)), abs=0.06)


@pytest.mark.parametrize("order", [3, float("inf")])
def test_norms_of_another_order_are_refused(order):
    """Their size was that of the root of squares."""
    with pytest.raises(NotApplicableError, match=r"'norm'.*and not 1 or 2"):
        expected(lambda a, b: a / a.norm(order, dim=1, keepdim=True) + b)


def test_a_mean_of_absolute_values_that_divides_has_a_note():
    """It counts as a mean of units around 0, which is much smaller."""
    net = Two(lambda a, b: a / (a.flip(1).abs().mean(1, keepdim=True) + 1e-6) + b).eval()
    notes = measure_skeleton(light_copy(net), (3, SIDE, SIDE)).notes
    assert any(
        "what 'truediv' divides by" in note or "what 'div' divides" in note for note in notes
    )


@pytest.mark.parametrize("over", [lambda x: x.abs().amax(), lambda x: x.abs().sum()])
def test_units_are_divided_by_a_statistic_of_all_of_them(over):
    """A number without axes was an error of an index."""
    net = Apply(lambda x: x / over(x)).eval()
    found = measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert any("the receptive field is global" in note for note in found.notes)
