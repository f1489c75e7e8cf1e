"""Kernel padding of torch modules: what it computes, what it keeps, what it says it left."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import (
    BlurPool2d,
    CondConv2d,
    Conv2dSame,
    MixedConv2d,
    ScaledStdConv2d,
    ScaledStdConv2dSame,
    StdConv2d,
    StdConv2dSame,
)
from timm.layers.conv2d_same import conv2d_same
from timm.layers.pool2d_same import AvgPool2dSame, MaxPool2dSame
from torch import nn
from torch.overrides import TorchFunctionMode

from perimetry.adapters.errors import InputError
from perimetry.adapters.padding import (
    end_padding,
    pad_module,
    pad_weight,
    padded_size,
    tap_energy,
)

FILLS = ("zero", "box", "fresh")
GROWING = ("box", "fresh")


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(make, seed=0):
    """The module `make()` in float64 and eval mode, its parameters and statistics drawn anew."""
    module = make().double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


def padded(module, fill, example=None, **kwargs):
    """A padded copy and its treatment."""
    twin = copy.deepcopy(module)
    example = torch.zeros(1, 4, 16, 16, dtype=torch.float64) if example is None else example
    return twin, pad_module(twin, fill, example, **kwargs)


def slow_conv(x, weight, bias, stride, front, counts, dilation, groups):
    """Literal convolution; window i starts at i * stride - front; outside is 0."""
    batch, _, height, width = x.shape
    per_group = weight.shape[0] // groups
    out = torch.zeros(batch, weight.shape[0], *counts, dtype=x.dtype)
    for o in range(weight.shape[0]):
        for c in range(weight.shape[1]):
            plane = x[:, (o // per_group) * weight.shape[1] + c]
            for i in range(counts[0]):
                for j in range(counts[1]):
                    for a in range(weight.shape[2]):
                        for b in range(weight.shape[3]):
                            row = i * stride - front[0] + a * dilation
                            column = j * stride - front[1] + b * dilation
                            if 0 <= row < height and 0 <= column < width:
                                out[:, o, i, j] += weight[o, c, a, b] * plane[:, row, column]
    return out if bias is None else out + bias.view(-1, 1, 1)


def slow_box(weight, stride):
    """Literal full convolution of (out, in, k, k) with a normalised box, both axes uneven."""
    k = weight.shape[2]
    out = weight.new_zeros(*weight.shape[:2], k + stride - 1, k + stride - 1)
    for a in range(k):
        for b in range(k):
            for i in range(stride):
                for j in range(stride):
                    out[:, :, a + i, b + j] += weight[:, :, a, b] / stride**2
    return out


# --- the arithmetic


@pytest.mark.parametrize(
    ("kernel", "stride", "expected"),
    [(1, 2, 2), (3, 2, 4), (7, 2, 8), (4, 2, 4), (3, 1, 3), (7, 4, 8), (2, 3, 3), (16, 16, 16)],
)
def test_the_kernel_grows_to_the_next_multiple_of_the_stride(kernel, stride, expected):
    assert padded_size(kernel, stride) == expected


def test_box_of_three_taps_at_stride_two_is_the_closed_form():
    weight = random(5, 2, 3, 3)
    w1, w2, w3 = weight.unbind(2)
    rows = torch.stack([w1, w1 + w2, w2 + w3, w3], 2) / 2
    w1, w2, w3 = rows.unbind(3)
    expected = torch.stack([w1, w1 + w2, w2 + w3, w3], 3) / 2
    assert torch.allclose(pad_weight(weight, (2, 2), "box"), expected, rtol=0, atol=1e-15)


@given(
    kernel=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    stride=st.integers(1, 5),
    dilation=st.integers(1, 4),
)
def test_box_makes_the_tap_sums_of_all_input_phases_equal(kernel, stride, dilation):
    weight = random(2, 3, *kernel)
    box = pad_weight(weight, (stride, stride), "box", dilation=(dilation, dilation))
    if math.gcd(stride, dilation) != 1:
        assert box is weight
        return
    for axis in (2, 3):
        if kernel[axis - 2] % stride == 0:
            assert box.shape[axis] == kernel[axis - 2]
            continue
        assert box.shape[axis] == kernel[axis - 2] + stride - 1
        taps = box.sum(5 - axis).unbind(-1)
        sums = [
            sum(tap for j, tap in enumerate(taps) if j * dilation % stride == phase)
            for phase in range(stride)
        ]
        for phase_sum in sums:
            assert torch.allclose(phase_sum, weight.sum((2, 3)) / stride, atol=1e-12)


@pytest.mark.parametrize("fill", ["zero", "box"])
@pytest.mark.parametrize(("kernel", "stride"), [((3, 1), 2), ((7, 5), 4), ((2, 3), 3), ((4, 4), 2)])
def test_tap_energy_is_the_squared_response_to_each_old_tap_summed(fill, kernel, stride):
    basis = torch.eye(kernel[0] * kernel[1], dtype=torch.float64).view(-1, 1, *kernel)
    expected = pad_weight(basis, (stride, stride), fill).square().sum((0, 1))
    assert torch.allclose(tap_energy(kernel, (stride, stride), fill), expected, atol=1e-15)


def test_tap_energy_of_fresh_taps_is_flat_and_keeps_the_total():
    energy = tap_energy((3, 1), (2, 2), "fresh")
    assert energy.shape == (4, 2)
    assert energy.dtype == torch.float64
    assert torch.allclose(energy, torch.full_like(energy, 3 / 8))


def test_fresh_taps_keep_the_output_variance_and_depend_on_the_seed_only():
    weight = 3 * random(64, 64, 3, 3)
    draws = [
        pad_weight(weight, (2, 2), "fresh", torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    total, old = draws[0].square().sum(), weight.square().sum()
    assert float(total / old) == pytest.approx(1, abs=4 * math.sqrt(2 / draws[0].numel()))


def test_fresh_without_a_generator_says_what_to_give():
    with pytest.raises(InputError, match=r"torch\.Generator"):
        pad_weight(random(1, 1, 3, 3), (2, 2), "fresh")


@given(
    size=st.integers(8, 40),
    kernel=st.integers(1, 7),
    stride=st.integers(1, 4),
    pad=st.integers(0, 3),
    ceil_mode=st.booleans(),
)
def test_end_padding_is_the_least_that_keeps_the_output_size(size, kernel, stride, pad, ceil_mode):
    pad = min(pad, kernel // 2)
    x = torch.zeros(1, 1, size)
    before = F.max_pool1d(x, kernel, stride, pad, ceil_mode=ceil_mode).shape[-1]
    grown = padded_size(kernel, stride)
    rows = end_padding(size, kernel, grown, stride, pad, pad, ceil_mode=ceil_mode)
    assert (size + 2 * pad + rows - grown) // stride + 1 == before
    assert rows == 0 or (size + 2 * pad + rows - 1 - grown) // stride + 1 < before


# --- outputs keep their shape


def layer(kind, kernel, stride, pad, dilation, groups, ceil_mode):
    if kind == "conv":
        return nn.Conv2d(4, 4, kernel, stride, pad, dilation, groups)
    pad = min(pad, kernel // 2)
    if kind == "max":
        return nn.MaxPool2d(kernel, stride, pad, dilation, ceil_mode=ceil_mode)
    return nn.AvgPool2d(kernel, stride, pad, ceil_mode, count_include_pad=groups == 1)


@settings(max_examples=150, deadline=None)
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
    module = layer(kind, kernel, stride, pad, dilation, groups, ceil_mode).double()
    x = random(2, 4, *size)
    twin, treatment = padded(module, fill)
    assert twin(x).shape == module(x).shape
    assert twin(x).isfinite().all()
    even = kernel % stride == 0
    assert (not treatment.layers and not treatment.left) == even


# --- zero is the same function

ZERO_LAYERS = {
    "plain": lambda: nn.Conv2d(4, 6, 3, 2, 1),
    "one by one": lambda: nn.Conv2d(4, 6, 1, 2),
    "one axis": lambda: nn.Conv2d(4, 6, (3, 4), 2, 1),
    "depthwise": lambda: nn.Conv2d(4, 4, 5, 2, 2, groups=4),
    "dilated": lambda: nn.Conv2d(4, 6, 2, 3, 1, dilation=2),
    "valid": lambda: nn.Conv2d(4, 6, 3, 2, "valid"),
    "reflect": lambda: nn.Conv2d(4, 6, 3, 2, 1, padding_mode="reflect"),
    "circular": lambda: nn.Conv2d(4, 6, 3, 2, 1, padding_mode="circular"),
    "replicate": lambda: nn.Conv2d(4, 6, 7, 4, 3, padding_mode="replicate"),
    "same": lambda: Conv2dSame(4, 6, 3, 2),
    "standardised": lambda: StdConv2d(4, 6, 3, 2),
    "standardised same": lambda: StdConv2dSame(4, 6, 3, 2),
    "scaled": lambda: ScaledStdConv2d(4, 6, 3, 2),
    "scaled same": lambda: ScaledStdConv2dSame(4, 6, 3, 2),
    "mixed": lambda: MixedConv2d(4, 4, [3, 5], 2, depthwise=True),
}


@pytest.mark.parametrize("size", [(16, 16), (17, 15)])
@pytest.mark.parametrize("name", ZERO_LAYERS)
def test_zero_is_the_same_function_until_it_is_trained(name, size):
    module = seeded(ZERO_LAYERS[name])
    twin, treatment = padded(module, "zero")
    x = random(2, 4, *size)
    assert treatment.layers
    assert torch.allclose(twin(x), module(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ZERO_LAYERS)
def test_the_new_zero_taps_are_trainable_and_change_the_function(name):
    module = seeded(ZERO_LAYERS[name])
    twin, _ = padded(module, "zero")
    x = random(2, 4, 17, 17)
    twin(x).square().sum().backward()
    new = [p for n, p in twin.named_parameters() if n.endswith(("_rows", "_columns"))]
    assert new
    for taps in new:
        assert bool(taps.grad.abs().max() > 0)
        taps.data.add_(1.0)
    assert not torch.allclose(twin(x), module(x), rtol=0, atol=1e-3)


# --- box and fresh against literal references


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation", "groups"),
    [(3, 2, 1, 1, 1), (1, 2, 0, 1, 1), (3, 2, 0, 3, 2), (5, 4, 2, 1, 1), (3, 2, 1, 1, 4)],
)
def test_box_convolution_is_the_literal_sum_over_its_taps(kernel, stride, pad, dilation, groups):
    module = seeded(lambda: nn.Conv2d(4, 4, kernel, stride, pad, dilation, groups))
    x = random(1, 4, 9, 10)
    twin, _ = padded(module, "box")
    expected = slow_conv(
        x,
        slow_box(module.weight, stride),
        module.bias,
        stride,
        (pad, pad),
        module(x).shape[2:],
        dilation,
        groups,
    )
    assert torch.allclose(twin(x), expected, atol=1e-12)


@pytest.mark.parametrize("make", [StdConv2d, ScaledStdConv2d])
def test_box_acts_on_the_standardised_weight(make):
    module = seeded(lambda: make(4, 6, 3, 2))
    taps = module.weight.flatten(1)
    taps = (taps - taps.mean(1, keepdim=True)) / (taps.var(1, correction=0) + module.eps)[
        :, None
    ].sqrt()
    if make is ScaledStdConv2d:
        taps = taps * module.gain.flatten(1) * module.scale
    weight = taps.view_as(module.weight)
    x = random(1, 4, 9, 9)
    expected = slow_conv(x, slow_box(weight, 2), module.bias, 2, (1, 1), (5, 5), 1, 1)
    assert torch.allclose(padded(module, "box")[0](x), expected, atol=1e-12)


class Mixture(nn.Module):
    """A CondConv2d with routing from the image, as EfficientNet has it."""

    def __init__(self):
        super().__init__()
        self.conv = CondConv2d(4, 6, 3, 2, num_experts=3)

    def forward(self, x):
        return self.conv(x, x[:, :3].mean((2, 3)).sigmoid())


@pytest.mark.parametrize("fill", GROWING)
def test_a_mixture_of_experts_is_boxed_per_image_whatever_the_batch(fill):
    module = seeded(Mixture)
    x = random(3, 4, 9, 9)
    twin, treatment = padded(module, fill)
    routing = x[:, :3].mean((2, 3)).sigmoid()
    for i in range(3):
        weight = (routing[i] @ module.conv.weight).view(6, 4, 3, 3)
        expected = slow_conv(x[i : i + 1], slow_box(weight, 2), None, 2, (1, 1), (5, 5), 1, 1)
        assert torch.allclose(twin(x)[i : i + 1], expected, atol=1e-12)
    assert [entry.name for entry in treatment.layers] == ["conv"]


@pytest.mark.parametrize("fill", GROWING)
def test_a_fixed_blur_becomes_the_blur_of_a_box(fill):
    module = BlurPool2d(4, 3, 2).double()
    x = random(1, 4, 10, 11)
    blur = torch.tensor([1.0, 2, 1], dtype=torch.float64) / 4
    box = torch.tensor([1.0, 3, 3, 1], dtype=torch.float64) / 8  # (1, 2, 1) * (1, 1) / 8
    assert torch.equal(module.filt[0, 0].double(), blur[:, None] * blur)
    reflected = F.pad(x, (1, 1, 1, 1), mode="reflect")
    weight = (box[:, None] * box).expand(4, 1, 4, 4)
    expected = slow_conv(reflected, weight, None, 2, (0, 0), (5, 6), 1, 4)
    assert torch.allclose(padded(module, fill)[0](x), expected, atol=1e-12)


def test_reflect_padding_stays_and_only_zeros_are_added_at_the_end():
    module = seeded(lambda: nn.Conv2d(4, 6, 3, 2, 1, padding_mode="reflect"))
    x = random(1, 4, 9, 9)
    reflected = F.pad(x, (1, 1, 1, 1), mode="reflect")
    box = slow_box(module.weight, 2)
    expected = slow_conv(reflected, box, module.bias, 2, (0, 0), (5, 5), 1, 1)
    assert torch.allclose(padded(module, "box")[0](x), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (16, 13)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_tf_same_layers_pad_as_the_grown_kernel_would(kernel, size):
    module = seeded(lambda: Conv2dSame(4, 6, kernel, 2))
    x = random(1, 4, *size)
    box = pad_weight(module.weight, (2, 2), "box")
    expected = conv2d_same(x, box, module.bias, (2, 2))
    assert torch.allclose(padded(module, "box")[0](x), expected, atol=1e-12)
    fresh, _ = padded(module, "fresh")
    assert torch.allclose(fresh(x), conv2d_same(x, fresh.weight, fresh.bias, (2, 2)), atol=1e-12)


@pytest.mark.parametrize("make", [StdConv2d, ScaledStdConv2d, StdConv2dSame, ScaledStdConv2dSame])
def test_fresh_keeps_the_output_variance_of_standardised_weights(make):
    module = make(64, 256, 3, 2, bias=False).double()
    twin, _ = padded(module, "fresh", torch.zeros(1, 64, 16, 16, dtype=torch.float64))
    x = random(2, 64, 40, 40)
    old, new = (m(x)[..., 2:-2, 2:-2].var().item() for m in (module, twin))
    assert new / old == pytest.approx(1, abs=0.05)


def window(x, i, j, stride, front, kernel, low, high):
    """The pixels of one window that lie within [low, high) of both axes, by position."""
    return {
        (a, b): x[..., i * stride - front + a, j * stride - front + b]
        for a in range(kernel)
        for b in range(kernel)
        if all(low <= n * stride - front + t < high for n, t in ((i, a), (j, b)))
    }


@pytest.mark.parametrize("fill", GROWING)
@pytest.mark.parametrize(
    ("size", "pad", "ceil_mode"), [(9, 1, False), (10, 1, True), (10, 0, True), (10, 0, False)]
)
def test_a_max_pool_takes_the_maximum_of_the_real_pixels_in_the_grown_window(
    fill, size, pad, ceil_mode
):
    module = nn.MaxPool2d(3, 2, pad, ceil_mode=ceil_mode)
    x = random(1, 4, size, size) - 10  # so that a padded 0 would win
    out = padded(module, fill)[0](x)
    assert out.shape == module(x).shape
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            inside = window(x, i, j, 2, pad, 4, 0, size)
            expected = torch.stack(list(inside.values())).amax(0)
            assert torch.equal(out[..., i, j], expected)


@pytest.mark.parametrize("include", [True, False])
@pytest.mark.parametrize(
    ("size", "pad", "ceil_mode"), [(9, 1, False), (10, 1, True), (10, 0, True), (10, 0, False)]
)
def test_a_mean_pool_weighs_the_pixels_that_count_and_no_added_ones(size, pad, ceil_mode, include):
    module = nn.AvgPool2d(3, 2, pad, ceil_mode, count_include_pad=include)
    x = random(1, 4, size, size)
    out = padded(module, "box")[0](x)
    assert out.shape == module(x).shape
    taps = [1 / 6, 2 / 6, 2 / 6, 1 / 6]  # (1, 1, 1) * (1, 1) / 6
    wide = F.pad(x, (pad, pad, pad, pad))
    margin = 0 if include else pad
    for i in range(out.shape[2]):
        for j in range(out.shape[3]):
            inside = window(wide, i, j, 2, 0, 4, margin, size + 2 * pad - margin)
            weight = sum(taps[a] * taps[b] for a, b in inside)
            total = sum(taps[a] * taps[b] * value for (a, b), value in inside.items())
            assert torch.allclose(out[..., i, j], total / weight, atol=1e-12)


def test_a_mean_pool_with_a_given_divisor_keeps_it():
    x = torch.ones(1, 4, 10, 10, dtype=torch.float64)
    module = nn.AvgPool2d(3, 2, divisor_override=2)
    assert torch.allclose(padded(module, "box")[0](x), module(x))


def test_fresh_mean_pools_average_over_the_grown_window():
    x = random(1, 4, 10, 10)
    out = padded(nn.AvgPool2d(3, 2), "fresh")[0](x)
    assert torch.allclose(out[..., :3, :3], F.avg_pool2d(x, 4, 2)[..., :3, :3])


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("make", [AvgPool2dSame, MaxPool2dSame])
def test_tf_same_pools_keep_their_shape_and_a_constant_inside(make, size):
    module = make(3, 2)
    x = torch.full((1, 4, size, size), -3.0, dtype=torch.float64)
    out = padded(module, "box")[0](x)
    assert out.shape == module(x).shape
    assert torch.allclose(out[..., 1:-1, 1:-1], x[..., :1, :1])


# --- evenness


@pytest.mark.parametrize(("kernel", "stride"), [(1, 2), (3, 2), (7, 2), (5, 3), (7, 4)])
def test_every_input_phase_is_read_equally_after_box(kernel, stride):
    module = nn.Conv2d(1, 1, kernel, stride, bias=False).double()
    module.weight.data.copy_(random(1, 1, kernel, kernel))
    x = torch.zeros(1, 1, 48, 48, dtype=torch.float64, requires_grad=True)
    twin, _ = padded(module, "box", x.detach())
    (heard,) = torch.autograd.grad(twin(x).sum(), x)
    inner = heard[0, 0, 12:36, 12:36]
    assert torch.allclose(inner, module.weight.sum().expand_as(inner) / stride**2, atol=1e-12)


def test_the_window_overlap_of_a_padded_stem_is_eight_per_axis():
    stem = nn.Sequential(nn.Conv2d(1, 1, 7, 2, 3, bias=False), nn.Conv2d(1, 1, 3, 2, 1, bias=False))
    x = torch.zeros(1, 1, 64, 64, requires_grad=True)
    twin, _ = padded(stem, "fresh", x.detach())
    overlaps = []
    for net in (stem, twin):
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
    module = Functional()
    x = random(1, 4, 40, 40, dtype=torch.float32)
    twin, treatment = padded(module, "fresh", x)
    assert [(p.name, p.kind, p.kernel, p.padded_kernel) for p in treatment.layers] == [
        ("inner.0", "conv2d", (3, 3), (4, 4)),
        ("Functional", "conv2d", (3, 3), (4, 4)),
        ("Functional", "max_pool2d", (3, 3), (4, 4)),
        ("Functional", "avg_pool2d", (3, 3), (4, 4)),
    ]
    assert twin.kernel.shape == (8, 8, 4, 4)
    assert [y.shape for y in twin(x)] == [y.shape for y in module(x)]


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
    x = random(1, 4, 12, 12, dtype=torch.float32)
    twin, treatment = padded(module, fill, x)
    assert treatment.layers == ()
    assert reason in next(iter(treatment.left.values()))
    for after, before in zip(
        *(out if isinstance(out, tuple) else (out,) for out in (twin(x), module(x))), strict=True
    ):
        assert torch.equal(after, before)


def test_strided_reads_without_a_kernel_are_listed():
    module = nn.Sequential(Slices())
    _, treatment = padded(module, "box")
    assert "slice" in treatment.left["0"]


def test_slices_that_together_take_every_phase_are_not_listed():
    assert padded(AllPhases(), "box")[1].left == {}


@pytest.mark.parametrize("fill", FILLS)
def test_even_one_dimensional_and_dense_layers_are_untouched(fill):
    module = nn.Sequential(
        nn.Conv2d(4, 8, 4, 4), nn.Conv2d(8, 8, 3, padding="same"), nn.MaxPool2d(2)
    )
    x = random(1, 4, 32, 32, dtype=torch.float32)
    twin, treatment = padded(module, fill, x)
    assert treatment.layers == ()
    assert treatment.left == {}
    assert [type(m) for m in twin] == [type(m) for m in module]


@pytest.mark.parametrize("fill", FILLS)
def test_a_deep_copied_original_is_not_touched(fill):
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
    module = nn.Conv2d(4, 6, (3, 4), 2)
    twin, _ = padded(module.double(), fill)
    assert isinstance(twin.weight, nn.Parameter)
    assert twin.weight.shape == (6, 4, 4, 4)
    assert twin.kernel_size == (4, 4)


def test_padding_again_finds_nothing_to_do():
    twin, _ = padded(nn.Sequential(nn.Conv2d(4, 4, 7, 4), nn.MaxPool2d(3, 2)).double(), "box")
    assert pad_module(twin, "box", torch.zeros(1, 4, 32, 32).double()).layers == ()


def test_fresh_is_decided_by_its_seed():
    module = nn.Conv2d(4, 4, 3, 2).double()
    first, again, other = (padded(module, "fresh", seed=s)[0].weight for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_channels_last_gives_the_same_numbers():
    module = seeded(lambda: nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.AvgPool2d(3, 2)))
    twin, _ = padded(module, "box")
    x = random(2, 4, 21, 21)
    assert torch.allclose(twin(x.to(memory_format=torch.channels_last)), twin(x), atol=1e-12)


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
    assert len(padded(NeedsNumbers().double(), "box")[1].layers) == 1


class Stages(nn.Module):
    """Strided calls right in `forward_features`, which timm models offer."""

    def forward_features(self, x):
        return F.max_pool2d(x, 3, 2)

    def forward(self, x):
        return self.forward_features(x).mean((2, 3))


def test_forward_features_called_by_itself_is_padded_too():
    x = random(1, 4, 10, 10)
    twin, _ = padded(Stages(), "box")
    assert torch.equal(twin.forward_features(x)[..., :3, :3], F.max_pool2d(x, 4, 2)[..., :3, :3])
    assert torch.equal(twin(x), twin.forward_features(x).mean((2, 3)))


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
    x = torch.ones(1, 4, 16, 16)
    mean = torch.tensor([1, 2, 2, 1], dtype=torch.float64) / 6
    blur = torch.tensor([1, 3, 3, 1], dtype=torch.float64) / 8
    for module, taps in ((nn.AvgPool2d(3, 2), mean), (BlurPool2d(4), blur)):
        pad_module(module, "box", x)
        with Watch() as watch:
            module(x)
        expected = (taps[:, None] * taps).square()
        assert torch.allclose(watch.weights[0].tap_energy, expected, atol=1e-9)


# --- errors


def test_an_unknown_fill_is_refused_with_the_known_ones():
    with pytest.raises(InputError, match=r"'ones'.*none, zero, box, fresh"):
        pad_module(nn.Conv2d(4, 4, 3, 2), "ones", torch.zeros(1, 4, 8, 8))


def test_an_example_the_module_refuses_is_named_by_its_shape():
    with pytest.raises(InputError, match=r"\(1, 3, 8, 8\).*give an example it accepts"):
        pad_module(nn.Conv2d(4, 4, 3, 2), "box", torch.zeros(1, 3, 8, 8))


# --- timm families

FAMILIES = [
    "resnet18",
    "resnetv2_50x1_bit",
    "resnetblur50",
    "regnety_002",
    "tf_mixnet_s",
    "tf_efficientnet_cc_b0_4e",
    "inception_v4",
    "nfnet_l0",
    "seresnext26d_32x4d",
    "volo_d1_224",
    "levit_128s",
    "convnext_atto",
]


@pytest.mark.parametrize("name", FAMILIES)
def test_families_of_timm_take_every_fill_with_shapes_unchanged(name):
    import timm

    with torch.device("meta"):
        module = timm.create_model(name).eval()
    x = torch.zeros(2, *module.pretrained_cfg["input_size"], device="meta")
    even = name == "convnext_atto"
    for fill in FILLS:
        twin, treatment = padded(module, fill, x)
        with torch.no_grad():
            assert twin(x).shape == module(x).shape
        assert bool(treatment.layers) != even
        assert {p.name for p in treatment.layers} <= dict(module.named_modules()).keys()


@pytest.mark.parametrize("name", ["resnet18", "tf_mixnet_s", "test_nfnet"])
def test_a_timm_model_padded_with_zeros_gives_the_same_logits(name):
    import timm

    torch.manual_seed(0)
    module = timm.create_model(name).eval().double()
    x = random(2, 3, 95, 96)
    twin, treatment = padded(module, "zero", x)
    assert treatment.layers
    with torch.no_grad():
        assert torch.allclose(twin(x), module(x), rtol=1e-9, atol=1e-9)
