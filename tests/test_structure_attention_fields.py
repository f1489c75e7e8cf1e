"""Receptive fields behind attention: those of every unit against the support of its gradient."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attention_nets import CHANNELS, PRODUCTS, Attention, OfWindows
from test_halo import GREY, measured, opened, values
from torch import nn

from perimetry.adapters.pytorch.model import wrap
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.letters import spelled_out
from perimetry.suites.architecture.propagate import energy_map, path_count_map

SIDE = 48


def support(net, side):
    """First row and column, last row and column (4, rows, columns) of what each unit reads."""
    torch.manual_seed(0)
    x = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    out = net.double()(x)
    weights = torch.randn(out.shape[1], dtype=torch.float64)
    found = np.zeros((4, *out.shape[2:]))
    for i, j in np.ndindex(*out.shape[2:]):
        (gradient,) = torch.autograd.grad(out[0, :, i, j] @ weights, x, retain_graph=True)
        size = gradient.abs().sum((0, 1))
        read = size > 1e-15 * size.max()  # masks of -100 leave e^-100
        rows, columns = (read.any(axis).nonzero().flatten().tolist() for axis in (1, 0))
        found[:, i, j] = rows[0], columns[0], rows[-1], columns[-1]
    return found


WINDOWS = {
    **{
        how: [Attention(how)]
        for how in ("plain", "fused", "einsum", "dots", "turned", "module", "linear")
    },
    **{
        f"{how} mask": [Attention(how), Attention(how, shift=2)]
        for how in ("added", "filled", "chosen", "fused", *PRODUCTS)
    },
    "rolled without a mask": [Attention("plain", shift=2, masked=False)],
    "tokens at a distance": [Attention("plain", apart=True, side=3)],
    "one window of all": [Attention("plain", side=3), Attention("plain", side=6, shift=2)],
}


@pytest.mark.parametrize("behind", [None, nn.Conv2d(CHANNELS, 4, 3, 2, 1)], ids=["end", "conv"])
@pytest.mark.parametrize("name", WINDOWS)
def test_attention_within_windows_reads_its_windows(name, behind):
    """Every unit's field is the support of its gradient; masked pairs of tokens read nothing."""
    net = OfWindows(*WINDOWS[name], last=behind).eval()
    units = path_count_map(light_copy(net), (3, SIDE, SIDE))[2]
    exact = support(net, SIDE)
    found = [np.clip(ends, 0, SIDE - 1) for ends in (units.low, units.high)]
    np.testing.assert_array_equal(np.concatenate(found), exact)
    assert not units.everywhere


class NormOfParts(nn.Module):
    """A norm and a convolution in four parts of a map, each an entry of the batch."""

    def __init__(self, norm, last, *, apart):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.last, self.apart = norm, last, apart

    def forward(self, x):
        y = self.first(x)
        half, columns = y.shape[2] // 2, y.shape[3] // 2
        cut = (half, 2, columns, 2) if self.apart else (2, half, 2, columns)
        part, inside = ((3, 5), (2, 4)) if self.apart else ((2, 4), (3, 5))
        y = y.view(len(y), 4, *cut).permute(0, *part, 1, *inside).reshape(-1, 4, half, columns)
        y = self.second(self.norm(y)).view(len(x), 2, 2, 4, half, columns)
        order = (0, 3, 4, 1, 5, 2) if self.apart else (0, 3, 1, 4, 2, 5)
        return self.last(y.permute(order).reshape(len(x), 4, 2 * half, 2 * columns))


@pytest.mark.parametrize("last", [nn.Identity(), nn.Conv2d(4, 4, 3, padding=1)])
@pytest.mark.parametrize("apart", [False, True], ids=["windows", "at a distance"])
@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 6, 6])]
)
def test_a_norm_of_parts_of_a_map_reads_its_part(norm, apart, last):
    """Every unit's field is the support of its gradient, for parts that are entries of the batch.

    Parts at a distance span the map, and beyond it as far as their windows do.
    """
    net = NormOfParts(norm, last, apart=apart).eval()
    units = path_count_map(light_copy(net), (3, 24, 24))[2]
    found = [np.clip(ends, 0, 23) for ends in (units.low, units.high)]
    np.testing.assert_array_equal(np.concatenate(found), support(net, 24))
    assert not units.everywhere


@pytest.mark.parametrize("apart", [False, True], ids=["windows", "at a distance"])
def test_a_batch_norm_of_windows_reads_the_whole_map(apart):
    """Its statistics are those of all entries of the batch: a global path."""
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    net = NormOfParts(norm, nn.Identity(), apart=apart).eval()
    assert path_count_map(light_copy(net), (3, 24, 24))[2].everywhere
    assert (support(net, 24) == np.array([0, 0, 23, 23])[:, None, None]).all()


class OfLines(nn.Module):
    """A function of a map between a stem and a convolution."""

    def __init__(self, function):
        super().__init__()
        self.first = nn.Conv2d(3, CHANNELS, 4, 4)
        self.last = nn.Conv2d(CHANNELS, 4, 3, 2, 1)
        self.mix, self.slide = nn.Linear(12, 12), nn.Conv1d(CHANNELS, CHANNELS, 3, padding=1)
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self, self.first(x)))


def axial(net, y):
    """Attention along each row by itself."""
    q, k, v = net.qkv(y.permute(0, 2, 3, 1)).chunk(3, -1)
    return y + F.scaled_dot_product_attention(q, k, v).permute(0, 3, 1, 2)


STRIPS = {
    "means of rows": lambda net, y: y + y.mean(3, keepdim=True),
    "means of columns": lambda net, y: y + y.mean(2, keepdim=True),
    "means of rows alone": lambda net, y: y.mean(3, keepdim=True).expand_as(y),
    "pooled rows": lambda net, y: y + F.adaptive_avg_pool2d(y, (12, 1)),
    "rows and columns": lambda net, y: y + y.mean(3, keepdim=True) * y.mean(2, keepdim=True),
    "mixed rows": lambda net, y: y + net.mix(y),
    "norms of rows": lambda net, y: y + F.layer_norm(y, (12,)),
    "attention along rows": axial,
    "a convolution of means": lambda net, y: y + net.slide(y.mean(3)).unsqueeze(3),
}


@pytest.mark.parametrize("name", STRIPS)
def test_what_reads_whole_rows_or_columns_reads_strips(name):
    """A strip is no global field: its other side is that of the local path."""
    net = OfLines(STRIPS[name]).eval()
    units = path_count_map(light_copy(net), (3, SIDE, SIDE))[2]
    found = [np.clip(ends, 0, SIDE - 1) for ends in (units.low, units.high)]
    np.testing.assert_array_equal(np.concatenate(found), support(net, SIDE))
    assert not units.everywhere


@pytest.mark.parametrize("how", ["plain", "fused", "einsum", "module", "linear"])
def test_attention_over_all_tokens_is_global_and_leaves_the_local_path(how):
    """The field that is told is then that of the path beside it."""
    net = OfWindows(Attention(how, side=12))
    units = path_count_map(light_copy(net.eval()), (3, SIDE, SIDE))[2]
    assert units.everywhere
    assert (units.size == 4).all()


def test_tiles_of_a_network_of_windows_have_an_exact_overlap():
    """Two blocks, the second rolled: tiles at multiples of the window, with this overlap, agree."""
    torch.manual_seed(0)
    blocks = (Attention("added"), Attention("added", shift=2))
    net = OfWindows(
        *blocks, first=nn.Conv2d(1, CHANNELS, 3, 1, 1), last=nn.Conv2d(CHANNELS, 1, 3, 1, 1)
    )
    found = values(measured(opened(net)))
    assert (found["exact_overlap"], found["alignment"], found["exact_error"]) == (8, 4, 0)
    assert found["edge_error"] > 1e-3


@pytest.mark.parametrize(
    ("equation", "shapes", "terms", "letters"),
    [
        ("...ij, ...jd -> ...id", [(2, 3, 4, 5), (2, 3, 5, 6)], ["abij", "abjd"], "abid"),
        ("...ij,jd->i...d", [(2, 4, 5), (5, 6)], ["aij", "jd"], "iad"),
        ("...i,...i->...", [(2, 3, 4), (3, 4)], ["abi", "bi"], "ab"),
        ("ij,kj", [(2, 3), (4, 3)], ["ij", "kj"], "ik"),
        ("...ba", [(5, 2, 3)], ["cba"], "cab"),
    ],
)
def test_letters_take_the_place_of_dots_and_of_what_is_left_unsaid(
    equation, shapes, terms, letters
):
    """Written out, torch computes the same."""
    tensors = [torch.rand(shape) for shape in shapes]
    assert spelled_out(equation, tensors) == (terms, letters)
    whole = torch.einsum(f"{','.join(terms)}->{letters}", *tensors)
    torch.testing.assert_close(torch.einsum(equation, *tensors), whole)


class OneImage(nn.Module):
    """Two sums, of which only one image at a time reaches the second."""

    def __init__(self):
        super().__init__()
        self.first, self.second = (nn.Conv2d(n, 4, 3, 2, 1) for n in (3, 4))

    def forward(self, x):
        y = self.first(x)
        y = (y + y.flip(-1)).reshape(1, 4, *y.shape[2:])
        y = self.second(y)
        return (y + y.flip(-2)).mean((2, 3))


def test_a_step_is_found_again_at_another_size_by_a_network_of_one_image():
    """The pass over two images breaks before the second sum, and that over one does not."""
    spec = replace(GREY, channels=3, mean=(0.0,) * 3, std=(1.0,) * 3)
    model = wrap(OneImage().eval(), spec=spec, device="cpu", target=":add#2")
    assert model.resized(64, 64).target.name == ":add#2"


def of_groups(grouped):
    """Attention of four heads of queries along rows, which share two of keys and values."""

    def function(net, y):
        q, k, v = net.qkv(y.permute(0, 2, 3, 1)).chunk(3, -1)
        q, k, v = (t.unflatten(-1, (-1, 2)).transpose(2, 3) for t in (q, k[..., :4], v[..., :4]))
        if grouped:
            out = F.scaled_dot_product_attention(q, k, v, enable_gqa=True)
        else:
            heads = [t.repeat_interleave(q.shape[2] // 2, 2) for t in (k, v)]
            out = F.scaled_dot_product_attention(q, *heads)
        return y + out.transpose(2, 3).flatten(3).permute(0, 3, 1, 2)

    return OfLines(function).eval()


def test_heads_that_share_keys_and_values_are_as_with_copies_of_these():
    """The map and the fields are those of the network in which every head has its own."""
    size = (3, SIDE, SIDE)
    grouped, copied = (light_copy(of_groups(g)) for g in (True, False))
    np.testing.assert_allclose(energy_map(grouped, size), energy_map(copied, size), rtol=1e-12)
    fields = [path_count_map(net, size)[2] for net in (grouped, copied)]
    np.testing.assert_array_equal(fields[0].low, fields[1].low)
    found = [np.clip(ends, 0, SIDE - 1) for ends in (fields[0].low, fields[0].high)]
    np.testing.assert_array_equal(np.concatenate(found), support(of_groups(grouped=True), SIDE))
