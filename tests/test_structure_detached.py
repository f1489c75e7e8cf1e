"""What is detached chooses by the image without a gradient, and so does what leaves torch."""

import pytest
import torch
from structure_nets import Apply
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map

SIDE = 16


def by_index(x):
    return x.gather(-1, (5 * x.detach()).long() % 4)


def by_a_copy(x):
    order = torch.empty_like(x).copy_(x.detach()).argsort(-1)
    return torch.take_along_dim(x, order, -1)


CHOICES = {
    "places": (by_index, "gather", "a conversion to whole numbers"),
    "an order": (
        lambda x: torch.take_along_dim(x, x.detach().argsort(-1), -1),
        "take_along_dim",
        "argsort",
    ),
    "an order, of a copy": (by_a_copy, "take_along_dim", "argsort"),
    "a mask": (lambda x: x * (x.data > 0), "mul", "gt"),
    "a mask, as numbers": (lambda x: x * (x.detach() > 0).to(x.dtype), "mul", "gt"),
    "the one or the other": (
        lambda x: torch.where(x.detach() > 0, x, x.roll(1, -1)),
        "where",
        "gt",
    ),
    "signs": (lambda x: x * x.detach().sign(), "mul", "sign"),
    "places that are not 0": (
        lambda x: x[..., (x.detach()[0, 0, 0] > 0).nonzero()[:, 0].clamp(max=3)],
        "getitem",
        "gt",
    ),
    "sorted values": (lambda x: x + x.detach().sort(-1)[0], "add", "sort"),
}


@pytest.mark.parametrize(("function", "reader", "chooser"), CHOICES.values(), ids=CHOICES.keys())
def test_what_is_chosen_by_detached_values_is_refused(function, reader, chooser):
    """Stand-ins take the place of values, so that the first places were chosen in silence."""
    reason = f"'{reader}'.*by '{chooser}', which depend on the image"
    with pytest.raises(NotApplicableError, match=reason):
        energy_map(light_copy(Apply(function).eval()), (3, SIDE, SIDE))


NUMBERS = {
    "int": lambda x: x.roll(int(x.detach().mean((0, 1, 2)).argmax()), -1),
    "float": lambda x: x if float(x.sum()) > 0 else x.flip(-1),
    "bool": lambda x: x if bool(x.detach().sum() > 0) else x.flip(-1),
    "item": lambda x: x * x.abs().amax().item(),
    "numpy": lambda x: x + torch.from_numpy(x.detach().numpy().cumsum(-1)),
    "tolist": lambda x: x * torch.tensor(x.detach().amax().tolist()),
}


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_of_the_image_are_refused_by_name(name):
    """What is done with them is not seen: `float` was an error of Python, others were silent."""
    reason = f"{name!r} has no energy rule: it takes numbers out of the image"
    with pytest.raises(NotApplicableError, match=reason):
        energy_map(light_copy(Apply(NUMBERS[name]).eval()), (3, SIDE, SIDE))


def test_statistics_that_are_detached_are_constants():
    """They scale all units alike, as a norm of stored statistics does."""
    scaled, plain = (
        energy_map(light_copy(Apply(function).eval()), (3, SIDE, SIDE))[0]
        for function in (lambda x: x / x.detach().abs().mean(), lambda x: x)
    )
    assert scaled / scaled.mean() == pytest.approx(plain / plain.mean())


class Sorted(nn.Module):
    """Tokens in the order of their scores, and a layer behind them."""

    def __init__(self, keep):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 8, 8)
        self.score, self.layer, self.head = nn.Linear(16, 1), nn.Linear(16, 16), nn.Linear(16, 4)
        self.keep = keep

    def forward(self, x):
        tokens = self.stem(x).flatten(2).transpose(1, 2)
        order = self.keep(self.score(tokens).squeeze(-1)).argsort(1)
        tokens = tokens.gather(1, order[..., None].expand(-1, -1, 16))
        return self.head(self.layer(tokens).relu().mean(1))


@pytest.mark.parametrize("keep", [lambda t: t, lambda t: t.detach(), lambda t: 2 * t.data + 1])
def test_sorted_tokens_are_no_map_by_whatever_they_are_sorted(keep):
    """A detached score counted as a constant, and the sorted tokens as a map."""
    model = wrap(Sorted(keep).eval(), spec=InputSpec(64, 64), device="cpu")
    assert model.target.name == "stem"
