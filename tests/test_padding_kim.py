"""Kernel padding `kim2023`: what Kim et al. do to a network, written out by hand."""

import copy

import pytest
import torch
import torch.nn.functional as F
from onnx_files import convnet
from padding_tools import padded
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import InputError
from perimetry.adapters.load import load
from perimetry.adapters.onnx.kernel_padding.rewrite import pad_graph
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.cli.main import app


class Small(nn.Module):
    """A stem 7/2, a max-pool 3/2 and a residual block with a shortcut 1/2: a small ResNet."""

    def __init__(self, ceil_mode=False):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 7, 2, 3)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=ceil_mode)
        self.first = nn.Conv2d(6, 8, 3, 2, 1, groups=2)
        self.second = nn.Conv2d(8, 8, 3, 1, 1)
        self.short = nn.Conv2d(6, 8, 1, 2)

    def forward(self, x):
        x = self.pool(self.stem(x).relu())
        return self.second(self.first(x).relu()) + self.short(x)


def by_hand(net, x, ceil_mode=False):
    """The padded `Small`, call by call: kernels of 8, 4, 4 and 2 with the old padding."""

    def larger(conv, to):
        weight = torch.zeros(*conv.weight.shape[:2], to, to, dtype=x.dtype)
        k = conv.weight.shape[2]
        for i in range(k):
            for j in range(k):
                weight[:, :, i, j] = conv.weight[:, :, i, j]
        return weight

    x = F.conv2d(x, larger(net.stem, 8), net.stem.bias, 2, 3).relu()
    x = F.max_pool2d(x, 4, 2, 1, ceil_mode=ceil_mode)
    y = F.conv2d(x, larger(net.first, 4), net.first.bias, 2, 1, groups=2).relu()
    return net.second(y) + F.conv2d(x, larger(net.short, 2), net.short.bias, 2)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (37, 40), (50, 63), (65, 65)])
def test_it_is_the_version_written_by_hand_at_even_and_odd_sizes(size, ceil_mode):
    """Outputs and their sizes equal those of the calls written out, at every input size."""
    torch.manual_seed(0)
    net = Small(ceil_mode).double()
    variant, treatment = padded(net, "kim2023", torch.zeros(1, 3, *size, dtype=torch.float64))
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = by_hand(net, x, ceil_mode)
    torch.testing.assert_close(variant(x), expected, rtol=0, atol=1e-12)
    assert {p.name: p.padded_kernel[0] for p in treatment.layers} == {
        "stem": 8,
        "pool": 4,
        "first": 4,
        "short": 2,
    }


def test_a_map_of_an_odd_size_shrinks_where_zero_keeps_it():
    """A 3/2 layer of 33 rows gives 16 with `kim2023`, and 17 with `zero` and without padding."""
    x = torch.zeros(1, 1, 33, 33)
    net = nn.Conv2d(1, 1, 3, 2, 1)
    sizes = {fill: padded(net, fill, x)[0](x).shape[-1] for fill in ("zero", "kim2023")}
    assert (net(x).shape[-1], sizes) == (17, {"zero": 17, "kim2023": 16})


def test_new_taps_are_trained():
    """All taps of the larger kernel get a gradient."""
    variant, _ = padded(nn.Conv2d(1, 1, 3, 2, 1), "kim2023", torch.zeros(1, 1, 8, 8))
    variant(torch.rand(1, 1, 8, 8)).sum().backward()
    assert tuple(variant.weight.shape) == (1, 1, 4, 4)
    assert bool((variant.weight.grad != 0).all())


def test_a_functional_pool_grows_and_keeps_its_options():
    """A pool that is a function gets the window of 4 with the same padding and ceil mode."""

    class Pool(nn.Module):
        def forward(self, x):
            return F.max_pool2d(x, 3, 2, 1, ceil_mode=True)

    x = torch.randn(1, 2, 12, 15)
    variant, _ = padded(Pool(), "kim2023", x)
    torch.testing.assert_close(variant(x), F.max_pool2d(x, 4, 2, 1, ceil_mode=True))


def test_a_mean_pool_and_a_fixed_kernel_are_left_with_a_reason():
    """They have no taps to train, so the output stays and the treatment names them."""
    net = nn.Sequential(nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, 3, 2))
    x = torch.randn(1, 1, 19, 19)
    variant, treatment = padded(net, "kim2023", x)
    assert set(treatment.refused_layers) == {"0"}
    torch.testing.assert_close(variant[0](x), net[0](x))


def test_layers_that_compute_their_padding_compute_it_from_the_larger_kernel():
    """A TF-SAME layer pads for 4 taps, 1 before and 1 after, and keeps its output's size."""
    import timm.layers

    conv = timm.layers.Conv2dSame(2, 3, 3, 2, bias=False)
    x = torch.randn(1, 2, 16, 16)
    variant, _ = padded(conv, "kim2023", x)
    weight = F.pad(conv.weight, (0, 1, 0, 1))
    torch.testing.assert_close(variant(x), F.conv2d(x, weight, stride=2, padding=1))


def test_weights_that_are_standardised_are_so_before_zeros_are_added():
    """A standardised kernel keeps its 9 taps and gets zeros beside them."""
    import timm.layers

    conv = timm.layers.StdConv2d(2, 3, 3, stride=2, padding=1, bias=False).eval()
    x = torch.randn(1, 2, 16, 16)
    seen = {}

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            if func is F.conv2d:
                seen["weight"] = args[1]
            return func(*args, **(kwargs or {}))

    with Watch():
        conv(x)
    variant, _ = padded(conv, "kim2023", x)
    expected = F.conv2d(x, F.pad(seen["weight"], (0, 1, 0, 1)), stride=2, padding=1)
    torch.testing.assert_close(variant(x), expected)


def test_branches_that_no_longer_fit_are_an_error_with_a_way_out():
    """A shortcut that rounds up beside a padded convolution: InputError, not a torch error."""

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.mean = nn.Conv2d(1, 1, 3, 2, 1), nn.AvgPool2d(2, 2, ceil_mode=True)

        def forward(self, x):
            return self.conv(x) + self.mean(x)

    with pytest.raises(InputError):
        padded(Block(), "kim2023", torch.zeros(1, 1, 17, 17))
    assert len(padded(Block(), "kim2023", torch.zeros(1, 1, 16, 16))[1].layers) == 1


def test_an_onnx_file_is_refused():
    """ONNX graphs state the sizes of maps: InputError, whatever is in them."""
    with pytest.raises(InputError, match="kim2023"):
        pad_graph(convnet(), "kim2023")


@pytest.mark.parametrize(("fill", "more"), [("zero", 29), ("kim2023", 31), ("box", 31)])
def test_the_receptive_field_of_resnet18_grows_by_31_with_the_pool(fill, more):
    """435 pixels become 464 with `zero`, which leaves the max-pool, and 466 with `kim2023`."""
    records = audit(
        "timm:resnet18@init",
        ("structure",),
        kernel_padding=("none", fill),
        size=(96, 96),
        count=1,
        device="cpu",
    )
    fields = {r.fill: r.metrics["receptive_field"].value for r in records}
    assert fields == {"none": 435, fill: 435 + more}


def test_a_target_with_fewer_units_is_measured_and_its_cosine_is_missing():
    """At an odd size the target is found again, and `fidelity` says what cannot be compared."""
    records = audit(
        "timm:resnet18@init",
        ("deadpixel", "structure", "fidelity"),
        kernel_padding=("none", "kim2023"),
        size=(97, 97),
        count=2,
        draws=20,
        device="cpu",
    )
    own = {r.suite: r for r in records if r.fill == "kim2023"}
    assert {r.status for r in own.values()} == {"ok"}
    assert own["deadpixel"].metrics["weakest"].value > 0
    assert own["fidelity"].metrics["feature_cosine"].value is None
    assert own["fidelity"].metrics["top1_agreement"].value is not None
    plain = load("timm:resnet18@init", device="cpu", size=(97, 97), members=1)
    theirs = plain.padded("kim2023")
    assert (plain.target.height, theirs.target.height) == (4, 3)
    assert theirs.resized(129, 129).target.height == 4


def test_a_wrapped_module_with_weights_is_padded_as_well():
    """A module of torch, whose weights are there, gives the map that is written by hand."""
    torch.manual_seed(0)
    net = Small().eval()
    model = wrap(copy.deepcopy(net), size=(49, 49), device="cpu").padded("kim2023")
    x = torch.randn(2, 3, 49, 49)
    model.select(0, x)
    with torch.no_grad():
        expected = by_hand(net, x)
        torch.testing.assert_close(model.run(x).target, expected, rtol=1e-4, atol=1e-5)
    assert (model.target.height, model.target.width) == tuple(expected.shape[-2:])


def test_it_takes_part_in_run_records_and_board(tmp_path):
    """`--kernel-padding none,kim2023` makes records of both, which the board has as rows."""
    command = ["run", "timm:test_resnet@init", "--kernel-padding", "none,kim2023", "--size", "64"]
    command += ["--suite", "structure", "--count", "1", "--device", "cpu", "--out", str(tmp_path)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert {r.fill for r in load_records(tmp_path)} == {"none", "kim2023"}
    board = CliRunner().invoke(app, ["board", str(tmp_path), "--rank", "variants"])
    assert "kim2023" in board.output
