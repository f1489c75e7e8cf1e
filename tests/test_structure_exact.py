"""`structure` against autograd: maps are squared Jacobians, receptive fields supports of gradients.

What has no rule is refused by name; a stride that is no whole number leaves no phases; the order of
a tensor's axes changes no number.
"""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import energy_map, path_count_map
from perimetry.suites.architecture.receptive_field import layer_table, summarise_field
from perimetry.suites.structure import measure_skeleton

SIDE = 48


class Apply(nn.Module):
    """A function of x (batch, channels, rows, columns) between two layers, with its own modules."""

    def __init__(self, function, *, patch=4, behind=3, **modules):
        super().__init__()
        self.stem = nn.Conv2d(3, 6, patch, patch)
        self.function = function
        self.modules_ = nn.ModuleDict(modules)
        self.head = nn.Conv2d(6, 4, behind, padding=behind // 2)

    def forward(self, x):
        return self.head(self.function(self.stem(x), **self.modules_))


def field_of(module, size=SIDE):
    return summarise_field(path_count_map(light_copy(module.eval()), (3, size, size))[2])


def support(module, size=SIDE, unit=None):
    """First pixel and number of pixels, per axis, from which a unit has a gradient, over seeds."""
    touched = torch.zeros(size, size, dtype=torch.bool)
    for seed in range(3):
        torch.manual_seed(seed)
        x = torch.randn(1, 3, size, size, dtype=torch.float64, requires_grad=True)
        y = module.double()(x)
        row, column = unit or (y.shape[2] // 2, y.shape[3] // 2)
        (gradient,) = torch.autograd.grad(y[0, :, row, column].abs().sum(), x)
        touched |= gradient[0].abs().sum(0) > 0
    rows, columns = touched.any(1).nonzero(), touched.any(0).nonzero()
    return [(int(n.min()), int(n.max() - n.min()) + 1) for n in (rows, columns)]


def squared_jacobian(function, channels, rows, columns):
    """Sum over the outputs of the squared Jacobian (rows, columns) of a linear function, mean 1."""
    x = torch.zeros(1, channels, rows, columns, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(function, x)
    found = (jacobian.reshape(-1, channels, rows, columns) ** 2).sum((0, 1))
    return found / found.mean()


class Between(nn.Module):
    """A fixed linear function and a layer of random weights of one tap."""

    def __init__(self, function):
        super().__init__()
        self.function = function
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, x):
        return self.head(self.function(x))


def windows_mean(x):
    return F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 1).unfold(3, 3, 1).mean((-1, -2))


LOCAL = {
    "F.unfold with gaps": Apply(
        lambda x, layer: layer(F.unfold(x, 3, 2, 2).transpose(1, 2)).transpose(1, 2).view_as(x),
        layer=nn.Linear(54, 6),
    ),
    "Tensor.unfold": Apply(windows_mean),
    "fold of unfold": Apply(lambda x: F.fold(F.unfold(x, 3, padding=1), x.shape[2:], 3, padding=1)),
    "roll": Apply(lambda x: x + x.roll(3, -1)),
    "roll of rows in tokens": Apply(
        lambda x: x + x.flatten(2).transpose(1, 2).roll(12, 1).transpose(1, 2).view_as(x)
    ),
    "flip of windows": Apply(
        lambda x: x + x.unflatten(3, (4, 3)).flip(4).flatten(3).unflatten(2, (4, 3)).flatten(2, 3)
    ),
    "cumulative sum": Apply(lambda x: x.cumsum(-1)),
    "one column shifted": Apply(lambda x: x + F.pad(x, (2, -2))),
    "slice with a step": Apply(lambda x: x[:, :, ::2, 1::2]),
    "pixel shuffle": Apply(
        lambda x, layer: F.pixel_shuffle(layer(x), 2), layer=nn.Conv2d(6, 24, 3, padding=1)
    ),
    "space to depth by reshape": Apply(
        lambda x, layer: layer(
            x.unflatten(2, (6, 2)).unflatten(4, (6, 2)).permute(0, 1, 3, 5, 2, 4).flatten(1, 3)
        ),
        layer=nn.Conv2d(24, 6, 1),
    ),
    "transposed convolution": Apply(
        lambda x, layer: layer(x), layer=nn.ConvTranspose2d(6, 6, 5, 2, 1, 1)
    ),
    "transposed convolution with gaps": Apply(
        lambda x, layer: layer(x), layer=nn.ConvTranspose2d(6, 6, 3, 1, 2, dilation=3)
    ),
    "dilated max-pool": Apply(lambda x: F.max_pool2d(x, 3, 2, 1, dilation=2)),
    "max-pool rounded up": Apply(lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True)),
    "mean-pool of tokens": Apply(
        lambda x: x + F.interpolate(F.avg_pool1d(x.flatten(2), 4), scale_factor=4).view_as(x)
    ),
    "windows, merged by a linear layer": Apply(
        lambda x, layer: (
            layer(x.unflatten(3, (4, 3)).unflatten(2, (4, 3)).transpose(3, 4).flatten(4))
            .unflatten(4, (3, 3))
            .transpose(3, 4)
            .flatten(4)
            .flatten(2, 3)
        ),
        layer=nn.Linear(9, 9),
        behind=1,
    ),
    "convolution within patches": Apply(
        lambda x, layer: (
            layer(
                x.unflatten(3, (3, 4)).unflatten(2, (3, 4)).permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
            )
            .unflatten(0, (-1, 3, 3))
            .permute(0, 3, 1, 4, 2, 5)
            .flatten(4)
            .flatten(2, 3)
        ),
        layer=nn.Conv2d(6, 6, 7, padding=3),
        behind=1,
    ),
    "channels with unlike kernels": Apply(
        lambda x, one, two: torch.cat([one(x[:, :3]), two(x[:, 3:])], 1),
        one=nn.Conv2d(3, 3, 3, padding=1),
        two=nn.Conv2d(3, 3, 5, padding=2),
    ),
    "gate of a neighbourhood": Apply(
        lambda x, layer: x * layer(x).sigmoid(), layer=nn.Conv2d(6, 6, 3, padding=1)
    ),
    "chosen by place": Apply(
        lambda x: torch.where(torch.ones(12, 12).tril().bool(), x.roll(1, 3), x.roll(2, 2))
    ),
    "masked by place": Apply(
        lambda x: x.roll(2, 3) * torch.ones(12, 12).tril(-1).to(x) + x.roll(1, 2).triu(1)
    ),
    "einsum with a shift": Apply(
        lambda x: torch.einsum("bchw,wv->bchv", x, torch.eye(12).roll(2, 0).to(x))
    ),
    "reversed by an index": Apply(lambda x: x[:, :, torch.arange(11, -1, -1)] + x),
    "row by row": Apply(lambda x: torch.stack([row + 0 for row in x.permute(2, 0, 1, 3)], 2)),
    "a recurrence written out": Apply(lambda x: torch.stack(list(_states(x)), -1)),
    "written in place": Apply(lambda x: _shifted_in_place(x)),
    "circular padding": Apply(lambda x, layer: layer(x), layer=nn.Conv2d(6, 6, 3, padding=1)),
    **{
        f"interpolate {mode} {options}": Apply(
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options)
        )
        for mode, options in [
            ("nearest", {"scale_factor": 2}),
            ("nearest-exact", {"scale_factor": 1.5}),
            ("nearest", {"size": 7}),
            ("bilinear", {"scale_factor": 2}),
            ("bilinear", {"scale_factor": 0.5}),
            ("bilinear", {"size": 18, "align_corners": True}),
            ("bilinear", {"size": (6, 9), "antialias": True}),
            ("bilinear", {"scale_factor": 0.4, "recompute_scale_factor": True}),
            ("bilinear", {"scale_factor": 0.4}),
            ("bicubic", {"scale_factor": (2, 1)}),
            ("bicubic", {"size": 5, "antialias": True}),
            ("area", {"size": 5}),
        ]
    },
}


def _states(x):
    state = torch.zeros_like(x[..., 0])
    for column in range(x.shape[-1]):
        state = (x[..., column] + state).tanh()
        yield state


def _shifted_in_place(x):
    y = torch.zeros_like(x)
    y[:, :, 2:] = x[:, :, :-2]
    y += x
    return y


@pytest.mark.parametrize("name", LOCAL)
def test_the_receptive_field_is_the_support_of_the_gradient(name):
    """The central unit's field is exactly where some weights give it a gradient."""
    module = LOCAL[name]
    size = 96 if "patch" not in name else SIDE
    field = field_of(module, SIDE)
    del size
    assert not field.global_
    for (first, count), low, high in zip(support(module), *field_ends(field), strict=True):
        assert (first, first + count - 1) == (max(low, 0), min(high, SIDE - 1))


def field_ends(field):
    place = (slice(None), *field.units.central)
    return field.units.low[place], field.units.high[place]


@pytest.mark.parametrize(
    "module",
    [
        Apply(lambda x, layer: layer(x.flatten(1)).view_as(x), layer=nn.Linear(864, 864)),
        Apply(lambda x: F.group_norm(x, 2)),
        Apply(lambda x: F.instance_norm(x)),
        Apply(lambda x: F.layer_norm(x, x.shape[1:])),
        Apply(lambda x: x + x.mean((2, 3), keepdim=True)),
        Apply(lambda x: x + x.mean(3, keepdim=True)),
        Apply(lambda x: x * x.amax((2, 3), keepdim=True).sigmoid()),
        Apply(lambda x: x + F.adaptive_avg_pool2d(x, 1)),
        Apply(lambda x: x + torch.einsum("bchw,bdhw->bcd", x, x).mean(2)[..., None, None]),
        Apply(lambda x, layer: x + layer(x.flatten(2)).view_as(x), layer=nn.Linear(144, 144)),
    ],
)
def test_what_reads_the_whole_map_is_said_to_be_global(module):
    """Sums, norms and products over all units, or all units of a row, are global."""
    assert path_count_map(light_copy(module.eval()), (3, SIDE, SIDE))[2].everywhere
    local = light_copy(nn.Conv2d(3, 3, 3, padding=1))
    assert not path_count_map(local, (3, SIDE, SIDE))[2].everywhere


GRID = F.affine_grid(
    torch.tensor([[[0.9, 0.1, 0.05], [-0.1, 0.9, 0]]]), (1, 3, 24, 24), align_corners=False
)
MATRIX = torch.randn(24, 24, generator=torch.Generator().manual_seed(0)) / 5
BLUR = torch.tensor([1.0, 2, 1]).outer(torch.tensor([1.0, 3, 1]))

LINEAR = {
    "grid_sample": lambda x: F.grid_sample(
        x, GRID.to(x).expand(len(x), -1, -1, -1), align_corners=False
    ),
    "grid_sample at the nearest": lambda x: F.grid_sample(
        x,
        GRID.to(x).expand(len(x), -1, -1, -1),
        mode="nearest",
        padding_mode="border",
        align_corners=True,
    ),
    "linear by a buffer": lambda x: F.linear(x, MATRIX.to(x)),
    "matrix from the left": lambda x: MATRIX.to(x) @ x,
    "matrix from the right": lambda x: x @ MATRIX.to(x),
    "fixed filter": lambda x: F.conv2d(x, BLUR.to(x).expand(3, 1, 3, 3), groups=3, stride=2),
    "fixed equal filter beside its input": lambda x: (
        x + F.conv2d(x, torch.ones(3, 1, 3, 3).to(x), padding=1, groups=3).roll((5, 5), (2, 3))
    ),
    "fixed transposed filter": lambda x: F.conv_transpose2d(
        x, BLUR.to(x).expand(3, 1, 3, 3), stride=2, groups=3
    ),
    "cumulative sum": lambda x: x.cumsum(2),
    "mean-pool, borders not counted": lambda x: F.avg_pool2d(
        x, 3, 2, 1, ceil_mode=True, count_include_pad=False
    ),
    "lower triangle": torch.tril,
    "sum, operands by name": lambda x: torch.add(input=x, other=x.roll(7, 3), alpha=-2),
    "difference in place, by name": lambda x: x.clone().sub_(other=x.roll(7, 3), alpha=3),
    "product by name": lambda x: torch.mul(torch.ones(24, 24).tril().to(x), other=x),
    "quotient by name": lambda x: x.div(other=1 + torch.arange(24).to(x)),
    "matrix by name": lambda x: torch.matmul(input=x, other=MATRIX.to(x)),
    "matrices by name": lambda x: torch.mm(input=x.reshape(-1, 24), mat2=MATRIX.to(x)).view_as(x),
    "reshaped by name": lambda x: torch.reshape(input=x, shape=(-1, 3, 12, 48))[..., :40],
    "flipped by name": lambda x: torch.flip(input=x, dims=(2,))[:, :, 3:],
    "chosen, all by name": lambda x: torch.where(
        condition=torch.eye(24).bool(), input=x, other=x.roll(7, 3)
    ),
    "chosen by a method": lambda x: x.where(torch.eye(24).bool(), x.roll(7, 3)),
    "chosen by a method, by name": lambda x: x.where(condition=torch.eye(24).bool(), other=0.0),
    "between two, by name": lambda x: x.lerp(end=x.roll(7, 3), weight=0.25),
    "between two by place": lambda x: torch.lerp(x, x.roll(7, 3), torch.eye(24).to(x)),
    "between two, in place": lambda x: x.clone().lerp_(x.roll(7, 3), torch.arange(24).to(x) / 32),
    "constant and matrix": lambda x: torch.addmm(
        input=torch.ones(24).to(x), mat1=x.reshape(-1, 24), mat2=MATRIX.to(x), beta=2, alpha=3
    ).view_as(x),
    "constant and matrices": lambda x: torch.baddbmm(
        torch.ones(24, 24).to(x), x.flatten(0, 1), MATRIX.to(x).expand(3 * len(x), 24, 24)
    ).view_as(x),
    "product added": lambda x: torch.addcmul(
        input=x, tensor1=x.roll(4, 2), tensor2=torch.eye(24).to(x), value=3
    ),
    "quotient added": lambda x: torch.addcdiv(x, x.roll(4, 2), 2 + torch.eye(24).to(x), value=3),
    "in place on a copy": lambda x: x.clone().mul_(3) + x.roll(7, 2),
    "in place, then read again": lambda x: _doubled_first(x),
    **{
        f"interpolate {mode} {options}": (
            lambda x, mode=mode, options=options: F.interpolate(x, mode=mode, **options)
        )
        for mode, options in [
            ("nearest", {"scale_factor": 0.7}),
            ("nearest-exact", {"size": 17}),
            ("bilinear", {"scale_factor": 0.43}),
            ("bilinear", {"scale_factor": 0.43, "recompute_scale_factor": True}),
            ("bilinear", {"scale_factor": 1.3, "align_corners": True}),
            ("bilinear", {"size": (11, 24), "antialias": True}),
            ("bicubic", {"scale_factor": (0.55, 2.2)}),
            ("bicubic", {"size": 10, "antialias": True, "align_corners": False}),
            ("area", {"scale_factor": 0.4}),
        ]
    },
}


def _doubled_first(x):
    y = x.clone()
    z = y
    z.mul_(2)
    return y + x.roll(3, 3)


@pytest.mark.parametrize("name", LINEAR)
def test_a_fixed_linear_function_counts_by_its_squared_coefficients(name):
    """The expected map is that of autograd's Jacobian, to rounding."""
    expected = squared_jacobian(LINEAR[name], 3, 24, 24)
    found = energy_map(light_copy(Between(LINEAR[name])), (3, 24, 24))[0]
    np.testing.assert_allclose(found / found.mean(), expected, rtol=1e-9, atol=1e-12)


REFUSED = {
    "fft_fft2": lambda x: torch.fft.fft2(x).real,
    "sort": lambda x: x.sort(-1)[0],
    "topk": lambda x: x.flatten(2).topk(144)[0].view_as(x),
    "cumprod": lambda x: x.cumprod(-1),
    "cummax": lambda x: x.cummax(-1)[0],
    "gt": lambda x: x * (x > 0),
    "sin": torch.sin,
    "erf": torch.erf,
    "grid_sample": lambda x: F.grid_sample(x, x[:, :2].permute(0, 2, 3, 1), align_corners=False),
    "scatter": lambda x: torch.zeros_like(x).scatter(3, torch.zeros(x.shape).long(), x),
    "max_pool2d": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "lp_pool2d": lambda x: F.lp_pool2d(x, 3, 3, 1),
    "div": lambda x: torch.div(x, 3, rounding_mode="floor"),
    "to": lambda x: x.to(torch.int32).to(x.dtype) + x,
    "type": lambda x: x.type(torch.int32).to(x.dtype) + x,
    "bucketize": lambda x: torch.bucketize(x, torch.arange(4.0).double()).double() + x,
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_without_a_rule_is_refused_by_name_and_layer(name):
    """It is never run as it is: the reason names the operation, and the layer it is in."""

    class Layer(nn.Module):
        def forward(self, x):
            return REFUSED[name](x)

    net = Apply(lambda x, layer: layer(x), layer=Layer())
    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert "modules_.layer" in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("lstm", nn.LSTM(6, 6, batch_first=True)),
        ("gru", nn.GRU(6, 6, batch_first=True)),
        ("rnn_tanh", nn.RNN(6, 6, batch_first=True)),
    ],
)
def test_a_sequence_model_is_refused_by_name(name, layer):
    """Recurrent layers over the tokens of a map have no rule."""
    net = Apply(
        lambda x, layer: layer(x.flatten(2).transpose(1, 2))[0].transpose(1, 2).view_as(x),
        layer=layer,
    )
    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert name in str(error.value)


class Squared(torch.autograd.Function):
    """A function whose insides the trace cannot follow."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, gradient):
        return 2 * ctx.saved_tensors[0] * gradient


def test_what_runs_outside_torch_s_functions_is_refused():
    """A custom autograd function, and an operator called by its overload, are not run as is."""
    for function in (Squared.apply, lambda x: torch.ops.aten.cumprod.default(x, 3) + x):
        with pytest.raises(NotApplicableError):
            measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))


def test_what_is_computed_again_in_the_backward_pass_is_refused():
    """The forward of a checkpoint runs twice, the second time where no energy is followed."""

    def function(x):
        again = torch.utils.checkpoint.checkpoint
        return again(lambda y: y.roll(1, 2) + y[:, :, :1], x, use_reentrant=False)

    with pytest.raises(NotApplicableError) as error:
        measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))
    assert "checkpoint" in str(error.value)


def test_a_tensor_whose_view_was_changed_in_place_is_refused():
    """Energies share no storage: a change of a view would be lost without a word."""

    def function(x):
        y = x.clone()
        y[:, :, :6].mul_(0)
        return y

    with pytest.raises(NotApplicableError):
        measure_skeleton(light_copy(Apply(function)), (3, SIDE, SIDE))


def same(first, second):
    """Whether two networks have the same metrics and maps."""
    a, b = (measure_skeleton(light_copy(m.eval()), (3, 96, 96)) for m in (first, second))
    assert a.maps.keys() == b.maps.keys()
    for name in a.maps:
        np.testing.assert_allclose(a.maps[name], b.maps[name], rtol=1e-9)
    for name, estimate in a.metrics.items():
        known = None if estimate.value is None else pytest.approx(estimate.value, rel=1e-9)
        assert b.metrics[name].value == known, name
    assert [row["size"] for row in a.tables["even_sizes"]] == [
        row["size"] for row in b.tables["even_sizes"]
    ]


def in_last(function):
    """`function` of a map with channels first, done with channels last."""
    return lambda x, **layers: function(x.permute(0, 2, 3, 1), **layers).permute(0, 3, 1, 2)


LAYOUTS = {
    "pad": (
        lambda x, layer: layer(F.pad(x, (3, 3, 3, 3))),
        lambda x, layer: layer(
            F.pad(x.permute(0, 2, 3, 1), (0, 0, 3, 3, 3, 3)).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(6, 6, 7, 2)},
    ),
    "uneven pad": (
        lambda x, layer: layer(F.pad(x, (0, 1, 2, 1))),
        lambda x, layer: layer(
            F.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 2, 1)).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(6, 6, 3, 2)},
    ),
    "crop": (
        lambda x, layer: layer(x[:, :, 1:, :-2]),
        in_last(lambda x, layer: layer(x[:, 1:, :-2].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)),
        {"layer": lambda: nn.Conv2d(6, 6, 3, 2)},
    ),
    "every second": (
        lambda x: x[:, :, ::2, ::2],
        in_last(lambda x: x[:, ::2, ::2]),
        {},
    ),
    "roll": (lambda x: x + x.roll(2, 2), in_last(lambda x: x + x.roll(2, 1)), {}),
    "linear": (
        lambda x, layer: nn.functional.conv2d(x, layer.weight[..., None, None]),
        in_last(lambda x, layer: layer(x)),
        {"layer": lambda: nn.Linear(6, 6)},
    ),
    "norm": (
        lambda x: F.group_norm(x, 1),
        in_last(lambda x: F.layer_norm(x, x.shape[1:])),
        {},
    ),
    "mean": (
        lambda x: x + x.mean((2, 3), keepdim=True),
        in_last(lambda x: x + x.mean((1, 2), keepdim=True)),
        {},
    ),
    "patches merged": (
        lambda x, layer: layer(torch.cat([x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)),
        lambda x, layer: layer(
            torch.cat(
                [x.permute(0, 2, 3, 1)[:, i::2, j::2] for i in (0, 1) for j in (0, 1)], -1
            ).permute(0, 3, 1, 2)
        ),
        {"layer": lambda: nn.Conv2d(24, 6, 1)},
    ),
}


@pytest.mark.parametrize("resize", [False, True])
@pytest.mark.parametrize("name", LAYOUTS)
def test_the_order_of_the_axes_changes_no_number(name, resize):
    """Channels first and last give the same metrics, maps and sizes; behind a resize too."""
    first, last, makers = LAYOUTS[name]

    def built(function):
        def whole(x, **layers):
            if resize:
                x = F.interpolate(x, scale_factor=0.5, mode="bilinear")
            return function(x, **layers)

        return Apply(whole, **{key: make() for key, make in makers.items()})

    same(built(first), built(last))


def test_a_padding_of_a_channels_last_tensor_keeps_stride_and_layer_table():
    """A channels-last padding keeps stride 2 and three rows of padding on either side."""
    net = Apply(LAYOUTS["pad"][1], patch=1, behind=1, layer=nn.Conv2d(6, 6, 7, 2))
    found = measure_skeleton(light_copy(net), (3, 96, 96))
    assert found.metrics["target_stride"].value == 2
    assert found.metrics["weakest"].value == pytest.approx(9 / 12.25)
    rows = [row for row in found.tables["layers"] if row["name"] == "modules_.layer"]
    assert rows[0]["padding_before"] == rows[0]["padding_after"] == (3, 3)
    assert rows[0]["input"] == (96, 96)


@pytest.mark.parametrize(("want", "stride"), [(224, 240 / 14), (90, 240 / 90 * 16), (120, 32.0)])
def test_a_stride_that_is_no_whole_number_leaves_no_phases(want, stride):
    """It is given as it is, and what rests on the period is missing for that reason."""

    class Resized(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 6, 16, 16)

        def forward(self, x):
            return self.patch(F.interpolate(x, (want, want), mode="bilinear"))

    found = measure_skeleton(light_copy(Resized()), (3, 240, 240))
    assert found.metrics["target_stride"].value == pytest.approx(stride)
    for name in ("weakest", "imbalance", "ratio", "path_ratio", "by_period_2"):
        if stride == round(stride):
            continue
        assert found.metrics[name].value is None
        assert "whole number" in found.metrics[name].reason
    assert found.metrics["relL1"].value is not None


def test_an_adaptive_pool_of_uneven_windows_has_no_stride_of_its_own():
    """32 units in 7 windows are 32 / 7 apart, and no layer with a stride; 64 are 9 apart."""
    net = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveAvgPool2d(7))
    found = measure_skeleton(light_copy(net), (3, 128, 128))
    assert found.metrics["target_stride"].value == pytest.approx(128 / 7)
    assert "whole number" in found.metrics["weakest"].reason
    assert [row["name"] for row in found.tables["layers"]] == ["0"]
    found = measure_skeleton(light_copy(net), (3, 256, 256))
    row = found.tables["layers"][1]
    assert (row["kernel"], row["stride"]) == ((10, 10), (9, 9))
    assert found.metrics["target_stride"].value == 36
    even = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.AdaptiveMaxPool2d((8, 4)))
    found = measure_skeleton(light_copy(even), (3, 256, 256))
    assert found.tables["layers"][1]["stride"] == (8, 16)


def test_a_map_does_not_depend_on_the_variants_of_its_pass():
    """A product of activations near the size above which it is averaged: alone, and among three."""

    def squared(x):
        tokens = x.flatten(2)
        return x + (tokens.mT @ tokens @ tokens.mT).mT.view_as(x)

    net = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), Between(squared))
    net[1].head = nn.Conv2d(6, 2, 3, 2, 1)
    skeleton = light_copy(net)
    alone = energy_map(skeleton, (3, 32, 32))[0]
    for padded in ([None] * 5, [None, 0, 1]):
        np.testing.assert_allclose(energy_map(skeleton, (3, 32, 32), padded=padded)[0], alone)


def test_attention_reads_the_tokens_that_its_mask_allows():
    """Uniform attention under a mask is a mean over the allowed tokens, written in three ways."""
    side = 6
    place = torch.arange(side * side)
    allowed = (place[:, None] // 12) == (place // 12)  # groups of two rows
    mask = torch.zeros(36, 36).masked_fill(~allowed, -100.0)

    def fused(x):
        tokens = x.flatten(2).transpose(1, 2)
        out = F.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=mask.to(x))
        return out.transpose(1, 2).view_as(x)

    def added(x):
        tokens = x.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.mT + mask.to(x)).softmax(-1)
        return (weights @ tokens).transpose(1, 2).view_as(x)

    def filled(x):
        tokens = x.flatten(2).transpose(1, 2)
        weights = (tokens @ tokens.mT).masked_fill(~allowed, -math.inf).softmax(-1)
        return (weights @ tokens).transpose(1, 2).view_as(x)

    def mean(x):
        return (
            x.unflatten(2, (3, 2)).mean((3, 4), keepdim=True).expand(-1, -1, 3, 2, 6).flatten(2, 3)
        )

    maps = [
        energy_map(light_copy(Between(lambda x, f=f: f(x).roll(1, 2))), (3, side, side))[0]
        for f in (fused, added, filled, mean)
    ]
    for found in maps[:3]:
        np.testing.assert_allclose(found, maps[3], rtol=1e-9)


def test_attention_of_torch_s_module_may_run_over_rolled_windows():
    """Windows as the batch of `nn.MultiheadAttention` give the map of a mean over each of them."""

    def windows(x, mean):
        parts = x.roll((-2, -2), (2, 3)).unflatten(3, (3, 4)).unflatten(2, (3, 4))
        tokens = parts.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(0, 2)
        out = mean(tokens).unflatten(1, (4, 4)).unflatten(0, (-1, 3, 3))
        merged = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return x + merged.roll((2, 2), (2, 3))

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.MultiheadAttention(6, 2, batch_first=True)

        def forward(self, tokens):
            return self.inner(tokens, tokens, tokens, need_weights=False)[0]

    def uniform(tokens):
        return tokens.mean((1, 2), keepdim=True).expand_as(tokens) * 6**0.5

    attention = Attention()
    whole = Apply(lambda x, mean: windows(x, mean), mean=attention)
    maps = [
        energy_map(light_copy(module), (3, SIDE, SIDE))[0]
        for module in (whole, Apply(lambda x: windows(x, uniform)))
    ]
    np.testing.assert_allclose(*maps, rtol=1e-9)
    field = field_of(whole)
    assert (field.size, field.global_) == ((12.0, 12.0), True)


def test_maps_of_random_weights_are_their_mean_squared_jacobian():
    """The map equals the mean squared Jacobian over 3,000 draws of the weights."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, 2, 1),
        nn.ConvTranspose2d(4, 4, 3, 2, 1, 1),
        nn.AvgPool2d(3, 1, 1),
        nn.Conv2d(4, 3, 3, 2, 1, dilation=2),
        nn.Upsample(scale_factor=1.7, mode="bicubic"),
    )
    expected = energy_map(light_copy(net), (2, 16, 16))[0]
    total = torch.zeros(16, 16)
    generator = torch.Generator().manual_seed(0)
    weights = [p for p in net.parameters() if p.ndim > 1]
    x = torch.randn(1, 2, 16, 16, generator=generator, requires_grad=True)
    for _ in range(3000):
        for p in weights:
            p.data.normal_(generator=generator)
        y = net(x)
        v = torch.randn(y.shape, generator=generator)
        (gradient,) = torch.autograd.grad(y, x, v)
        total += (gradient[0] ** 2).sum(0)
    measured, expected = total / total.mean(), expected / expected.mean()
    assert float((measured - expected).norm() / expected.norm()) < 0.05


def test_padding_that_no_maximum_can_be_is_no_unit_of_a_pool():
    """Windows over padding of minus infinity choose among the units of the map only."""
    padded = Between(lambda x: F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-math.inf), 3, 2))
    plain = Between(lambda x: F.max_pool2d(x, 3, 2, 1))
    first, second = (energy_map(light_copy(net), (3, 24, 24)) for net in (padded, plain))
    np.testing.assert_allclose(first, second)
    rows = [layer_table(light_copy(n), torch.empty(1, 3, 24, 24))[0].row() for n in (padded, plain)]
    assert rows[0] == rows[1]


CORPUS = [
    *(LOCAL[name] for name in LOCAL if "size" not in name),
    *("test_resnet", "test_convnext", "test_efficientnet", "test_mambaout"),
    *("mobilenetv3_small_050", "botnet26t_256", "repvit_m0_9"),
]


@pytest.mark.parametrize("model", CORPUS, ids=lambda m: m if isinstance(m, str) else "")
def test_no_effective_field_exceeds_the_theoretical_one(model):
    """A measured field above the theoretical one contradicts the theory, whatever the network."""
    size = (SIDE, SIDE) if isinstance(model, nn.Module) else None
    source = model if isinstance(model, nn.Module) else f"timm:{model}@init"
    target = "head" if isinstance(model, nn.Module) else None  # behind what is tried
    records = audit(source, ("erf:luo2016",), size=size, count=2, target=target)
    assert [record.status for record in records] == ["ok"]
    ratio = records[0].metrics["erf_trf"].value
    assert ratio is None or ratio <= 1


@pytest.mark.parametrize("square", [lambda x: x**2, torch.square, lambda x: x.pow(2)])
def test_the_square_of_a_rectified_value_is_an_activation(square):
    """Its squared derivative is 4 z^2 for z > 0: of a normal z, 2 in the mean."""
    z = torch.linspace(0, 12, 100_001, dtype=torch.float64)
    density = (-(z**2) / 2).exp() / (2 * torch.pi) ** 0.5
    factor = float(torch.trapezoid(4 * z**2 * density, z))
    linear, squared = (
        energy_map(light_copy(Between(f)), (3, 8, 8))[0]
        for f in (lambda x: x, lambda x: square(F.relu(x)))
    )
    np.testing.assert_allclose(squared, factor * linear, rtol=1e-6)


def test_the_square_of_a_value_that_was_not_rectified_is_a_statistic():
    """As in a norm that is written out: x over the root of its mean square."""
    norm = lambda x: x / (x**2).mean((1, 2, 3), keepdim=True).sqrt()  # noqa: E731
    found = energy_map(light_copy(Between(lambda x: norm(F.relu(x)[..., :5]))), (3, 8, 8))[0]
    assert float(found[:, :5].min()) > 0
