"""Kernel padding of single layers, against literal references."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from padding_tools import GROWING, padded, random, seeded, slow_box, slow_conv
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

from perimetry.adapters.kernel_padding.arithmetic import pad_weight

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
    """Each kind of layer computes the same within 1e-12 after padding with `zero`."""
    module = seeded(ZERO_LAYERS[name])
    variant, treatment = padded(module, "zero")
    x = random(2, 4, *size)
    assert treatment.layers
    assert torch.allclose(variant(x), module(x), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ZERO_LAYERS)
def test_the_new_zero_taps_are_trainable_and_change_the_function(name):
    """The zero taps have gradients, and another value in them changes the output."""
    module = seeded(ZERO_LAYERS[name])
    variant, _ = padded(module, "zero")
    x = random(2, 4, 17, 17)
    variant(x).square().sum().backward()
    new = [p for n, p in variant.named_parameters() if n.endswith(("_rows", "_columns"))]
    assert new
    for taps in new:
        assert bool(taps.grad.abs().max() > 0)
        taps.data.add_(1.0)
    assert not torch.allclose(variant(x), module(x), rtol=0, atol=1e-3)


# --- box and fresh against literal references


@pytest.mark.parametrize(
    ("kernel", "stride", "pad", "dilation", "groups"),
    [(3, 2, 1, 1, 1), (1, 2, 0, 1, 1), (3, 2, 0, 3, 2), (5, 4, 2, 1, 1), (3, 2, 1, 1, 4)],
)
def test_box_convolution_is_the_literal_sum_over_its_taps(kernel, stride, pad, dilation, groups):
    """A box-padded convolution equals an explicit sum over the taps of the padded kernel."""
    module = seeded(lambda: nn.Conv2d(4, 4, kernel, stride, pad, dilation, groups))
    x = random(1, 4, 9, 10)
    variant, _ = padded(module, "box")
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
    assert torch.allclose(variant(x), expected, atol=1e-12)


@pytest.mark.parametrize("make", [StdConv2d, ScaledStdConv2d])
def test_box_acts_on_the_standardised_weight(make):
    """The kernel is standardised first and padded afterwards."""
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
    """Each image's own mixed kernel is box-padded, as one convolution per image shows."""
    module = seeded(Mixture)
    x = random(3, 4, 9, 9)
    variant, treatment = padded(module, fill)
    routing = x[:, :3].mean((2, 3)).sigmoid()
    for i in range(3):
        weight = (routing[i] @ module.conv.weight).view(6, 4, 3, 3)
        expected = slow_conv(x[i : i + 1], slow_box(weight, 2), None, 2, (1, 1), (5, 5), 1, 1)
        assert torch.allclose(variant(x)[i : i + 1], expected, atol=1e-12)
    assert [entry.name for entry in treatment.layers] == ["conv"]


@pytest.mark.parametrize("fill", GROWING)
def test_a_fixed_blur_becomes_the_blur_of_a_box(fill):
    """A blur of taps (1, 2, 1) / 4 becomes one of (1, 3, 3, 1) / 8."""
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
    """A convolution that reflects still does, and the end padding consists of zeros."""
    module = seeded(lambda: nn.Conv2d(4, 6, 3, 2, 1, padding_mode="reflect"))
    x = random(1, 4, 9, 9)
    reflected = F.pad(x, (1, 1, 1, 1), mode="reflect")
    box = slow_box(module.weight, 2)
    expected = slow_conv(reflected, box, module.bias, 2, (0, 0), (5, 5), 1, 1)
    assert torch.allclose(padded(module, "box")[0](x), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(16, 16), (15, 17), (16, 13)])
@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_tf_same_layers_pad_as_the_grown_kernel_would(kernel, size):
    """A padded TensorFlow-style layer pads as `conv2d_same` does for the padded kernel."""
    module = seeded(lambda: Conv2dSame(4, 6, kernel, 2))
    x = random(1, 4, *size)
    box = pad_weight(module.weight, (2, 2), "box")
    expected = conv2d_same(x, box, module.bias, (2, 2))
    assert torch.allclose(padded(module, "box")[0](x), expected, atol=1e-12)
    fresh, _ = padded(module, "fresh")
    assert torch.allclose(fresh(x), conv2d_same(x, fresh.weight, fresh.bias, (2, 2)), atol=1e-12)


@pytest.mark.parametrize("make", [StdConv2d, ScaledStdConv2d, StdConv2dSame, ScaledStdConv2dSame])
def test_fresh_keeps_the_output_variance_of_standardised_weights(make):
    """`fresh` keeps the output variance of standardised layers within 5 %."""
    module = make(64, 256, 3, 2, bias=False).double()
    variant, _ = padded(module, "fresh", torch.zeros(1, 64, 16, 16, dtype=torch.float64))
    x = random(2, 64, 40, 40)
    old, new = (m(x)[..., 2:-2, 2:-2].var().item() for m in (module, variant))
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
    """A padded maximum ranges over the real pixels of the padded window only."""
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
    """A padded mean weighs the pixels by (1, 2, 2, 1) / 6 and leaves end padding out."""
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
    """The box-padded mean of a constant equals the original with `divisor_override`."""
    x = torch.ones(1, 4, 10, 10, dtype=torch.float64)
    module = nn.AvgPool2d(3, 2, divisor_override=2)
    assert torch.allclose(padded(module, "box")[0](x), module(x))


def test_fresh_mean_pools_average_over_the_grown_window():
    """A `fresh` mean pool is the mean over the padded window."""
    x = random(1, 4, 10, 10)
    out = padded(nn.AvgPool2d(3, 2), "fresh")[0](x)
    assert torch.allclose(out[..., :3, :3], F.avg_pool2d(x, 4, 2)[..., :3, :3])


@pytest.mark.parametrize("size", [16, 15])
@pytest.mark.parametrize("make", [AvgPool2dSame, MaxPool2dSame])
def test_tf_same_pools_keep_their_shape_and_a_constant_inside(make, size):
    """Padded TensorFlow-style pools keep their output shape, and a constant inside."""
    module = make(3, 2)
    x = torch.full((1, 4, size, size), -3.0, dtype=torch.float64)
    out = padded(module, "box")[0](x)
    assert out.shape == module(x).shape
    assert torch.allclose(out[..., 1:-1, 1:-1], x[..., :1, :1])
