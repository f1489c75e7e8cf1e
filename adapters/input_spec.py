"""The input of a model: how an image in [0, 1] becomes the tensor that it is given."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch

from .device import send
from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class InputSpec:
    """Size, normalisation and layout that turn an image in [0, 1] into a model's input.

    `value_range` is the value of white before normalisation (1 or 255). `layout` and `dtype` are
    those of the runtime's input; `x` itself is float32 NCHW, so that all gradients have one layout.
    `guessed` names the fields that the model does not state.
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

        One-channel models get the mean of red, green and blue. Raises `InputError` when the shape
        is not (batch, 3, height, width).
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

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the input."""
        return self.channels, self.height, self.width

    def channel_mean(self, like: Tensor) -> Tensor:
        """`mean` as (1, channels, 1, 1), on the device of `like`."""
        return _by_channel(self.mean, like)

    def channel_std(self, like: Tensor) -> Tensor:
        """`std` as (1, channels, 1, 1), on the device of `like`."""
        return _by_channel(self.std, like)

    def blank(self, level: float = 0.5) -> Tensor:
        """Return a uniform image of grey value `level`, as `x` (1, channels, height, width)."""
        return self.prepare(torch.full((1, 3, self.height, self.width), level))

    def digest(self) -> str:
        """Return a sha256 of all fields; equal digests mean equal preprocessing."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _by_channel(values: tuple[float, ...], like: Tensor) -> Tensor:
    return send(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device).view(1, -1, 1, 1)


GUESSED = "input guessed: "
"""Beginning of the note that lists the guessed fields of the input with their values."""


def guessed_note(spec: InputSpec) -> list[str]:
    """A note with the guessed fields and their values; none if the model states all of them."""
    values = guessed_values(asdict(spec))
    return [GUESSED + "; ".join(values)] if values else []


def guessed_values(spec: Mapping[str, Any]) -> list[str]:
    """The guessed fields of a spec, each with its value, such as `mean 0.485, 0.456, 0.406`.

    `spec` has the fields of an `InputSpec` by name, as a record has them.
    """
    names = list(spec.get("guessed") or ())
    if {"height", "width"} <= set(names):
        names = ["size", *(name for name in names if name not in ("height", "width"))]
    return [f"{_LABELS.get(name, name)} {_value(spec, name)}" for name in names]


_LABELS = {
    "value_range": "range",
    "channel_order": "channel order",
    "interpolation": "resized by",
    "crop_pct": "crop",
}


def _value(spec: Mapping[str, Any], name: str) -> str:
    """The value of one field as text; `size` is height and width."""
    value = spec.get(name)
    if name == "size":
        return f"{spec.get('height')} x {spec.get('width')} (height x width)"
    if name == "value_range" and isinstance(value, int | float):
        return f"0..{value:g}"
    if isinstance(value, list | tuple):
        shown = value[:1] if len(value) > 3 and len(set(value)) == 1 else value
        return ", ".join(f"{v:.4g}" if isinstance(v, int | float) else str(v) for v in shown)
    return str(value)


def parse_size(text: str) -> tuple[int, int]:
    """Parse `224` or `224x320` as (height, width). Raises `InputError` for other texts."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(p.isdigit() and int(p) > 0 for p in parts):
        raise InputError(
            f"input size {text!r}; expected SIDE or HEIGHTxWIDTH, such as 224 or 224x320"
        )
    return int(parts[0]), int(parts[-1])
