"""Small networks of the literature, rebuilt to the letter, whose answers follow from a formula."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

DEPTHS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
"""Bottleneck units in the four blocks of a ResNet (He et al. 2016)."""


class Average(nn.Module):
    """A one-channel mean over k x k with stride s, padded as an odd kernel would be.

    With `treated`, the kernel grows to the next multiple of the stride and the input at its end
    (Kim et al. 2023).
    """

    def __init__(self, kernel: int, stride: int = 1, *, treated: bool = False) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.grown = kernel + -kernel % stride if treated else kernel
        self.mean = nn.Conv2d(1, 1, self.grown, stride, bias=False)
        nn.init.constant_(self.mean.weight, 1 / self.grown**2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 1, height, width) to the same axes."""
        pad = (self.kernel - 1) // 2
        size = (x.shape[-1] + 2 * pad - self.kernel) // self.stride + 1
        end = max(pad, (size - 1) * self.stride + self.grown - x.shape[-1] - pad)
        out: Tensor = self.mean(F.pad(x, (pad, end, pad, end)))
        return out


class _LinearBlock(nn.Module):
    """A 3 x 3 mean beside the shortcut."""

    def __init__(self, stride: int, *, treated: bool) -> None:
        super().__init__()
        self.branch = Average(3, stride, treated=treated)
        self.shortcut = Average(1, stride, treated=treated) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x) + self.shortcut(x)
        return out


def linear_resnet50(*, treated: bool = False) -> nn.Sequential:
    """One channel, all kernels averaging, shortcuts the identity or a strided 1 x 1 mean."""
    layers: list[nn.Module] = [Average(7, 2, treated=treated), Average(3, 2, treated=treated)]
    for stage, depth in enumerate(DEPTHS[50]):
        strides = [2 if stage > 0 else 1] + [1] * (depth - 1)
        layers += [_LinearBlock(stride, treated=treated) for stride in strides]
    return nn.Sequential(*layers)


def averaging_stack(depth: int, *, channels: int = 1) -> nn.Sequential:
    """`depth` convolutions 3 x 3 of equal weights, without padding or bias; sums are kept."""
    layers = [nn.Conv2d(channels, channels, 3, bias=False) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / layer.weight[0].numel())
    return nn.Sequential(*layers)


def alexnet_v2() -> nn.Sequential:
    """TF-Slim's `alexnet_v2` up to pool5 (Krizhevsky 2014), at a few channels."""
    return nn.Sequential(
        nn.Conv2d(3, 4, 11, 4),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(4, 4, 5, padding=2),
        nn.MaxPool2d(3, 2),
        *(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)),
        nn.MaxPool2d(3, 2),
    )


class SamePool(nn.Module):
    """TensorFlow's SAME max-pool: the padding follows the input's size, the odd unit at the end."""

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the same axes."""
        pads: list[int] = []
        for n in (x.shape[-1], x.shape[-2]):
            total = max(0, (-(-n // self.stride) - 1) * self.stride + self.kernel - n)
            pads += [total // 2, total - total // 2]
        return F.max_pool2d(F.pad(x, pads), self.kernel, self.stride)


class _SlimUnit(nn.Module):
    """TF-Slim's bottleneck: the stride in the 3 x 3, and in a 1 x 1 max-pool beside it."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, stride, 1), nn.Conv2d(4, 4, 1)
        )
        self.shortcut = nn.MaxPool2d(1, stride)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.branch(x) + self.shortcut(x)
        return out


def slim_resnet(units: Sequence[int], blocks: int = 4) -> nn.Sequential:
    """TF-Slim's ResNet up to block `blocks`: each of blocks 1 to 3 strides in its *last* unit."""
    layers: list[nn.Module] = [nn.Conv2d(3, 4, 7, 2, 3), SamePool(3, 2)]
    for block, depth in enumerate(units[:blocks]):
        last = 2 if block < 3 else 1
        layers += [_SlimUnit(last if unit == depth - 1 else 1) for unit in range(depth)]
    return nn.Sequential(*layers)


class BlindCorner(nn.Module):
    """`body` behind a mask that multiplies the upper left `side` x `side` pixels by 0."""

    def __init__(self, side: int, body: nn.Module) -> None:
        super().__init__()
        self.side, self.body = side, body

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to what `body` gives."""
        mask = torch.ones_like(x)
        mask[..., : self.side, : self.side] = 0.0
        out: Tensor = self.body(x * mask)
        return out
