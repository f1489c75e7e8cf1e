"""CRAFT, the text detector of Baek et al. 2019, built to take the weights of its authors.

VGG-16 with batch norm, two dilated layers behind it, and four steps back up to half of the image's
resolution. The names of the layers are those of the file of weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import vgg16_bn

if TYPE_CHECKING:
    from pathlib import Path

ENDS = (12, 19, 29, 39)
"""Where the backbone is cut: behind the norms of conv2_2, conv3_2, conv4_2 and conv5_2."""


class Craft(nn.Module):
    """Maps (batch, 2, height / 2, width / 2) of characters and of the gaps between them."""

    def __init__(self) -> None:
        super().__init__()
        layers = list(vgg16_bn().features.named_children())
        self.basenet = nn.Module()
        for number, (start, end) in enumerate(zip((0, *ENDS), ENDS, strict=False), 1):
            part = nn.Sequential()
            for name, layer in layers[start:end]:
                part.add_module(name, nn.ReLU() if isinstance(layer, nn.ReLU) else layer)
            self.basenet.add_module(f"slice{number}", part)
        self.basenet.slice5 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1), nn.Conv2d(512, 1024, 3, 1, 6, 6), nn.Conv2d(1024, 1024, 1)
        )
        sizes = ((1536, 512, 256), (768, 256, 128), (384, 128, 64), (192, 64, 32))
        for number, size in enumerate(sizes, 1):
            self.add_module(f"upconv{number}", _Mix(*size))
        kernels = ((32, 32, 3), (32, 32, 3), (32, 16, 3), (16, 16, 1), (16, 2, 1))
        head: list[nn.Module] = []
        for source, count, kernel in kernels:
            head += [nn.Conv2d(source, count, kernel, padding=kernel // 2), nn.ReLU()]
        self.conv_cls = nn.Sequential(*head[:-1])

    def forward(self, image: Tensor) -> Tensor:
        """The two maps of `image` (batch, 3, height, width), normalised as ImageNet's."""
        net = self.basenet
        half = net.slice1(image)
        quarter = net.slice2(half)
        eighth = net.slice3(quarter)
        deep = net.slice4(eighth)
        # the authors' ReLUs work in place: what the steps up read has passed them
        y = self.upconv1(torch.cat([net.slice5(deep), deep], 1))
        for step, skip in (
            (self.upconv2, eighth.relu()),
            (self.upconv3, quarter.relu()),
            (self.upconv4, half.relu()),
        ):
            y = interpolate(y, skip.shape[2:], mode="bilinear")
            y = step(torch.cat([y, skip], 1))
        return self.conv_cls(y)


class _Mix(nn.Module):
    def __init__(self, source: int, middle: int, count: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            *(nn.Conv2d(source, middle, 1), nn.BatchNorm2d(middle), nn.ReLU()),
            *(nn.Conv2d(middle, count, 3, padding=1), nn.BatchNorm2d(count), nn.ReLU()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def load_craft(path: Path) -> Craft:
    """The network with the weights of the file at `path`, which is not unpickled."""
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network = Craft()
    network.load_state_dict({k.removeprefix("module."): v for k, v in weights.items()})
    return network.eval()
