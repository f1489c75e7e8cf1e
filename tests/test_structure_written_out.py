"""`structure` of torch functions that are written out by others, and of fixed filters."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from structure_nets import BLUR, Between, squared_jacobian
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.expected_maps import NOT_INDEPENDENT
from perimetry.suites.architecture.propagate import energy_map
from perimetry.suites.structure import measure_skeleton

SIDE = 8
RANDOM = torch.Generator().manual_seed(0)
MATRIX, MASK = (torch.randn(SIDE, SIDE, generator=RANDOM) for _ in range(2))
MASKS = torch.randn(3, SIDE, SIDE, generator=RANDOM)
VECTOR = torch.tensor([1.0, 0, 2, 0, 3, 1, 1, 4])
PLACES = torch.tensor([0, 2, 2, 5, 7, 1, 3, 3])
TAPS = torch.randn(3, 1, 3, generator=RANDOM)
FILTERS = torch.randn(4, 3, 3, 3, generator=RANDOM)
BLURS = BLUR.expand(3, 1, 3, 3)


def over(x):
    """`x`, other than even: the image times fixed masks, one a channel."""
    return x * MASKS.to(x)


def lines(function):
    """A function of (batch, channels, units) on the units of the map, row by row."""
    return lambda x: function(over(x).flatten(2))[:, :, None]


def volumes(function):
    """A function of (batch, channels, depth, rows, columns) on a map of depth one."""
    return lambda x: function(over(x)[:, :, None])[:, :, 0]


def wide(function):
    """A function of one channel's map, for all channels."""
    return lambda x: function(x[0, 0])[None, None].expand(1, 3, -1, -1)


FIXED = {
    "diff": lambda x: x.diff(dim=3),
    "second diff": lambda x: torch.diff(x, n=2, dim=2, prepend=x[:, :, :1]),
    "gradient": lambda x: torch.gradient(x, dim=3, spacing=2, edge_order=2)[0],
    "trapezoid": lambda x: torch.trapezoid(x, torch.arange(SIDE) ** 2, dim=3)[..., None],
    "cumulative_trapezoid": lambda x: torch.cumulative_trapezoid(x, dx=2, dim=3),
    "hstack": lambda x: torch.hstack([x, x.roll(1, 3)]),
    "vstack": lambda x: torch.vstack([x, x.roll(1, 3)]).unflatten(0, (2, -1)).sum(0),
    "dstack": lambda x: torch.dstack([x, x.roll(1, 3)]),
    "column_stack": lambda x: torch.column_stack([x, x.roll(1, 3)]),
    "block_diag": lambda x: torch.block_diag(*x[0])[None, None].expand(1, 3, -1, -1),
    "hsplit": lambda x: torch.hsplit(x, 3)[1].expand(-1, 3, -1, -1),
    "dsplit": lambda x: x.dsplit((2, 5))[1],
    "tensor_split": lambda x: torch.tensor_split(x, 3, dim=2)[1],
    "tile": lambda x: torch.tile(x, (2, 1)),
    "unsafe_chunk": lambda x: torch.unsafe_chunk(x, 3, 2)[0],
    "narrow_copy": lambda x: torch.narrow_copy(x, 2, 1, 5),
    "broadcast_to": lambda x: x[:, :, :1].broadcast_to(x.shape),
    "broadcast_tensors": lambda x: torch.broadcast_tensors(x[:, :, :1], x)[0],
    "ravel": lambda x: x.ravel()[:16].view(1, 1, 2, SIDE).expand(1, 3, -1, -1),
    "adjoint": lambda x: x[:, :, :5].adjoint(),
    "constant_pad_nd": lambda x: torch.constant_pad_nd(x, (1, 2, 0, -3)),
    "tensordot": lambda x: torch.tensordot(x, MATRIX.to(x), dims=([2], [0])).transpose(2, 3),
    "inner": lambda x: torch.inner(x, MATRIX.to(x)),
    "mv": lambda x: torch.mv(x.reshape(-1, SIDE), VECTOR.to(x)).view(1, 3, SIDE, 1),
    "a vector from the right": lambda x: (x @ VECTOR.to(x))[..., None],
    "a vector from the left": lambda x: (VECTOR.to(x) @ x)[..., None],
    "outer": lambda x: torch.outer(x.flatten(), VECTOR.to(x)).view(1, 3, SIDE, -1),
    "kron": lambda x: torch.kron(x, MATRIX[:2, :3].to(x)),
    "multi_dot": wide(lambda y: torch.linalg.multi_dot([y, MATRIX.to(y)])),
    "vecdot": lambda x: torch.linalg.vecdot(x, VECTOR.to(x))[..., None],
    "addmv": wide(lambda y: torch.addmv(VECTOR.to(y), y, VECTOR.to(y), alpha=2)[None]),
    "addbmm": lambda x: torch.addbmm(VECTOR.to(x), MATRIX.to(x).expand(3, -1, -1), x[0])[
        None, None
    ].expand(1, 3, -1, -1),
    "addr": wide(lambda y: torch.addr(MASK.to(y), y[2], VECTOR.to(y), alpha=2)),
    "trace": wide(lambda y: torch.trace(y) * MASK.to(y)),
    "sum_to_size": lambda x: x.sum_to_size(1, 3, 1, SIDE),
    "index_add": lambda x: torch.zeros_like(x).index_add(3, PLACES, x, alpha=2),
    "index_add, in place": lambda x: x.clone().index_add_(2, PLACES, x),
    "index_copy": lambda x: x.index_copy(3, PLACES[:2], x[..., 5:7]),
    "index_fill": lambda x: x.index_fill(3, PLACES[:3], 1.0),
    "scatter": lambda x: torch.zeros_like(x).scatter(3, torch.arange(8).flip(0).expand_as(x), x),
    "scatter_add": lambda x: torch.zeros_like(x).scatter_add(3, PLACES.expand_as(x), x),
    "slice_scatter": lambda x: x.slice_scatter(x[:, :, 2:5], 2, 0, 6, 2),
    "select_scatter": lambda x: x.select_scatter(x[:, :, 5], 2, 0),
    "take": lambda x: torch.take(x, torch.arange(x.numel()).view_as(x).flip(3)),
    "masked_select": lambda x: x.masked_select(torch.ones(8, 8).tril().bool()).view(1, 3, 1, -1),
    "zero_": lambda x: torch.cat([x[:, :, :5].clone().zero_(), x[:, :, 5:]], 2),
    "deg2rad": lambda x: x.deg2rad() + 0.01 * x.roll(1, 3),
    "avg_pool1d": lines(lambda x: F.avg_pool1d(x, 3, 2, 1, ceil_mode=True)),
    "avg_pool3d": volumes(lambda x: F.avg_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))),
    "avg_pool3d over channels": lambda x: F.avg_pool3d(
        over(x)[:, None], 3, 2, 1, ceil_mode=True, count_include_pad=False
    )[:, 0],
    "avg_pool3d, own divisor": lambda x: F.avg_pool3d(x[:, None], 3, 2, divisor_override=5)[:, 0],
    "two mean pools of volumes": volumes(
        lambda x: F.avg_pool3d(F.avg_pool3d(x, (1, 3, 3), 1), (1, 2, 2), 1)
    ),
    "trilinear": volumes(lambda x: F.interpolate(x, scale_factor=(1, 1.5, 1.5), mode="trilinear")),
    "filters of lines": lines(lambda x: F.conv1d(x, TAPS.to(x), stride=2, groups=3)),
    "filters of volumes": volumes(lambda x: F.conv3d(x, FILTERS[:, :, None].to(x))[:, :3]),
    "two filters of volumes": volumes(
        lambda x: F.conv3d(
            F.conv3d(x, BLURS[:, :, None].to(x), groups=3), BLURS[:, :, None].to(x), groups=3
        )
    ),
    "filters of a map": lambda x: F.conv2d(over(x), FILTERS.to(x), padding=1)[:, :3],
    "one filter of several": lambda x: F.conv2d(x, FILTERS.to(x), stride=2)[:, :1].expand(
        -1, 3, -1, -1
    ),
    "filters of a map, transposed": lambda x: F.conv_transpose2d(
        over(x), FILTERS.transpose(0, 1).to(x), stride=2
    )[:, :3],
    "a filter for each channel, transposed": lambda x: F.conv_transpose2d(
        over(x), FILTERS[:3, :1].to(x), stride=2, groups=3
    ),
    "conv_transpose1d": lines(lambda x: F.conv_transpose1d(x, TAPS.to(x), stride=2, groups=3)),
    "conv_transpose3d": volumes(
        lambda x: F.conv_transpose3d(x, BLURS[:, :, None].to(x), stride=2, groups=3)
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_a_fixed_function_counts_by_its_squared_coefficients(name):
    """The expected map is that of autograd's Jacobian, with a note where that is not known."""
    found = measure_skeleton(light_copy(Between(FIXED[name])), (3, SIDE, SIDE))
    expected = squared_jacobian(FIXED[name], 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-6, atol=1e-9)
    assert name == "addbmm" or not any(n.startswith(NOT_INDEPENDENT) for n in found.notes)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            lambda x: F.max_pool1d(x.flatten(2), 3, 2, 1, 2)[:, :, None],
            lambda x: F.max_pool2d(x.flatten(2)[:, :, None], (1, 3), (1, 2), (0, 1), (1, 2)),
        ),
        (
            lambda x: F.max_pool3d(x[:, :, None], (1, 3, 3), 2, (0, 1, 1), ceil_mode=True)[:, :, 0],
            lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        ),
        (
            lambda x: F.max_pool1d(F.pad(x.flatten(2), (1, 1), value=-torch.inf), 3, 2)[:, :, None],
            lambda x: F.max_pool2d(x.flatten(2)[:, :, None], (1, 3), (1, 2), (0, 1)),
        ),
    ],
)
def test_a_max_pool_of_lines_or_volumes_is_that_of_maps(one, other):
    """With an axis of size one it has the map of the pool over two axes."""
    maps = [
        energy_map(light_copy(Between(lambda x, f=f: f(over(x)))), (3, 8, 8)) for f in (one, other)
    ]
    np.testing.assert_allclose(*maps)


class Lines(nn.Module):
    """A transposed convolution of random weights over the units of a map, row by row."""

    def __init__(self, layer, axes):
        super().__init__()
        self.layer, self.axes = layer, axes

    def forward(self, x):
        x = over(x)
        return (
            self.layer(x.flatten(2))[:, :, None]
            if self.axes == 1
            else self.layer(x[:, :, None])[:, :, 0]
        )


@pytest.mark.parametrize("axes", [1, 3])
def test_a_transposed_convolution_of_lines_or_volumes_is_that_of_maps(axes):
    """Random weights over one axis of a row, or over volumes of depth one."""
    if axes == 1:
        layers = (nn.ConvTranspose1d(3, 4, 3, 2), nn.ConvTranspose2d(3, 4, (1, 3), (1, 2)))
        other = nn.Sequential(Between(lambda x: over(x).flatten(2)[:, :, None]), layers[1])
    else:
        layers = (nn.ConvTranspose3d(3, 4, (1, 3, 3), (1, 2, 2)), nn.ConvTranspose2d(3, 4, 3, 2))
        other = nn.Sequential(Between(over), layers[1])
    other[0].head = nn.Identity()
    maps = [energy_map(light_copy(net), (3, 8, 8)) for net in (Lines(layers[0], axes), other)]
    np.testing.assert_allclose(*maps)


def test_a_learned_vector_is_random_weights():
    """Scores of units by a learned vector: the mean of squares, not the square of a sum."""

    class Scores(nn.Module):
        def __init__(self):
            super().__init__()
            self.v = nn.Parameter(torch.randn(SIDE))

        def forward(self, x):
            return (F.avg_pool2d(x, (1, 3), 1, (0, 1)) @ self.v)[..., None]

    found = energy_map(light_copy(Scores()), (3, SIDE, SIDE))[0]
    pool = squared_jacobian(lambda x: F.avg_pool2d(x, (1, 3), 1, (0, 1)), 3, SIDE, SIDE)
    np.testing.assert_allclose(found / found.mean(), pool)


def test_a_diagonal_of_einsum_is_refused_with_its_equation():
    """The reason names the letter's equation."""
    with pytest.raises(NotApplicableError, match="bchh->bch"):
        energy_map(
            light_copy(Between(lambda x: torch.einsum("bchh->bch", x)[:, :, None])), (3, 8, 8)
        )


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x + torch.trace(x[0, 0]),
        lambda x: x + (x * MASK.to(x)).sum((1, 2, 3), keepdim=True),
    ],
)
def test_a_sum_of_units_and_a_mean_of_all_of_them_has_a_note(function):
    """Their coefficients add up in amplitude, which is not computed over several channels."""
    found = measure_skeleton(light_copy(Between(function)), (3, SIDE, SIDE))
    assert any(note.startswith(NOT_INDEPENDENT) for note in found.notes)
