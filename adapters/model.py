"""The one interface of everything that can be audited, whatever its runtime.

Shapes are named (batch, channels, height, width). `images` are always (batch, 3, height, width)
float32 in [0, 1]; `x` is what `InputSpec.prepare` makes of them: (batch, spec.channels, height,
width), normalised, the tensor gradients are taken with respect to.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

import torch
from torch import Tensor, nn

from .device import send
from .errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

STRIDE_TOLERANCE = 0.25

Precision = Literal["float32", "float64", "bfloat16"]
"""Float type of the passes: float64 where decisions at kinks must not depend on rounding, bfloat16
(gradient passes only, batch norms folded) where speed matters more than the third digit."""

Fill = Literal["none", "zero", "box", "fresh", "fit"]
UNTOUCHED = "untouched by kernel padding: no strided kernel that the fill could grow"
FILLS: tuple[Fill, ...] = ("none", "zero", "box", "fresh", "fit")

Border = Literal["reflect", "replicate", "circular"]
"""What may stand beyond a border in place of padding: torch's names of its padding modes."""
BORDERS: tuple[Border, ...] = ("reflect", "replicate", "circular")


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


@dataclass(frozen=True)
class Grid:
    """How a raw target tensor is read as (batch, channels, height, width).

    `kind` is NCHW, NHWC, NLC (batch, tokens, channels) or NCL; `prefix` tokens (class, register)
    come first and are dropped. `height` and `width` count units.
    """

    name: str
    kind: Literal["NCHW", "NHWC", "NLC", "NCL"]
    channels: int
    height: int
    width: int
    prefix: int = 0

    def read(self, raw: Tensor) -> Tensor:
        """View `raw` as (batch, channels, height, width); differentiable."""
        if self.kind == "NCHW":
            return raw
        if self.kind == "NHWC":
            return raw.permute(0, 3, 1, 2)
        tokens = raw if self.kind == "NLC" else raw.transpose(1, 2)
        tokens = tokens[:, self.prefix :]
        return tokens.transpose(1, 2).reshape(len(raw), -1, self.height, self.width)


def find_grid(
    name: str, raw: Tensor, input_size: tuple[int, int], prefix: int | None = None
) -> Grid | None:
    """Read the shape of one raw tensor as a grid of units, or None when it is none.

    `raw` is (batch, ...); `input_size` is (height, width) in pixels. A grid has at least two units
    along one axis, and about the same stride along both. Token tensors may carry
    `prefix` leading tokens; None tries 0, 1, 2, 4, 5.
    """
    shape = tuple(raw.shape)
    if not raw.is_floating_point():
        return None
    if len(shape) == 4:
        if _is_grid(shape[2:], input_size):
            return Grid(name, "NCHW", shape[1], *shape[2:])
        if _is_grid(shape[1:3], input_size):
            return Grid(name, "NHWC", shape[3], *shape[1:3])
        return None
    if len(shape) != 3:
        return None
    for kind, tokens, channels in (("NLC", shape[1], shape[2]), ("NCL", shape[2], shape[1])):
        for skip in (0, 1, 2, 4, 5) if prefix is None else (prefix,):
            size = _token_size(tokens - skip, input_size)
            if size is not None:
                return Grid(name, kind, channels, *size, prefix=skip)  # type: ignore[arg-type]
    return None


def _is_grid(size: tuple[int, ...], input_size: tuple[int, int]) -> bool:
    """Whether `size` units cover `input_size` pixels with strides within a quarter of another.

    Unpadded networks lose the same number of units along both axes, so strides may differ a little.
    """
    (h, w), (height, width) = size, input_size
    if h * w < 2 or h > height or w > width:
        return False
    rows, columns = height / h, width / w
    return abs(rows - columns) <= STRIDE_TOLERANCE * max(rows, columns)


def _token_size(tokens: int, input_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) that `tokens` units make over `input_size`, within one unit, or None."""
    if tokens < 4:
        return None
    height, width = input_size
    h = round((tokens * height / width) ** 0.5)
    if h < 1 or tokens % h or h > height:
        return None
    w = tokens // h
    return (h, w) if abs(h * width / height - w) < 1 else None


@dataclass(frozen=True)
class Outputs:
    """What one pass gives: `target` (batch, channels, height, width) and `logits` (batch, classes).

    Each is None when it was not asked for or when the model has none.
    """

    target: Tensor | None = None
    logits: Tensor | None = None


@dataclass(frozen=True)
class PaddedLayer:
    """One layer that kernel padding grew: kernel before and after, stride, as (rows, columns)."""

    name: str
    kind: str
    stride: tuple[int, int]
    kernel: tuple[int, int]
    padded_kernel: tuple[int, int]


@dataclass(frozen=True)
class Treatment:
    """What kernel padding did: the fill, the layers it grew, and those it left and why."""

    fill: Fill
    layers: tuple[PaddedLayer, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


class Model(Protocol):
    """Anything that can be audited.

    Capabilities are data: `gradients` and `spatial` are None when the model can do it, else the
    reason why not, which becomes the text of a skipped record.
    """

    reference: str
    """What the user typed, or a name for a module given in Python."""
    source: Mapping[str, str]
    """Where it came from: runtime, file, sha256 of file and tensors; strings only."""
    spec: InputSpec
    device: torch.device
    target: Grid | None
    spatial: str | None
    members: int
    """How many independent weight sets stand behind it: 1, or the number of seeds of `@init`."""
    treatment: Treatment | None
    notes: list[str]
    """What the reader of the record must know, such as a guessed input or a fallback."""

    @property
    def original(self) -> Model | None:
        """The untreated twin, when this model is kernel-padded."""

    @property
    def gradients(self) -> str | None:
        """None, or the reason; a property because some adapters measure it when first asked."""

    def select(self, member: int, x: Tensor) -> None:
        """Load weight set `member`; `x` (images, channels, height, width) calibrates norms.

        Give all images: the model takes as many as it needs.
        """

    def run(self, x: Tensor, *, target: bool = True, logits: bool = False) -> Outputs:
        """One pass over `x`. Differentiable with respect to `x` when it requires a gradient.

        Without `logits` the pass stops at the target.
        """

    def skeleton(self) -> nn.Module:
        """A light copy that maps `x` to the target, for `structure`: shapes count, weights do not.

        On the CPU; convolution and linear weights are on the `meta` device, all other parameters
        are ones. Raises `NotApplicableError`.
        """

    def padded(
        self,
        fill: Fill,
        *,
        seed: int = 0,
        recalibrate: bool = False,
        images: Tensor | None = None,
    ) -> Model:
        """The kernel-padded twin (PROTOCOL 6); `self` is not touched.

        `images` (images, 3, height, width) in [0, 1], without labels, are for `fit` alone, which
        needs them. They should not be those that the twin is then audited on.

        `recalibrate` has the twin's norms give, on the images it is shown, outputs of the mean and
        variance that the original's have, channel by channel.
        """

    def resized(self, height: int, width: int) -> Model:
        """The same weights at another input size; `self` is not touched.

        Weight sets of `@init` models are to be selected anew. Raises `InputError`, naming sizes
        that the model takes, when it refuses this one.
        """

    def stages(self, x: Tensor) -> dict[str, Tensor]:
        """The last spatial map at each resolution from the input to the target, by layer name.

        One pass over `x` without gradients. Maps are (batch, channels, height, width), in
        execution order, none larger than the one before; the last one is the target. Raises
        `NotApplicableError` without a target.
        """

    def filters(self) -> Mapping[str, Tensor]:
        """Learned kernels (out, in per group, rows, columns) of 2-D convolutions, by layer name.

        Copies, in float32 on the CPU.
        """

    def bordered(self, border: Border) -> Model:
        """A twin of the selected weight set whose layers continue their input beyond its border.

        The padding of convolutions (zeros) and of pools is exchanged for `border`; `self` is not
        touched. Layers that keep theirs, and why, are in the twin's `notes`. Raises `InputError`
        for an unknown border, `NotApplicableError` when no layer pads.
        """
