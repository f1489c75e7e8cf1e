"""Make the four files that this folder compares: `python results/vendors/make.py FOLDER`.

FOLDER holds lite0.pth (python results/trained/checkpoints.py FOLDER) and the folder photographs
(python results/trained/photographs.py FOLDER/photographs). Written there, all with the weights of
EfficientNet-Lite0: a.onnx as torch's older exporter writes it; b.onnx, the same with 40 x 40 pixels
of its input multiplied by 0; c.onnx in eight bits, of the newer exporter; d.onnx, which is a.onnx
in eight bits. Both are by onnxruntime, with activations, calibrated on 16 photographs.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch
from onnxruntime import quantization
from torch import Tensor, nn

from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.suites.images import open_images

HOLE = (slice(60, 100), slice(120, 160))
"""Rows and columns of the pixels that b.onnx does not see."""


class Holed(nn.Module):
    """A network that sees nothing of some pixels."""

    def __init__(self, body: nn.Module, height: int, width: int) -> None:
        super().__init__()
        mask = torch.ones(1, 1, height, width)
        mask[..., HOLE[0], HOLE[1]] = 0
        self.register_buffer("mask", mask)
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Logits (batch, classes) of images (batch, 3, height, width)."""
        return self.body(x * self.mask)


class Reader(quantization.CalibrationDataReader):
    """Prepared photographs, one at a time, as onnxruntime wants them."""

    def __init__(self, images: Tensor, name: str) -> None:
        self._feeds = iter([{name: image[None].numpy()} for image in images])

    def get_next(self) -> dict[str, object] | None:
        """The next photograph, or None."""
        return next(self._feeds, None)


def make(folder: Path) -> None:
    """Write the four files."""
    lite = load(f"timm:tf_efficientnet_lite0@{folder / 'lite0.pth'}", device="cpu")
    spec, blank = lite.spec, lite.spec.blank()
    export_onnx(lite.module(), blank, folder / "a.onnx", spec=spec)
    holed = Holed(lite.module(), spec.height, spec.width).eval()
    export_onnx(holed, blank, folder / "b.onnx", spec=spec)
    images = spec.prepare(open_images(str(folder / "photographs"), 16).load(spec))
    with tempfile.TemporaryDirectory() as scratch:
        # the newer exporter writes the widths of the borders as constants, which stay exact
        newer = export_onnx(lite.module(), blank, Path(scratch) / "a.onnx", spec=spec, dynamo=True)
        _quantise(newer, folder / "c.onnx", images)
    _quantise(folder / "a.onnx", folder / "d.onnx", images)


def _quantise(path: Path, out: Path, images: Tensor) -> None:
    """Write the file at `path` in eight bits, with activations, one scale a channel of weights."""
    reader = Reader(images, "image")
    quantization.quantize_static(str(path), str(out), reader, per_channel=True)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
