"""What the kernel padding tests share: seeded modules and literal references."""

from __future__ import annotations

import copy

import torch

from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module

FILLS = ("zero", "box", "fresh")
GROWING = ("box", "fresh")


def random(*shape, seed=0, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def seeded(make, seed=0):
    """The module `make()` in float64 and eval mode, with newly drawn parameters and statistics."""
    module = make().double().eval()
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.data.normal_(generator=generator)
    return module


def padded(module, fill, example=None, **kwargs):
    """A padded copy and its treatment."""
    variant = copy.deepcopy(module)
    example = torch.zeros(1, 4, 16, 16, dtype=torch.float64) if example is None else example
    return variant, pad_module(variant, fill, example, **kwargs)


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
