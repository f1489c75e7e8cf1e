"""Modules as users bring them: outputs of many kinds, types, channels, sizes; what is refused."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.images import open_images


@dataclass
class Output:
    """What HF-style models give back."""

    logits: Tensor
    hidden_states: tuple[Tensor, ...]


class Net(nn.Module):
    """Two convolutions and a head, which gives its result as `give` makes it."""

    def __init__(self, give=lambda logits, grid: logits, channels=3):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(channels, 4, 3, 2, 1)
        self.last = nn.Conv2d(4, 8, 3, 2, 1)
        self.head = nn.Linear(8, 5)
        self.give = give

    def forward(self, x):
        grid = self.last(torch.relu(self.first(x)))
        return self.give(self.head(grid.mean((2, 3))), grid)


def measured(module, **options):
    """Records by suite and fill of a small audit."""
    records = audit(module, kernel_padding=("none", "box"), count=2, size=(32, 48), **options)
    return {(record.suite, record.fill): record for record in records}


@pytest.mark.parametrize(
    "give",
    [
        lambda logits, grid: {"logits": logits, "grid": grid},
        lambda logits, grid: (logits, grid),
        lambda logits, grid: [grid, logits],
        lambda logits, grid: Output(logits, (grid,)),
    ],
)
def test_logits_are_found_in_whatever_a_module_returns(give):
    """Dict, tuple, list and data class of logits and features: the logits are those of `Net`."""
    x = open_images("noise", 2).load(wrap(Net()).spec)
    plain, other = (wrap(Net(g) if g else Net(), device="cpu") for g in (None, give))
    expected = plain.run(plain.spec.prepare(x), logits=True).logits
    assert torch.equal(other.run(other.spec.prepare(x), logits=True).logits, expected)


def test_a_size_that_is_given_is_the_size_that_is_audited():
    """A head that fits 32 x 48 alone is measured at 32 x 48, and its size is no guess."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.Flatten(), nn.Linear(4 * 8 * 12, 5))
    for record in measured(net, suites=("structure", "deadpixel")).values():
        assert record.status == "ok", record.error
        assert (record.model.spec["height"], record.model.spec["width"]) == (32, 48)
        assert record.model.spec["guessed"] == [
            *("mean", "std", "value_range", "interpolation", "crop_pct", "channel_order")
        ]


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_types_of_weights_are_audited_in_float32_with_every_padding(kind):
    """Weights that float16 holds exactly give the same records whatever type they come in."""
    net = Net().half().float()
    if kind is torch.bfloat16:
        net = net.bfloat16().float()
    expected, found = measured(net), measured(cast(net, kind))
    for place, record in found.items():
        assert record.status == "ok", record.error
        for name, held in record.metrics.items():
            assert held.value == expected[place].metrics[name].value, (place, name)


def cast(net, kind):
    """A copy of `net` in another float type."""
    variant = Net()
    variant.load_state_dict(net.state_dict())
    return variant.to(kind)


def test_a_compiled_module_is_measured_as_the_module_it_was_made_of():
    """`torch.compile` changes no number: the same tensors, the same records."""
    expected, found = measured(Net()), measured(torch.compile(Net()))
    for place, record in found.items():
        assert record.model.source == expected[place].model.source
        assert record.metrics == expected[place].metrics


def test_six_channels_have_a_structure_and_say_why_they_have_no_sensitivity():
    """Images have three channels: what looks at images is skipped with that reason."""
    found = measured(Net(channels=6), suites=("structure", "deadpixel"))
    assert found["structure", "none"].status == "ok"
    assert found["deadpixel", "none"].status == "skipped"
    assert "takes 6 channels" in found["deadpixel", "none"].reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
def test_scripts_and_modules_without_numbers_are_refused_with_a_way_on():
    """TorchScript cannot be followed; the meta device has no weights."""
    script = torch.jit.trace(Net().eval(), torch.zeros(1, 3, 32, 48))
    with pytest.raises(InputError, match=r"TorchScript.*ONNX"):
        wrap(script)
    with pytest.raises(InputError, match=r"layer '0' of Sequential.*TorchScript.*ONNX"):
        wrap(nn.Sequential(script, nn.ReLU()))
    with pytest.raises(InputError, match=r"first\.weight of Net.*to_empty"):
        wrap(Net().to("meta"))


class Deciding(nn.Module):
    """A forward that does one thing or another, by what it is given."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, 2, 1)
        self.second = nn.Conv2d(8, 16, 3, 2, 1)

    def forward(self, x):
        """Twice the map unless its mean is very small."""
        x = self.first(x)
        return self.second((x * 2 if x.mean() > -1e6 else x).relu())


def test_a_forward_that_decides_by_numbers_takes_every_padding():
    """Such a module has no structure, which says so; its kernels grow all the same."""
    fills = ("none", "zero", "box", "fresh")
    records = audit(Deciding(), ("structure", "deadpixel"), fills, size=(64, 64), count=2)
    assert {r.status for r in records if r.suite != "structure"} == {"ok"}
    assert {r.reason for r in records if r.suite == "structure"} == {
        "the operation 'gt' has no energy rule: its result jumps with the values of the image"
    }
    found = {(r.fill, r.suite): r.metrics.get("imbalance") for r in records}
    assert found["zero", "deadpixel"].value == pytest.approx(found["none", "deadpixel"].value)
    assert found["box", "deadpixel"].value < 0.5 * found["none", "deadpixel"].value
