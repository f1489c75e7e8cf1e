"""Maps of the target: of the layer that is named, and equal up to what rounding may change."""

import pytest
import torch
from one_image_nets import SIZE, Net, images
from torch import nn

from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.images import open_images
from perimetry.suites.measuring import assumptions
from perimetry.suites.measuring.assumptions import CHAOTIC, DEPENDENT, MISNAMED, check_assumptions


def test_the_first_step_that_differs_may_have_integers(monkeypatch):
    """The integers of dynamic quantisation come before the floats that are made of them."""
    model = load(Net(lambda y: y + 0.01 * y.mean((0, 2, 3), keepdim=True)), size=SIZE, device="cpu")

    def trace(x, read):
        eight = (50 * x / x.abs().max()).round().to(torch.int8)
        read("DynamicQuantizeLinear node 'q'", eight)
        read("Cast node 'c'", eight.float())

    monkeypatch.setattr(model, "trace", trace)
    found = check_assumptions(model, images())
    assert found.target is None
    assert "first in DynamicQuantizeLinear node 'q'" in found.notes[0]


class Twice(nn.Module):
    """One activation is called twice: a pass that stops at its first call gives another map."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.act(self.b(self.act(self.a(x)))).mean((2, 3))


def test_a_map_is_of_the_layer_that_the_record_names(monkeypatch):
    """A pass that stops early, or a grid of another shape, is recognised (case 02)."""
    model = load(Twice(), size=SIZE, device="cpu")
    right = model.run
    assert check_assumptions(model, images()) == assumptions.Assumptions()

    def early(x, *, target=True, logits=False):
        out = right(x, target=target, logits=True)
        return out if logits else type(out)(out.target.roll(1, 1), None)

    monkeypatch.setattr(model, "run", early)
    assert check_assumptions(model, images()).target.startswith(MISNAMED)

    def smaller(x, *, target=True, logits=False):
        out = right(x, target=target, logits=True)
        return type(out)(out.target[:, :, 1:], out.logits)

    monkeypatch.setattr(model, "run", smaller)
    assert check_assumptions(model, images()).target.startswith(MISNAMED)


@pytest.mark.parametrize(
    ("step", "share", "verdict"),
    [
        ("QuantizeLinear node 'q'", 0.07, "noted"),
        ("QLinearConv node 'q'", 0.07, "noted"),
        ("QuantizeLinear node 'q'", 0.6, "skipped"),
        ("Conv node 'c'", 0.07, "skipped"),
    ],
)
def test_eight_bits_may_be_rounded_otherwise_on_the_way_to_the_target(
    monkeypatch, step, share, verdict
):
    """A runtime that fuses other steps rounds otherwise: a note, while another layer is a fault."""
    model = load(Twice(), size=SIZE, device="cpu")
    right = model.run

    def rounded(x, *, target=True, logits=False):
        out = right(x, target=target, logits=True)
        signs = torch.ones_like(out.target)
        signs[..., ::2] = -1
        off = share * out.target.norm() / signs.norm() * signs
        return out if logits else type(out)(out.target + off, None)

    monkeypatch.setattr(model, "run", rounded)
    monkeypatch.setattr(model, "trace", lambda x, read: read(step, x))
    found = check_assumptions(model, images())
    assert (found.target is None) == (verdict == "noted")
    assert any("eight bits" in note for note in found.notes) == (verdict == "noted")


class Placed(nn.Module):
    """A sine of `gain` times a convolution of the input, `step` larger at the second place."""

    def __init__(self, step, gain):
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1)
        self.step, self.gain = step, gain

    def forward(self, x):
        places = 1 + self.step * torch.arange(len(x))[:, None, None, None]
        return self.b((self.gain * self.a(x * places)).sin())


def why_and_notes(module):
    """Why the target is not measured, and the notes, of a module on one image."""
    model = wrap(module.eval(), size=SIZE)
    found = check_assumptions(model, open_images("dead-leaves", 1, 0).load(model.spec))
    return found.target or "", found.notes


def test_rounding_that_a_network_amplifies_is_no_dependence_on_mates():
    """A place changes the last bits alone, and these the map: a note, and it is measured."""
    why, notes = why_and_notes(Placed(1e-7, 1e4))
    assert why == ""
    assert any("amplifies rounding" in note for note in notes)


def test_a_network_of_which_rounding_decides_the_outputs_is_not_measured():
    """The last bit of the input turns the sines over: no map is that of the image."""
    why, _ = why_and_notes(Placed(1e-7, 1e8))
    assert why.startswith(f"{CHAOTIC}: the last bit of the input changes the target by ")


class Third(nn.Module):
    """A third image changes the last bits of all, which become much in those of noise alone."""

    def __init__(self):
        super().__init__()
        self.inner = Placed(0, 1.0)

    def forward(self, x):
        rough = x.diff(dim=-1).abs().mean((1, 2, 3), keepdim=True)
        self.inner.gain = torch.where(rough > 1, 1e4, 1.0)
        return self.inner(x * (1 + 1e-7 * (len(x) == 3)))


def test_rounding_that_is_amplified_in_one_image_alone_is_no_dependence_on_the_number():
    """The mate's map changes by more than the first image's last bits would make of it."""
    why, notes = why_and_notes(Third())
    assert why == ""
    assert any("amplifies rounding" in note for note in notes)


def test_a_change_beyond_amplified_rounding_is_dependence():
    """The same change of the map by another cause than its last bits is a fault."""
    why, notes = why_and_notes(Placed(1e-3, 1.0))
    assert why.startswith(DEPENDENT)
    assert not any("amplifies rounding" in note for note in notes)
