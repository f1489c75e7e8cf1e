"""Kernel padding of torch modules: what it keeps, evens out, and says it left."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from padding_tools import FILLS, GROWING, padded, random, seeded
from timm.layers import (
    BlurPool2d,
    Conv2dSame,
    StdConv2d,
)
from torch import nn
from torch.overrides import TorchFunctionMode

from perimetry.adapters.errors import InputError
from perimetry.adapters.kernel_padding.arithmetic import tap_energy
from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module

# --- outputs keep their shape


def layer(kind, kernel, stride, pad, dilation, groups, ceil_mode):
    if kind == "conv":
        return nn.Conv2d(4, 4, kernel, stride, pad, dilation, groups)
    pad = min(pad, kernel // 2)
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, pad, dilation, ceil_mode=ceil_mode)
    return nn.AvgPool2d(kernel, stride, pad, ceil_mode, count_include_pad=groups == 1)


@settings(max_examples=150)
@given(
    kind=st.sampled_from(["conv", "max", "mean"]),
    fill=st.sampled_from(FILLS),
    kernel=st.integers(1, 5),
    stride=st.integers(2, 4),
    pad=st.integers(0, 2),
    dilation=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 4]),
    ceil_mode=st.booleans(),
    size=st.tuples(st.integers(13, 24), st.integers(13, 24)),
)
def test_outputs_keep_their_shape_at_sizes_the_example_did_not_have(
    kind, fill, kernel, stride, pad, dilation, groups, ceil_mode, size
):
    """Padded layers keep their output shape at any size, and even ones are not touched."""
    module = layer(kind, kernel, stride, pad, dilation, groups, ceil_mode).double()
    x = random(2, 4, *size)
    variant, treatment = padded(module, fill)
    assert variant(x).shape == module(x).shape
    assert variant(x).isfinite().all()
    even = kernel % stride == 0
    assert (not treatment.layers and not treatment.refused_layers) == even


# --- evenness


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 2), (7, 2), (5, 3), (7, 4)])
def test_every_input_phase_is_read_equally_after_box(kernel, stride):
    """After `box` each inner pixel has the same gradient: the kernel's sum over stride squared."""
    module = nn.Conv2d(1, 1, kernel, stride, bias=False).double()
    module.weight.data.copy_(random(1, 1, kernel, kernel))
    x = torch.zeros(1, 1, 48, 48, dtype=torch.float64, requires_grad=True)
    variant, _ = padded(module, "box", x.detach())
    (heard,) = torch.autograd.grad(variant(x).sum(), x)
    inner = heard[0, 0, 12:36, 12:36]
    assert torch.allclose(inner, module.weight.sum().expand_as(inner) / stride**2, atol=1e-12)


def test_the_window_overlap_of_a_padded_stem_is_eight_per_axis():
    """A padded stem has 8 paths per axis to each pixel, the original one 4, 5, 6 and 6."""
    stem = nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3, bias=False), nn.Conv2d(1, 1, 3, 2, 1, bias=False))
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    variant, _ = padded(stem, "fresh", x.detach())
    overlaps = []
    for net in (stem, variant):
        for conv in net:
            conv.weight.data.fill_(1)
        (paths,) = torch.autograd.grad(net(x).sum(), x)
        overlaps.append(paths[0, 0, 32:36, 32:36].diagonal().sqrt().tolist())
    assert sorted(overlaps[0]) == [4, 5, 6, 6]
    assert overlaps[1] == [8, 8, 8, 8]


# --- what stays as it is


class Functional(nn.Module):
    """Strided reads of every kind, as functions."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU())
        self.kernel = nn.Parameter(random(8, 8, 3, 3, dtype=torch.float32))

    def forward(self, x):
        x = self.inner(x)
        x = torch.conv2d(x, self.kernel, stride=2)
        return F.max_pool2d(x, 3, 2), F.avg_pool2d(x, 3, stride=2)


def test_functional_calls_are_padded_and_named_after_the_innermost_module():
    """Functional convolutions and pools are padded under the name of the calling module."""
    module = Functional()
    x = random(1, 4, 40, 40, dtype=torch.float32)
    variant, treatment = padded(module, "fresh", x)
    assert [(p.name, p.kind, p.kernel, p.padded_kernel) for p in treatment.layers] == [
        ("inner.0", "conv2d", (3, 3), (4, 4)),
        ("Functional", "conv2d", (3, 3), (4, 4)),
        ("Functional", "max_pool2d", (3, 3), (4, 4)),
        ("Functional", "avg_pool2d", (3, 3), (4, 4)),
    ]
    assert variant.kernel.shape == (8, 8, 4, 4)
    assert [y.shape for y in variant(x)] == [y.shape for y in module(x)]


class Slices(nn.Module):
    def forward(self, x):
        return x[:, :, ::2, ::2], F.unfold(x, 3, stride=2), F.lp_pool2d(x, 2, 3, 2)


class AllPhases(nn.Module):
    def forward(self, x):
        return torch.cat([x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)], 1)


@pytest.mark.parametrize(
    ("module", "fill", "reason"),
    [
        (nn.MaxPool2d(3, 2), "zero", "keeps the function"),
        (nn.AvgPool2d(3, 2), "zero", "no taps to add"),
        (BlurPool2d(4), "zero", "never be trained"),
        (nn.Conv2d(4, 4, 3, 2, dilation=2), "box", "share a factor"),
        (nn.MaxPool2d(3, 2, return_indices=True), "box", "indices"),
    ],
)
def test_what_is_left_alone_computes_the_same_and_says_why(module, fill, reason):
    """A refused layer computes bit by bit the same and has its reason in `refused_layers`."""
    x = random(1, 4, 12, 12, dtype=torch.float32)
    variant, treatment = padded(module, fill, x)
    assert treatment.layers == ()
    assert reason in next(iter(treatment.refused_layers.values()))
    for after, before in zip(
        *(out if isinstance(out, tuple) else (out,) for out in (variant(x), module(x))), strict=True
    ):
        assert torch.equal(after, before)


def test_strided_reads_without_a_kernel_are_listed():
    """A strided slice is listed among the refused layers."""
    module = nn.Sequential(Slices())
    _, treatment = padded(module, "box")
    assert "slice" in treatment.refused_layers["0"]


def test_slices_that_together_take_every_phase_are_not_listed():
    """Four slices that read all phases between them are not listed as refused."""
    assert padded(AllPhases(), "box")[1].refused_layers == {}


@pytest.mark.parametrize("fill", FILLS)
def test_even_one_dimensional_and_dense_layers_are_untouched(fill):
    """Kernels that are multiples of their stride are neither padded nor refused."""
    module = nn.Sequential(
        nn.Conv2d(4, 8, 4, 4), nn.Conv2d(8, 8, 3, padding="same"), nn.MaxPool2d(2)
    )
    x = random(1, 4, 32, 32, dtype=torch.float32)
    variant, treatment = padded(module, fill, x)
    assert treatment.layers == ()
    assert treatment.refused_layers == {}
    assert [type(m) for m in variant] == [type(m) for m in module]


@pytest.mark.parametrize("fill", FILLS)
def test_a_deep_copied_original_is_not_touched(fill):
    """Padding a copy changes neither outputs, state nor types of the original."""
    module = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), BlurPool2d(4)))
    x = random(1, 4, 17, 17)
    before = module(x)
    state = {k: v.clone() for k, v in module.state_dict().items()}
    padded(module, fill)
    assert torch.equal(module(x), before)
    assert state.keys() == module.state_dict().keys()
    assert type(module[0]) is nn.Conv2d


@pytest.mark.parametrize("fill", FILLS)
def test_copies_of_a_padded_module_are_independent_and_take_its_state(fill):
    """A deep copy of a padded module has its own weights and loads the first one's state."""
    module = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), StdConv2d(4, 4, 3, 2)))
    x = random(2, 4, 17, 17)
    first, _ = padded(module, fill)
    second = copy.deepcopy(first)
    assert torch.equal(second(x), first(x))
    before = first(x)
    second[0].weight.data.mul_(2)
    assert torch.equal(first(x), before)
    assert not torch.allclose(second(x), before)
    second.load_state_dict(first.state_dict())
    assert torch.equal(second(x), before)


@pytest.mark.parametrize("fill", GROWING)
def test_a_plain_convolution_owns_its_grown_kernel(fill):
    """A padded convolution's weight is a parameter of the padded size, as is `kernel_size`."""
    module = nn.Conv2d(4, 6, (3, 4), 2)
    variant, _ = padded(module.double(), fill)
    assert isinstance(variant.weight, nn.Parameter)
    assert variant.weight.shape == (6, 4, 4, 4)
    assert variant.kernel_size == (4, 4)


def test_padding_again_finds_nothing_to_do():
    """Padding a padded module changes no layer."""
    variant, _ = padded(nn.Sequential(nn.Conv2d(4, 4, 7, 4), nn.MaxPool2d(3, 2)).double(), "box")
    assert pad_module(variant, "box", torch.zeros(1, 4, 32, 32).double()).layers == ()


def test_fresh_is_decided_by_its_seed():
    """Equal seeds give equal `fresh` weights and another seed gives others."""
    module = nn.Conv2d(4, 4, 3, 2).double()
    first, again, other = (padded(module, "fresh", seed=s)[0].weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_channels_last_gives_the_same_numbers():
    """A padded module computes the same in the channels-last memory format."""
    module = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.AvgPool2d(3, 2)))
    variant, _ = padded(module, "box")
    x = random(2, 4, 21, 21)
    assert torch.allclose(variant(x.to(memory_format=torch.channels_last)), variant(x), atol=1e-12)


class Caches(nn.Module):
    """Keeps its last input, as modules with cached position tables do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2)
        self.cache = None
        self.by_device = {}

    def forward(self, x):
        self.cache = x
        self.by_device[x.device] = x
        return self.conv(x)


def test_the_pass_without_numbers_leaves_no_trace_on_the_module():
    """Padding leaves caches empty, the training mode as it was, and no hooks."""
    module = Caches().double().train()
    pad_module(module, "box", torch.zeros(1, 4, 16, 16).double())
    assert module.cache is None
    assert module.by_device == {}
    assert module.training
    assert module.conv.training
    assert not module.conv._forward_hooks
    assert not module.conv._forward_pre_hooks


class NeedsNumbers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, 2)

    def forward(self, x):
        return self.conv(x * x.sum().item())


def test_a_forward_that_needs_numbers_is_traced_on_the_example():
    """A `forward` that calls `item` is padded all the same."""
    assert len(padded(NeedsNumbers().double(), "box")[1].layers) == 1


class Stages(nn.Module):
    """Strided calls right in `forward_features`, which timm models offer."""

    def forward_features(self, x):
        return F.max_pool2d(x, 3, 2)

    def forward(self, x):
        return self.forward_features(x).mean((2, 3))


def test_forward_features_called_by_itself_is_padded_too():
    """A strided call in `forward_features` is padded, called directly or by `forward`."""
    x = random(1, 4, 10, 10)
    variant, _ = padded(Stages(), "box")
    assert torch.equal(variant.forward_features(x)[..., :3, :3], F.max_pool2d(x, 4, 2)[..., :3, :3])
    assert torch.equal(variant(x), variant.forward_features(x).mean((2, 3)))


# --- for the energy domain


class Watch(TorchFunctionMode):
    """Stands in for convolutions, whose weights have no numbers, and keeps what they were given."""

    def __init__(self):
        super().__init__()
        self.weights = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is not F.conv2d:
            return func(*args, **(kwargs or {}))
        x, weight, _, stride, padding, dilation, *_ = args
        self.weights.append(weight)
        ones = torch.ones(1, 1, *weight.shape[2:], dtype=x.dtype)
        with torch._C.DisableTorchFunction():
            out = F.conv2d(x.mean(1, keepdim=True), ones, None, stride, padding, dilation)
        return out.expand(-1, weight.shape[0], -1, -1)


@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("make", [nn.Conv2d, StdConv2d, Conv2dSame])
def test_weights_without_numbers_reach_the_convolution_with_their_tap_energy(fill, make):
    """Meta weights reach the convolution in the padded shape, with their tap energy."""
    module = make(4, 8, 3, 2)
    for name, parameter in module.named_parameters():
        setattr(module, name, nn.Parameter(parameter.to("meta"), requires_grad=False))
    x = torch.ones(1, 4, 17, 17)
    pad_module(module, fill, x)
    with Watch() as watch, torch.no_grad():
        shape = module(x).shape
    (weight,) = watch.weights
    assert weight.is_meta
    assert weight.shape == (8, 4, 4, 4)
    assert weight.tap_energy.device.type == "cpu"
    assert torch.equal(weight.tap_energy, tap_energy((3, 3), (2, 2), fill))
    assert shape == make(4, 8, 3, 2)(x).shape


def test_tap_energy_of_a_mean_or_a_blur_is_the_square_of_its_taps():
    """A padded mean or blur has the squares of its known taps as tap energy."""
    x = torch.ones(1, 4, 16, 16)
    mean = torch.tensor([1, 2, 2, 1], dtype=torch.float64) / 6
    blur = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
    for module, taps in ((nn.AvgPool2d(3, 2), mean), (BlurPool2d(4), blur)):
        pad_module(module, "box", x)
        with Watch() as watch:
            module(x)
        expected = (taps[:, None] * taps).square()
        assert torch.allclose(watch.weights[0].tap_energy, expected, atol=1e-9)


def test_a_blur_without_numbers_counts_as_a_flat_mean():
    """A blur with a zeroed filter has the tap energy of a box-padded mean."""
    module = BlurPool2d(4)
    module.filt.zero_()
    pad_module(module, "box", torch.ones(1, 4, 16, 16))
    with Watch() as watch:
        module(torch.ones(1, 4, 16, 16))
    expected = tap_energy((3, 3), (2, 2), "box") / 9
    assert torch.allclose(watch.weights[0].tap_energy, expected)


# --- errors


def test_an_unknown_fill_is_refused_with_the_known_ones():
    """An unknown kernel padding is an InputError that lists the known ones."""
    with pytest.raises(InputError, match=r"'ones'.*none, zero, box, fresh"):
        pad_module(nn.Conv2d(4, 4, 3, 2), "ones", torch.zeros(1, 4, 8, 8))


def test_an_example_the_module_refuses_is_named_by_its_shape():
    """An example that the module does not accept is an InputError with its shape."""
    with pytest.raises(InputError, match=r"\(1, 3, 8, 8\)"):
        pad_module(nn.Conv2d(4, 4, 3, 2), "box", torch.zeros(1, 3, 8, 8))
