"""A small residual network for training on a processor: basic blocks (He et al. 2016), stride 8.

The network has a 3 x 3 stem at stride 2, then stages of `width`, 2 x `width` and 4 x `width`
channels, the second and third at stride 2 with a 1 x 1 shortcut at stride 2, a mean over units and
a linear classifier. Its strided kernels are those of large residual networks: 3 and 1 at stride 2,
which does not divide them. `forward_features` and `forward_head` have timm's names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

STRIDE = 2

SIZES: Mapping[str, tuple[int, tuple[int, ...]]] = {
    "small-resnet": (24, (1, 1, 2)),
    "tiny-resnet": (16, (1, 1, 1)),
}
"""Width and blocks per stage; the networks have 0.34 and 0.08 million parameters."""


def conv_norm(into: int, out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps h / stride units, and its batch norm."""
    convolution = nn.Conv2d(into, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(out))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut, which is 1 x 1 where the shape changes."""

    def __init__(self, into: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = conv_norm(into, out, 3, stride)
        self.second = conv_norm(out, out, 3)
        same = into == out and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(into, out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, into, h, w) to (batch, out, h / stride, w / stride)."""
        return F.relu(self.second(F.relu(self.first(x))) + self.shortcut(x))


class SmallResNet(nn.Module):
    """The network; see the module's docstring. `blocks` are those of each stage."""

    def __init__(
        self, classes: int, *, channels: int = 3, width: int = 24, blocks: Sequence[int] = (1, 1, 2)
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_norm(channels, width, 3, STRIDE), nn.ReLU())
        layers: list[nn.Module] = []
        into = width
        for stage, count in enumerate(blocks):
            out = width * 2**stage
            for block in range(count):
                layers.append(BasicBlock(into, out, STRIDE if stage and not block else 1))
                into = out
        self.stages = nn.Sequential(*layers)
        self.head = nn.Linear(into, classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to the last spatial map, of stride 8."""
        found: Tensor = self.stages(self.stem(x))
        return found

    def forward_head(self, features: Tensor) -> Tensor:
        """Map the last spatial map to logits (batch, classes)."""
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, channels, height, width) to logits (batch, classes)."""
        return self.forward_head(self.forward_features(x))
