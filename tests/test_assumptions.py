"""That a network is a function of one image: neither random nor dependent on batch mates."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_image_nets import SIZE, Net, images
from onnx import numpy_helper
from onnx_files import convnet, node, save
from torch import nn

from perimetry.adapters.load import load
from perimetry.suites.measuring import assumptions
from perimetry.suites.measuring.assumptions import DEPENDENT, RANDOM, check_assumptions


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


@pytest.mark.parametrize("name", NETS)
def test_a_network_that_is_no_function_of_one_image_is_told_with_its_operator(name):
    """Random operators and norms over the batch are recognised, and the first one is named."""
    make, kind, words = NETS[name]
    found = check_assumptions(load(make(), size=SIZE, device="cpu"), images())
    assert found.target.startswith(kind)
    assert found.notes[0] == found.target
    for word in words:
        assert word in found.target


def test_logits_that_depend_on_the_place_in_the_batch_are_told():
    """The head weighs the images of a batch by their places; the map does not."""
    net = Net(head=lambda y: y * (1 + 0.1 * torch.arange(len(y))[:, None]))
    found = check_assumptions(load(net, size=SIZE, device="cpu"), images())
    assert found.target is None
    assert found.logits.startswith(DEPENDENT)
    assert "its place among them changes the logits by" in found.notes[0]


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


def test_seeded_draws_are_a_function():
    """A forward that draws the same numbers in every pass is one network, whatever it draws."""

    def seeded(y):
        noise = torch.rand(8, 1, 1, generator=torch.Generator().manual_seed(3))
        return y * noise

    model = load(Net(seeded), size=SIZE, device="cpu")
    assert model.random_steps(model.spec.blank())
    assert check_assumptions(model, images()) == assumptions.Assumptions()


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
