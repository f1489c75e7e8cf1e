"""Fixed functions that follow one another: exact in `structure`, or noted as an approximation."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import BLUR, Between, squared_jacobian
from torch import nn

from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.expected_maps import NOT_INDEPENDENT
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton


def blurred(x, **options):
    """The map filtered by the same 3 x 3 taps in every channel."""
    channels = x.shape[1]
    return F.conv2d(x, BLUR.to(x).expand(channels, 1, 3, 3), groups=channels, **options)


def sampled(x):
    """The map at places along a turned and stretched grid."""
    turn = torch.tensor([[[0.8, 0.3, 0.1], [-0.2, 0.9, 0.0]]], dtype=x.dtype)
    grid = F.affine_grid(turn.expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def spread(x):
    """Transposed convolution with one fixed filter for every channel."""
    channels = x.shape[1]
    return F.conv_transpose2d(
        x, BLUR.to(x).expand(channels, 1, 3, 3), stride=2, padding=1, groups=channels
    )


IN_A_ROW = {
    "mean of a mean": lambda x: F.avg_pool2d(F.avg_pool2d(x, 3, 2, 1), 3, 1, 1),
    "mean of a mean, of what is there": lambda x: F.avg_pool2d(
        F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), 2, ceil_mode=True
    ),
    "three means": lambda x: F.avg_pool2d(
        F.avg_pool2d(F.avg_pool2d(x, (3, 5), 1, (1, 2)) / 3, 3, 2, 1) - 1, 3, 1, 1
    ),
    "mean of an interpolation": lambda x: F.avg_pool2d(F.interpolate(x, scale_factor=1.5), 2),
    "interpolated twice": lambda x: F.interpolate(
        F.interpolate(x, size=31, mode="bilinear"), scale_factor=0.75, mode="bicubic"
    ),
    "sum of a sum, turned": lambda x: x.cumsum(-1).flip(-1).cumsum(-1),
    "blurred twice": lambda x: blurred(blurred(x, stride=2) * 2),
    "blurred in other layouts": lambda x: blurred(
        F.pad(blurred(x).permute(0, 2, 3, 1).roll(3, 1), (0, 0, 2, 1)).permute(0, 3, 1, 2)
    ),
    "blurred, reflected, blurred": lambda x: blurred(F.pad(blurred(x), (1, 1, 1, 1), "reflect")),
    "blurred, circular, cut, blurred": lambda x: blurred(
        F.pad(blurred(x), (2, 2, 2, 2), "circular")[..., 1:, ::2]
    ),
    "reflected, blurred": lambda x: blurred(F.pad(x, (1, 1, 1, 1), "reflect"), stride=2),
    "replicated around channels last, mean": lambda x: F.avg_pool2d(
        F.pad(x.movedim(1, -1), (0, 0, 2, 2), "replicate").movedim(-1, 1), 3, 2
    ),
    "each twice, blurred": lambda x: blurred(
        x.repeat_interleave(2, 2).repeat_interleave(2, 3), padding=1
    ),
    "side by side, mean": lambda x: F.avg_pool2d(x.repeat(1, 1, 1, 2), 3, 1, 1),
    "chosen units, blurred": lambda x: blurred(x[:, :, torch.arange(24) // 3]),
    "indices, mean": lambda x: F.avg_pool2d(x.index_select(3, torch.arange(48) // 2), (1, 3), 1),
    "sum of rows of a mean": lambda x: F.avg_pool2d(x, 3, 2, 1).sum(2, keepdim=True),
    "mean of a mean in another type": lambda x: F.avg_pool2d(
        F.avg_pool2d(x, 3, 1, 1).type_as(x).double(), 3, 1
    ),
    "listed units, mean": lambda x: F.avg_pool2d(x[..., [0, 1, 1, 2, 3, 3, 3, 9]], 3, 1),
    "reflected and cropped, mean": lambda x: F.avg_pool2d(
        F.pad(x, (2, 2, -2, -2), "reflect"), 3, 1
    ),
    "sampled, mean": lambda x: F.avg_pool2d(sampled(x), 3, 2, 1),
    "blurred, sampled": lambda x: sampled(blurred(x)),
    "spread, blurred": lambda x: blurred(spread(x)),
    "mean, uneven windows": lambda x: F.adaptive_avg_pool2d(F.avg_pool2d(x, 3, 2), (5, 4)),
    "mean of all of a mean": lambda x: blurred(x, stride=2).mean((2, 3), keepdim=True),
    "mean of all of two": lambda x: blurred(blurred(x)).permute(0, 2, 3, 1).mean((1, 2)),
    "tokens": lambda x: F.avg_pool1d(F.avg_pool1d(x.flatten(2), 5, 2), 4, 3),
    "normed": lambda x: blurred(
        F.batch_norm(blurred(x), *torch.tensor([[0.0] * 3, [4.0] * 3]).to(x))
    ),
}

MATRIX = torch.cos(torch.arange(24.0)[:, None] * (torch.arange(24) + 0.5) * torch.pi / 24)


def written(x):
    """The map with its second row before the first, and the last but one behind the last."""
    rows = x.new_zeros(*x.shape[:2], x.shape[2] + 2, x.shape[3])
    rows[:, :, 1:-1] = x
    rows[:, :, 0] = x[:, :, 1]
    rows[:, :, -1:].copy_(x[:, :, -2:-1])
    return rows


def accumulated(x):
    """Six sums of the map and itself, shifted."""
    for _ in range(6):
        x = x + x.roll(1, 3)
    return x


def in_place(x):
    y = x * 2
    y -= x.flip(-1)
    return y


SUMS = {
    "less its mirror": lambda x: x - x.flip(-1),
    "and its mirror, an odd number of columns": lambda x: x[..., 1:] + x[..., 1:].flip(-1),
    "and shifted": lambda x: x + F.pad(x[..., 1:], (0, 1)),
    "high-pass": lambda x: x - F.avg_pool2d(x, 3, 1, 1),
    "sharpened": lambda x: 1.5 * x + -0.5 * F.avg_pool2d(x, 5, 1, 2, count_include_pad=False),
    "twice, less its mirror, in place": in_place,
    "threefold subtracted": lambda x: torch.sub(x, x.flip(2), alpha=3),
    "subtracted from its mirror": lambda x: torch.rsub(x, x.flip(2)),
    "twice": lambda x: blurred(x + x),
    "mean of two": lambda x: torch.stack([x, x.flip(2)]).mean(0),
    "sum over a new axis": lambda x: torch.stack([x, x.roll(1, 3), x], -1).sum(-1),
    "between two": lambda x: torch.lerp(x, x.flip(2), 0.3),
    "level of a pyramid": lambda x: (
        x - F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear")
    ),
    "blurred differences": lambda x: blurred(x - x.roll(1, 3)),
    "masked by place": lambda x: x * torch.ones(24, 24).tril().to(x) + x.flip(3),
    "with signs by place": lambda x: x * (-1.0) ** torch.arange(24).to(x) + x.roll(1, 3),
    "chosen by place, mean": lambda x: F.avg_pool2d(
        torch.where(torch.ones(24, 24).tril().bool(), x, x.mT), 3, 1
    ),
    "six sums": accumulated,
    "in tokens": lambda x: (
        x + x.flatten(2).transpose(1, 2).roll(5, 1).transpose(1, 2).view(len(x), 3, 24, 24)
    ),
    "halves": lambda x: x[:, :, :12] + x.chunk(2, 2)[1].flip(2) + x.split(12, 3)[0].mT,
    "centred": lambda x: x[..., :9] - x[..., :9].mean((2, 3), keepdim=True),
    "less its windows' means": lambda x: (
        x - F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).mean((-1, -2))
    ),
    "fold of unfold": lambda x: x - F.fold(F.unfold(x, 3, padding=1), (24, 24), 3, padding=1) / 4,
    "a filter between": lambda x: blurred(x + blurred(x, padding=1)),
    "its negative, joined to it": lambda x: torch.cat([-x, x], 3)[..., ::2] - 2 * x,
}

BORDERS = {
    "rows joined": lambda x: F.avg_pool2d(torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], 2), 3, 1),
    "columns joined, interpolated": lambda x: F.interpolate(
        torch.cat([x[..., :2].flip(-1), x], 3), scale_factor=1.7, mode="bilinear"
    ),
    "stacked": lambda x: F.avg_pool2d(torch.stack([x, x], 3).flatten(2, 3), 3, 1),
    "constants and rows": lambda x: F.avg_pool2d(
        torch.cat([x.new_ones(len(x), 3, 1, 24), x, x[:, :, :1]], 2), 3, 1
    ),
    "written": lambda x: F.avg_pool2d(written(x), 3, 1),
    "gathered, mean": lambda x: F.avg_pool2d(
        x.gather(3, (torch.arange(24) // 3).expand(*x.shape)), 3, 1
    ),
}

MATRICES = {
    "cosine transform": lambda x: MATRIX[:9].to(x) @ x @ MATRIX[:7].mT.to(x),
    "transform and its transpose": lambda x: MATRIX.mT.to(x) @ (MATRIX.to(x) @ x),
    "transform of a mean": lambda x: torch.einsum(
        "ij,bcjk->bcik", MATRIX[:9, :22].to(x), F.avg_pool2d(x, 3, 1)
    ),
    "along both axes": lambda x: torch.einsum(
        "ij,bcjk,lk->bcil", MATRIX[:9].to(x), F.avg_pool2d(x, 3, 1, 1), MATRIX[:5].to(x)
    ),
    "mean of a linear function": lambda x: F.avg_pool2d(F.linear(x, MATRIX[:13].to(x)), 3, 1),
    "mean of a running sum": lambda x: F.avg_pool2d(torch.ones(24, 24).tril().to(x) @ x, 3, 1),
    "mean of a transform": lambda x: F.avg_pool2d(
        torch.einsum("ij,bcjk->bcik", MATRIX.to(x), x), 3, 1
    ),
    "mean of windows' means": lambda x: F.avg_pool2d(x.unfold(2, 3, 1).mean(-1), 3, 1),
    "sums of a mean": lambda x: F.avg_pool2d(x, 3, 1, 1) @ torch.ones(24, 4).to(x),
}


def channels_last(function):
    """The same function of a tensor whose channels lie last in memory and in its axes."""
    return lambda x: function(x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2))


ALONG_LAST = {
    "less its mirror": lambda x: x - x.flip(2),
    "rows joined, summed": lambda x: torch.cat([x[:, 1:2], x], 1).cumsum(1),
    "mean over rows": lambda x: x - x.mean(1, keepdim=True),
    "matrix": lambda x: torch.einsum("ij,bjkc->bikc", MATRIX[:5].to(x), x + x.roll(1, 1)),
}
"""Functions of (batch, rows, columns, channels)."""

EXACT = {
    **{f"in a row: {name}": function for name, function in IN_A_ROW.items()},
    **{f"sum: {name}": function for name, function in SUMS.items()},
    **{f"border: {name}": function for name, function in BORDERS.items()},
    **{f"matrix: {name}": function for name, function in MATRICES.items()},
    **{f"channels last, sum: {name}": channels_last(function) for name, function in SUMS.items()},
    **{
        f"along channels last: {name}": lambda x, function=function: function(
            x.permute(0, 2, 3, 1)
        ).permute(0, 3, 1, 2)
        for name, function in ALONG_LAST.items()
    },
}

NOTED = {
    "half of it between": lambda x: F.avg_pool2d(F.avg_pool2d(x, 3, 1, 1).tril(), 3, 1),
    "and half of it": lambda x: x + x.tril(),
    "channels joined again": lambda x: (
        x + torch.cat([x[:, :1] * torch.ones(24, 24).tril().to(x), x[:, 1:]], 1)
    ),
    "a concatenation between": lambda x: blurred(torch.cat([blurred(x), blurred(x).flip(2)], 1)),
    "another filter for each channel": lambda x: F.conv2d(
        blurred(x), torch.arange(1.0, 28.0).to(x).view(3, 1, 3, 3), groups=3
    ),
    "and filtered, another filter for each channel": lambda x: (
        x + F.conv2d(x, torch.arange(1.0, 28.0).to(x).view(3, 1, 3, 3), padding=1, groups=3)
    ),
}

APART = {
    "mean of means without overlap": lambda x: F.avg_pool2d(F.avg_pool2d(x, 2), 3, 1),
    "nearest of an interpolation": lambda x: F.interpolate(
        F.interpolate(x, size=31, mode="bilinear"), scale_factor=2
    ),
    "one channel and another": lambda x: torch.cat([x[:, :1] + x[:, 1:2], x[:, 1:]], 1),
    "less the mean of the channels": lambda x: x - x.mean(1, keepdim=True),
    "pieces of channels": lambda x: torch.cat([a + b for a, b in [x.split([1, 2], 1)]] * 2, 1)[
        :, 1:
    ],
    "channels twice, mean": lambda x: F.avg_pool2d(x.repeat_interleave(2, 1)[:, ::2], 2),
    "zeros around, blurred": lambda x: blurred(F.pad(x, (1, 1, 1, 1))),
    "sum of a filter of one tap": lambda x: F.conv2d(
        x.cumsum(-1), torch.ones(3, 1, 1, 1).to(x), groups=3
    ),
}


@pytest.mark.parametrize("name", [*EXACT, *NOTED, *APART])
def test_fixed_functions_of_one_tensor_are_exact_or_noted(name):
    """The map is the squared Jacobian; where it is not, a note says so."""
    function = {**EXACT, **NOTED, **APART}[name]
    skeleton = light_copy(Between(function))
    found = measure_skeleton(skeleton, (3, 24, 24))
    exact = squared_jacobian(function, 3, 24, 24)
    error = float((torch.tensor(found.maps["sensitivity"]) - exact).norm() / exact.norm())
    noted = any(n.startswith(NOT_INDEPENDENT) for n in found.notes)
    assert (error > 1e-9, noted) == (name in NOTED, name in NOTED)


@pytest.mark.parametrize("size", [(15, 15), (13, 17)])
@pytest.mark.parametrize("counted", [True, False])
@pytest.mark.parametrize("window", [(2, 2, 0), (2, 1, 1), (3, 2, 1), (4, 3, 2), (5, 2, 1)])
def test_a_mean_pool_that_is_cut_off_at_the_end_divides_by_what_is_left(window, counted, size):
    """As torch's with `ceil_mode`, along one axis and two."""
    options = {"ceil_mode": True, "count_include_pad": counted}
    for pool in (
        lambda x: F.avg_pool2d(x, *window, **options),
        lambda x: F.avg_pool1d(x.flatten(2), *window, **options)[:, :, None],
    ):
        found = energy_map(light_copy(Between(pool)), (3, *size))[0]
        exact = squared_jacobian(pool, 3, *size)
        np.testing.assert_allclose(found / found.mean(), exact, rtol=1e-9, atol=1e-12)


BETWEEN = {
    "shared weights": lambda: nn.Conv2d(3, 3, 1),
    "weights of neighbours": lambda: nn.Conv2d(3, 4, 3),
    "weights, a norm and an activation": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()
    ),
}


@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("between", BETWEEN)
def test_overlapping_windows_behind_each_other_are_noted_whatever_lies_between(between, overlap):
    """What two windows of a pool share adds up in the next pool, behind shared weights too."""
    pool = (3, 2, 1) if overlap else (2,)
    net = nn.Sequential(nn.AvgPool2d(*pool), BETWEEN[between](), nn.AvgPool2d(*pool))
    notes = measure_skeleton(light_copy(net), (3, 32, 32)).notes
    assert any(n.startswith(NOT_INDEPENDENT) for n in notes) == overlap


@pytest.mark.parametrize("step", [1, 2])
def test_windows_by_unfold_are_noted_only_if_they_overlap(step):
    """Means of unfolded windows behind an activation share pixels for a step less than the size."""
    means = Between(lambda x: x.unfold(2, 2, step).mean(-1))
    net = nn.Sequential(means, nn.ReLU(), nn.AvgPool2d(2))
    notes = measure_skeleton(light_copy(net), (3, 33, 32)).notes
    assert any(n.startswith(NOT_INDEPENDENT) for n in notes) == (step == 1)


@pytest.mark.parametrize("overlap", [False, True])
def test_windows_are_independent_behind_shared_weights_only_if_they_do_not_overlap(overlap):
    """The same weight at all positions: the square of both pools together is the exact map."""
    pool = (3, 2, 1) if overlap else (2,)
    net = nn.Sequential(nn.AvgPool2d(*pool), nn.Conv2d(3, 3, 1), nn.AvgPool2d(*pool))
    found = energy_map(light_copy(net), (3, 32, 32))[0]
    exact = squared_jacobian(lambda x: F.avg_pool2d(F.avg_pool2d(x, *pool), *pool), 3, 32, 32)
    assert np.allclose(found / found.mean(), exact, rtol=1e-9) == (not overlap)


class Skips(nn.Module):
    """A sum with random weights, from which the input is subtracted."""

    def __init__(self, less):
        super().__init__()
        self.layer, self.head, self.less = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 2, 1), less

    def forward(self, x):
        y = x.flip(-1) + self.layer(x)
        return self.head(y - x if self.less else y)


@pytest.mark.parametrize("less", [False, True])
def test_a_tensor_that_is_added_twice_among_others_is_noted(less):
    """What a sum with random weights between shares with its input is not known."""
    notes = measure_skeleton(light_copy(Skips(less)), (3, 24, 24)).notes
    assert any(n.startswith(NOT_INDEPENDENT) for n in notes) == less


def test_weights_of_attention_are_not_fixed():
    """Sums of products with softmax, and of logits with a position bias, get no note."""

    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.head = nn.Conv2d(3, 9, 1), nn.Conv2d(3, 2, 1)
            self.table = nn.Parameter(torch.ones(24, 3))

        def forward(self, x):
            q, k, v = self.qkv(x).mean(3).transpose(1, 2).chunk(3, 2)
            bias = self.table[torch.arange(24)]
            logits = q @ k.mT + torch.einsum("bnc,mc->bnm", q, bias)
            mixed = v + logits.softmax(-1) @ v
            return self.head(mixed.transpose(1, 2)[..., None])

    notes = measure_skeleton(light_copy(Mixed()), (3, 24, 24)).notes
    assert not any(n.startswith(NOT_INDEPENDENT) for n in notes)


def test_a_product_of_a_tensor_with_itself_is_no_fixed_function():
    """Each product of two values of a pool's output passes energy on; the pools are noted."""

    def products(x):
        pooled = F.avg_pool2d(x, 3, 1, 1)
        return F.avg_pool2d(pooled @ pooled.mT, 2)

    rectified = light_copy(Between(lambda x: products(x).relu()))
    net = light_copy(Between(products))
    maps = [energy_map(copy, (3, 24, 24))[0] for copy in (net, rectified)]
    np.testing.assert_allclose(maps[0], 2 * maps[1], rtol=1e-9)
    assert float(maps[0].min()) > 0
    assert any(n.startswith(NOT_INDEPENDENT) for n in measure_skeleton(net, (3, 24, 24)).notes)


def test_buffers_are_fixed_matrices():
    """A module's buffer is a constant, whose coefficients are squared with those of a pool."""

    class Transformed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("matrix", MATRIX.clone())
            self.head = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.head(F.avg_pool2d(self.matrix @ x, 3, 1))

    found = measure_skeleton(light_copy(Transformed()), (3, 24, 24)).maps["sensitivity"]
    exact = squared_jacobian(lambda x: F.avg_pool2d(MATRIX.to(x) @ x, 3, 1), 3, 24, 24)
    np.testing.assert_allclose(found, exact, rtol=1e-9)


class Framed(nn.Module):
    """A fixed function between two layers of random weights."""

    def __init__(self, function):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 4, 2, 2), nn.Conv2d(4, 2, 3, 2, 1)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x))).mean((2, 3))


FILES = {
    "high-pass": lambda x: x - F.avg_pool2d(x, 3, 1, 1),
    "less its mirror": lambda x: x - x.flip(-1),
    "shifted": lambda x: x + F.pad(x[..., 1:], (0, 1)),
    "mean of two": lambda x: torch.stack([x, x.roll(1, 2)]).mean(0),
    "rows joined, mean": lambda x: F.avg_pool2d(
        torch.cat([x[:, :, 1:2], x, x[:, :, -2:-1]], 2), 3, 1
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_the_map_of_its_module(name, tmp_path):
    """Operators of ONNX are followed as the functions of torch that they were exported from."""
    net = Framed(FILES[name]).eval()
    spec = InputSpec(24, 24)
    path = export_onnx(net, torch.zeros(1, 3, 24, 24), tmp_path / "m.onnx")
    maps = []
    for model in (wrap(net, spec=spec, device="cpu"), open_onnx(path, device="cpu", spec=spec)):
        found = measure_skeleton(model.skeleton(), (3, 24, 24))
        assert not any(n.startswith(NOT_INDEPENDENT) for n in found.notes)
        maps.append(found.maps["sensitivity"])
    np.testing.assert_allclose(maps[0], maps[1], rtol=1e-6)
