"""How a model wants its pixels, from an image in [0, 1] to the tensor it sees."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import Literal

import torch
from torch import Tensor

from .device import send
from .errors import InputError


@dataclass(frozen=True)
class InputSpec:
    """How a model wants its pixels: everything between an image in [0, 1] and the tensor it sees.

    `value_range` is the value of white before normalisation (1 or 255). `layout` and `dtype` are
    what the runtime is fed; `x` itself stays float32 NCHW, so that all gradients share one shape.
    `guessed` names the fields that were not stated by the model.
    """

    height: int
    width: int
    channels: int = 3
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    value_range: float = 1.0
    channel_order: Literal["RGB", "BGR"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    dtype: Literal["float32", "float16", "uint8"] = "float32"
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    guessed: tuple[str, ...] = ()

    def prepare(self, images: Tensor) -> Tensor:
        """Normalise `images` (batch, 3, height, width) in [0, 1] to `x` (batch, channels, ...).

        One-channel models see the mean of red, green and blue.
        Raises `InputError` when the shape is not (batch, 3, height, width).
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise InputError(
                f"images have shape {tuple(images.shape)}; expected (batch, 3, height, width)"
            )
        if self.channels == 1:
            images = images.mean(1, keepdim=True)
        elif self.channel_order == "BGR":
            images = images.flip(1)
        return (images * self.value_range - self.channel_mean(images)) / self.channel_std(images)

    def channel_mean(self, like: Tensor) -> Tensor:
        """`mean` as (1, channels, 1, 1), on the device of `like`."""
        return _by_channel(self.mean, like)

    def channel_std(self, like: Tensor) -> Tensor:
        """`std` as (1, channels, 1, 1), on the device of `like`."""
        return _by_channel(self.std, like)

    def blank(self, level: float = 0.5) -> Tensor:
        """One image of nothing but grey `level`, as `x` (1, channels, height, width)."""
        return self.prepare(torch.full((1, 3, self.height, self.width), level))

    def digest(self) -> str:
        """Sha256 over all fields: two equal digests see the same pixels."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _by_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return send(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device).view(1, -1, 1, 1)


def parse_size(text: str) -> tuple[int, int]:
    """Read `224` or `224x320` as (height, width). Raises `InputError`."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(
            f"input size {text!r}; expected SIDE or HEIGHTxWIDTH, such as 224 or 224x320"
        )
    return int(parts[0]), int(parts[-1])
