"""Kernel padding of networks that call torch's functions, or its operators, by themselves."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.torch_calls import CallWatcher
from perimetry.suites.structure import measure_skeleton

SIDE = 64
LAST = {
    "a mean": lambda net, x: F.avg_pool2d(x, 3, 2, 1),
    "a maximum": lambda net, x: F.max_pool2d(x, 3, 2, 1),
    "a convolution behind a mean": lambda net, x: F.conv2d(
        F.avg_pool2d(x, 3, 2, 1), net.weight, None, 1, 1
    ),
    "an operator": lambda net, x: torch.ops.aten.convolution.default(
        x, net.weight, None, [2, 2], [1, 1], [1, 1], False, [0, 0], 1
    ),
}
AS_LAYERS = {
    "a mean": lambda: [nn.AvgPool2d(3, 2, 1)],
    "a maximum": lambda: [nn.MaxPool2d(3, 2, 1)],
    "a convolution behind a mean": lambda: [
        nn.AvgPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, 1, 1, bias=False),
    ],
    "an operator": lambda: [nn.Conv2d(8, 8, 3, 2, 1, bias=False)],
}


class OfFunctions(nn.Module):
    """A strided convolution, and functions that its own forward calls."""

    def __init__(self, last):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, 2, 1), last
        self.weight = nn.Parameter(torch.randn(8, 8, 3, 3) / 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        x = LAST[self.last](self, self.first(x).relu())
        return self.head(x.mean((2, 3)))


def as_layers(net):
    """The same network of layers alone, with the weights of `net`."""
    layers = AS_LAYERS[net.last]()
    made = nn.Sequential(
        net.first,
        nn.ReLU(),
        nn.Sequential(*layers),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        net.head,
    )
    with torch.no_grad():
        for layer in layers:
            if isinstance(layer, nn.Conv2d):
                layer.weight.copy_(net.weight)
    return made


def padded_target(net, fill, x):
    """The model with padded kernels, and its target on `x`."""
    model = wrap(net.eval(), spec=InputSpec(SIDE, SIDE), device="cpu").padded(fill)
    model.select(0, x)
    return model, model.run(x).target


@pytest.mark.parametrize("last", LAST)
@pytest.mark.parametrize("fill", ["box", "fresh"])
def test_the_target_of_a_padded_network_is_the_step_of_its_name(last, fill):
    """What padding calls in its place is no step of the network: the layers' map is found."""
    torch.manual_seed(0)
    net, x = OfFunctions(last), torch.rand(2, 3, SIDE, SIDE)
    if fill == "fresh":  # the new weights of `first` would be others
        net.first = nn.Conv2d(3, 8, 4, 2, 1)
    (by_name, found), (layers, expected) = (
        padded_target(one, fill, x) for one in (net, as_layers(net))
    )
    if fill == "box" or last != "an operator":  # `fresh` draws the parameters that a layer owns
        torch.testing.assert_close(found, expected)
    one, other = (measure_skeleton(m.skeleton(), m.spec.shape) for m in (by_name, layers))
    for name in ("weakest", "receptive_field", "target_stride"):
        assert one.metrics[name].value == pytest.approx(other.metrics[name].value)


@pytest.fixture
def program(tmp_path):
    """A network of layers, and the path of its exported program."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    layers += [nn.Conv2d(8, 8, 3, 2, 1), nn.AvgPool2d(3, 2, 1)]
    net = nn.Sequential(
        nn.Sequential(*layers), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()
    batch = ({0: torch.export.Dim("batch")},)
    found = torch.export.export(net, (torch.rand(2, 3, SIDE, SIDE),), dynamic_shapes=batch)
    torch.export.save(found, tmp_path / "net.pt2")
    return net, tmp_path / "net.pt2"


def test_a_program_is_padded_as_its_module_is(program):
    """`box` grows all kernels of a `.pt2` file; other fills say why they leave some."""
    net, path = program
    x = torch.rand(2, 3, SIDE, SIDE)
    model = load(str(path), device="cpu").padded("box")
    assert {layer.kind for layer in model.treatment.layers} == {
        "conv2d",
        "max_pool2d",
        "avg_pool2d",
    }
    model.select(0, x)
    torch.testing.assert_close(model.run(x).target, padded_target(net, "box", x)[1])
    for fill in ("zero", "kim2023"):
        left = load(str(path), device="cpu").padded(fill).treatment.refused_layers
        (reasons,) = left.values()
        assert "a fixed or computed kernel" in reasons
        assert "a mean has no taps to add" in reasons


def test_watchers_see_a_call_that_is_replaced_once():
    """Hidden calls are seen by no watcher, and the one in whose place they stand by all."""
    seen = []

    class Watcher(CallWatcher):
        def saw(self, func, args, kwargs, out):
            seen.append((func, float(out)))

    x = torch.tensor(4.0)
    with Watcher():
        with CallWatcher.hidden():
            out = torch.sqrt(x) + 1
        CallWatcher.show(torch.exp, (x,), {}, out)
        torch.neg(x)
    torch.neg(x)
    CallWatcher.show(torch.exp, (x,), {}, out)
    assert seen == [(torch.exp, 3.0), (torch.neg, -4.0)]
