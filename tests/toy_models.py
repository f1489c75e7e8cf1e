"""Small networks whose answers follow from a formula."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class Average(nn.Module):
    """A one-channel mean over k x k with stride s, padded as an odd kernel would be.

    With `treated`, the kernel grows to the next multiple of the stride and the input at its end.
    """

    def __init__(self, kernel: int, stride: int = 1, *, treated: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.grown = kernel + -kernel % stride if treated else kernel

    def forward(self, x):
        pad = (self.kernel - 1) // 2
        size = (x.shape[-1] + 2 * pad - self.kernel) // self.stride + 1
        end = max(pad, (size - 1) * self.stride + self.grown - x.shape[-1] - pad)
        x = F.pad(x, (pad, end, pad, end))
        return F.avg_pool2d(x, self.grown, self.stride)


class LinearBlock(nn.Module):
    """A residual block of a linear ResNet-50: a 3 x 3 mean beside the shortcut."""

    def __init__(self, stride: int, *, treated: bool) -> None:
        super().__init__()
        self.branch = Average(3, stride, treated=treated)
        self.shortcut = Average(1, stride, treated=treated) if stride > 1 else nn.Identity()

    def forward(self, x):
        return self.branch(x) + self.shortcut(x)


def linear_resnet50(*, treated: bool = False) -> nn.Sequential:
    """One channel, all kernels averaging, shortcuts the identity or a strided 1 x 1 mean."""
    layers: list[nn.Module] = [Average(7, 2, treated=treated), Average(3, 2, treated=treated)]
    for stage, depth in enumerate((3, 4, 6, 3)):
        for block in range(depth):
            stride = 2 if stage > 0 and block == 0 else 1
            layers.append(LinearBlock(stride, treated=treated))
    return nn.Sequential(*layers)


def stack(depth: int, *, padding: int = 0) -> nn.Sequential:
    """`depth` convolutions 3 x 3, one channel, no bias."""
    return nn.Sequential(*(nn.Conv2d(1, 1, 3, padding=padding, bias=False) for _ in range(depth)))


class Branches(nn.Module):
    """Branches of unequal width, groups, pools, norms and a residual sum, joined in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Conv2d(8, 6, 5, padding=2)
        self.thin = nn.Conv2d(8, 2, 1)
        self.grouped = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Sequential(nn.Conv2d(8, 4, 3, 2, 1), nn.BatchNorm2d(4))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.grouped(torch.cat([self.wide(x), self.thin(x)], 1))
        return self.last(self.pool(x))


class Fork(nn.Module):
    """A 3 x 3 and a 7 x 7 branch that meet: the union of their intervals counts."""

    def __init__(self) -> None:
        super().__init__()
        self.small, self.large = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 7, 2, 1)

    def forward(self, x):
        large = self.large(x)
        return self.small(x)[..., : large.shape[-2], : large.shape[-1]] + large


class Gated(nn.Module):
    """A convolution with a squeeze-and-excitation gate behind it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1)

    def forward(self, x):
        x = self.conv(x)
        return x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))


class Tokens(nn.Module):
    """Patches of 4 x 4 with one attention layer; the target is its token grid."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.patches, self.qkv = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 3 * width)

    def forward(self, x):
        x = self.patches(x)
        tokens = x.flatten(2).transpose(1, 2)
        query, key, value = self.qkv(tokens).chunk(3, -1)
        mixed = (query @ key.transpose(1, 2)).softmax(-1) @ value
        return (tokens + mixed).transpose(1, 2).unflatten(2, x.shape[2:])
