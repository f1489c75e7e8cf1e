"""Small networks whose answers follow from a formula."""

from __future__ import annotations

import torch
from torch import nn


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
