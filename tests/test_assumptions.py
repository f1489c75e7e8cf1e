"""What every measurement rests on: two passes agree, batch mates do not matter, maps are named."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx_files import convnet, node, save
from torch import nn
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.cli.main import app
from perimetry.bench.records.manifest import write_manifest
from perimetry.bench.records.store import Store
from perimetry.bench.regression.check import check
from perimetry.suites.images import open_images
from perimetry.suites.measuring import assumptions
from perimetry.suites.measuring.assumptions import DEPENDENT, MISNAMED, RANDOM, check_assumptions

SIZE = (64, 64)
QUICK = {"size": SIZE, "count": 4, "draws": 20, "device": "cpu"}


class Net(nn.Module):
    """Two strided convolutions, `between` them, and a linear layer behind `head`."""

    def __init__(self, between=lambda y: y, head=lambda y: y, layer=None):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Conv2d(3, 8, 3, 2, 1)
        self.between = between
        self.layer = layer or nn.Identity()
        self.b = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = head
        self.fc = nn.Linear(8, 10)

    def forward(self, x):
        y = self.b(self.layer(self.between(self.a(x))).relu())
        return self.fc(self.head(y.mean((2, 3))))


def rarely(y):
    """Drop an image's features in one of twenty passes, as stochastic depth does."""
    return y * (torch.rand(len(y), 1, 1, 1) > 0.05)


def numpy_noise(y):
    return (
        y + 1e-3 * torch.from_numpy(np.random.default_rng().normal(size=8))[:, None, None].float()
    )


def mates(y):
    return y - y.mean((0, 2, 3), keepdim=True)


def one_pass_in_nine(draw):
    """Every pass draws a number; as if by its value, one in nine is another."""
    drawn = []

    def passed(y):
        drawn.append(draw())
        return y * (1.0 if len(drawn) % 9 else 2.0)

    return passed


class Counting(nn.Module):
    """Its numbers grow from pass to pass."""

    passes = 0

    def forward(self, y):
        self.passes += 1
        return y * (1 + 0.1 * self.passes)


class Drifting(nn.Module):
    """Its numbers are another function of the number of passes; `passed` counts these."""

    def __init__(self, factor):
        super().__init__()
        self.factor, self.passed = factor, 0

    def forward(self, y):
        self.passed += 1
        return y * self.factor(self.passed)


NETS = {
    "dropout": (lambda: Net(lambda y: F.dropout(y, 0.2)), RANDOM, ("bernoulli_", "dropout")),
    "rare": (lambda: Net(rarely), RANDOM, ("operator rand ",)),
    "numpy": (lambda: Net(numpy_noise), RANDOM, ("operator add",)),
    "rare, by Python": (
        lambda: Net(one_pass_in_nine(random.random)),
        RANDOM,
        ("generator of Python",),
    ),
    "rare, by numpy": (
        lambda: Net(one_pass_in_nine(np.random.random)),
        RANDOM,
        ("generator of NumPy",),
    ),
    "a count of passes": (lambda: Net(layer=Counting()), RANDOM, ("state kept",)),
    "number": (lambda: Net(lambda y: y * len(y)), DEPENDENT, ("a third one",)),
    "more than two": (lambda: Net(lambda y: y / (1 + (len(y) > 2))), DEPENDENT, ("a third one",)),
    "rrelu": (lambda: Net(lambda y: -F.rrelu(y, training=True)), RANDOM, ("rrelu",)),
    "norm": (
        lambda: Net(layer=nn.BatchNorm2d(8, track_running_stats=False)),
        DEPENDENT,
        ("'layer' (BatchNorm2d)", "without running statistics"),
    ),
    "functional": (
        lambda: Net(lambda y: F.batch_norm(y, None, None, training=True)),
        DEPENDENT,
        ("batch_norm",),
    ),
    "mean": (lambda: Net(mates), DEPENDENT, ("operator sub of the forward of Net",)),
    "largest": (
        lambda: Net(lambda y: y / y.abs().amax()),
        DEPENDENT,
        ("operator div of the forward of Net",),
    ),
    "range": (
        lambda: Net(lambda y: (y - y.min()) / (y.max() - y.min())),
        DEPENDENT,
        ("forward of Net",),
    ),
    "place": (
        lambda: Net(lambda y: y * torch.arange(1, len(y) + 1).view(-1, 1, 1, 1)),
        DEPENDENT,
        ("place",),
    ),
}


def images(n=3, size=SIZE):
    return torch.rand(n, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", NETS)
def test_a_network_that_is_no_function_of_one_image_is_told_with_its_operator(name):
    """Random operators and norms over the batch are recognised, and the first one is named."""
    make, kind, words = NETS[name]
    found = check_assumptions(load(make(), size=SIZE, device="cpu"), images())
    assert found.target.startswith(kind)
    assert found.notes[0] == found.target
    for word in words:
        assert word in found.target


def test_a_draw_in_one_pass_of_many_is_not_taken_for_the_mates_doing():
    """Whichever of the passes alone is drawn otherwise: that is random, no other image's doing."""
    passes = []

    def once_at(pass_drawn):
        def draw(y):
            passes.append(torch.rand(1))
            return y * (2.0 if len(passes) == pass_drawn else 1.0)

        return draw

    found = []
    for pass_drawn in range(1, 6):
        model = load(Net(once_at(pass_drawn)), size=SIZE, device="cpu")
        passes.clear()
        found.append(check_assumptions(model, images()).target or "")
    assert not any(text.startswith(DEPENDENT) for text in found)
    assert sum("operator rand " in text for text in found) >= 2


def test_a_batch_whose_first_image_has_the_largest_value_is_told():
    """No mate changes the output for the image with the largest value, but it changes its mates'.

    The first of the images is all white but for a black row.
    """
    held = images()
    held[0] = 1.0
    held[0, :, 5] = 0.0

    class Brightest(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = Net()

        def forward(self, x):
            return self.net(x / x.abs().amax())

    found = check_assumptions(load(Brightest(), size=SIZE, device="cpu"), held)
    assert found.target.startswith(DEPENDENT)
    assert "operator div of the forward of Brightest" in found.target


@pytest.mark.parametrize(
    "reference", ["resnet18", "mobilenetv3_small_050", "convnext_atto", "test_vit"]
)
def test_ordinary_models_hold_what_is_assumed(reference):
    """Networks with batch norm, layer norm, attention and squeeze-excitation have no fault."""
    model = load(f"timm:{reference}@init", device="cpu")
    held = images(2, (model.spec.height, model.spec.width))
    assert check_assumptions(model, held) == assumptions.Assumptions()


@pytest.mark.filterwarnings("ignore")  # torch.ao is deprecated
def test_a_module_in_eight_bits_of_the_batch_s_range_is_measured_with_a_note():
    """torch's dynamic layers round by the range of the batch, as the ONNX operator does."""
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(*layers), {nn.Linear})
    (record,) = audit(module, ("perturbation",), size=(64, 64), count=2)
    assert record.status == "ok"
    (note,) = [n for n in record.notes if n.startswith(DEPENDENT)]
    assert assumptions.CAUSES["dynamicquantize"] in note


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


def test_seeded_draws_are_a_function():
    """A forward that draws the same numbers in every pass is one network, whatever it draws."""

    def seeded(y):
        noise = torch.rand(8, 1, 1, generator=torch.Generator().manual_seed(3))
        return y * noise

    model = load(Net(seeded), size=SIZE, device="cpu")
    assert model.random_steps(model.spec.blank())
    assert check_assumptions(model, images()) == assumptions.Assumptions()


def test_dropout_in_the_head_costs_what_rests_on_the_logits_alone():
    """Maps of the target are measured; what reads the logits is skipped with the reason."""
    net = Net(head=lambda y: F.dropout(y, 0.3))
    suites = ("structure", "deadpixel", "deadpixel:kim2023", "erf", "perturbation")
    found = {f"{r.suite}:{r.protocol}": r for r in audit(net, suites, **QUICK)}
    status = {name: r.status for name, r in found.items()}
    assert status == {
        "structure:expected": "ok",
        "deadpixel:energy": "ok",
        "deadpixel:kim2023": "skipped",
        "erf:energy": "ok",
        "perturbation:forward": "skipped",
    }
    assert found["perturbation:forward"].reason.startswith(RANDOM)
    assert found["deadpixel:energy"].notes[0] == found["perturbation:forward"].reason


def test_a_random_network_has_its_structure_alone_and_says_so_first(tmp_path):
    """Case 07: no number of a random network; `show` begins with the reason; exit 2 of `check`."""
    suites = ("structure", "deadpixel", "padding", "perturbation", "erf")
    store = Store(tmp_path)
    for record in audit(Net(lambda y: F.dropout(y, 0.2)), suites, **QUICK):
        store.put(record)
        assert (record.status == "ok") == (record.suite == "structure")
        assert (record.notes[0] if record.status == "ok" else record.reason).startswith(RANDOM)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)]).output
    assert "Not measured: the network is random" in " ".join(shown.split()[:20])
    write_manifest(store)
    again = check(tmp_path, Net(lambda y: F.dropout(y, 0.2)), name="module:Net")
    words = {
        (f.where, f.verdict.words) for f in again.reports[0].findings if f.detector == "record"
    }
    assert any(
        "perturbation:forward" in where and verdict == "could not measure"
        for where, verdict in words
    )
    assert not [f for f in again.reports[0].findings if f.verdict.words == "regressed"]


def test_a_report_begins_with_random_logits_where_nothing_that_reads_them_was_asked_for(tmp_path):
    """The maps of the target are measured; that answers are random is said first all the same."""
    store = Store(tmp_path)
    for record in audit(Net(head=lambda y: F.dropout(y, 0.3)), ("deadpixel",), **QUICK):
        store.put(record)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)]).output
    assert "Verdict: The network is random" in " ".join(shown.split()[:20])


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


def noisy_file(path, op, **attributes):
    """A file with a random operator behind its first convolution."""
    proto = convnet(size=64)
    proto.graph.node.insert(1, node(op, ["c1"], ["noise"], **attributes))
    proto.graph.node.insert(2, node("Add", ["c1", "noise"], ["noisy"]))
    proto.graph.node[3].input[0] = "noisy"
    return save(proto, path)


@pytest.mark.parametrize("op", ["RandomNormalLike", "RandomUniformLike"])
def test_random_operators_of_a_file_are_named(tmp_path, op):
    """Every suite but the structure is skipped, and the reason names the node."""
    records = audit(noisy_file(tmp_path / "a.onnx", op), ("perturbation", "padding"), **QUICK)
    for record in records:
        assert record.status == "skipped"
        assert record.reason.startswith(RANDOM)
        assert f"{op} node 'noise'" in record.reason


def test_a_file_whose_images_depend_on_one_another_is_passed_image_by_image(tmp_path):
    """A mean over the batch of a file for any batch size is its first note."""
    proto = convnet(size=64)
    proto.graph.initializer.append(numpy_helper.from_array(np.array([0, 2, 3]), "axes"))
    proto.graph.node.insert(1, node("ReduceMean", ["c1", "axes"], ["mean"], keepdims=1))
    proto.graph.node.insert(2, node("Sub", ["c1", "mean"], ["centred"]))
    proto.graph.node[3].input[0] = "centred"
    model = load(save(proto, tmp_path / "a.onnx"), device="cpu")
    assert model.notes[0].startswith(DEPENDENT)
    assert check_assumptions(model, images()) == assumptions.Assumptions()


def test_the_reason_is_the_same_in_every_run():
    """Records of a random network do not differ by chance."""
    model = load(Net(lambda y: F.dropout(y, 0.2)), size=SIZE, device="cpu")
    assert check_assumptions(model, images()) == check_assumptions(model, images())


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


@pytest.mark.parametrize("factor", [lambda n: 1 + 3e-6 * n, lambda n: float(n < 30)])
def test_a_state_that_shows_after_many_passes_voids_what_was_measured(factor):
    """A drift of 3e-6 a pass, which no two passes show; a network that gives 0 after 30."""
    net = Net(layer=Drifting(factor))
    model = load(net, size=SIZE, device="cpu")
    assert check_assumptions(model, images()).target is None
    (record,) = audit(net, ("padding",), **QUICK)
    assert record.status == "skipped"
    assert record.reason.startswith(RANDOM)
    assert "a state kept from pass to pass" in record.reason


def test_gradients_of_a_drifting_network_are_void_and_a_late_head_costs_its_own_suites_alone():
    """The first pass is made again after the gradients; `later` says which output has changed."""
    suites = ("deadpixel", "erf")
    found = audit(Net(layer=Drifting(lambda n: 1 + 8e-6 * n)), suites, **QUICK)
    assert [r.status for r in found] == ["skipped"] * 2
    assert all("changes the target by" in r.reason for r in found)
    head = Drifting(lambda n: 1 + 8e-6 * n)
    found = audit(Net(head=head), (*suites, "perturbation"), **QUICK)
    assert [r.status for r in found] == ["ok", "ok", "skipped"]
    model = load(Net(layer=Drifting(lambda n: 1.0)), size=SIZE, device="cpu")
    checked = check_assumptions(model, images())
    counted = model.module().get_submodule("layer")
    before = counted.passed
    assert checked.later() == assumptions.Assumptions()
    assert counted.passed == before + 1
