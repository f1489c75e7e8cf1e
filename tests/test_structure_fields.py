"""Receptive fields of `structure` against autograd: the supports of gradients."""

import pytest
import torch
import torch.nn.functional as F
from structure_nets import SIDE, Apply, field_of
from torch import nn

from perimetry import audit
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.propagate import path_count_map


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
    field = field_of(module, SIDE)
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
        Apply(lambda x: x * x.amax((2, 3), keepdim=True).sigmoid()),
        Apply(lambda x: x + F.adaptive_avg_pool2d(x, 1)),
        Apply(lambda x: x + torch.einsum("bchw,bdhw->bcd", x, x).mean(2)[..., None, None]),
        Apply(lambda x, layer: x + layer(x.flatten(2)).view_as(x), layer=nn.Linear(144, 144)),
    ],
)
def test_what_reads_the_whole_map_is_said_to_be_global(module):
    """Sums, norms and products over all units are global."""
    assert path_count_map(light_copy(module.eval()), (3, SIDE, SIDE))[2].everywhere
    local = light_copy(nn.Conv2d(3, 3, 3, padding=1))
    assert not path_count_map(local, (3, SIDE, SIDE))[2].everywhere


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
