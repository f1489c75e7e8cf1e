"""Kernel padding of a model: the options that it takes, and the report of what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


Fill = Literal["none", "zero", "box", "fresh", "fit", "kim2023"]
"""The values that kernel padding gives to new taps; see the glossary."""

UNTOUCHED = "untouched by kernel padding: no strided kernel that the fill could grow"

FILLS: tuple[Fill, ...] = ("none", "zero", "box", "fresh", "fit", "kim2023")

ZEROS: tuple[Fill, ...] = ("zero", "kim2023")
"""The fills whose new taps are 0 until they are trained."""


@dataclass(frozen=True)
class PaddingOptions:
    """Options of kernel padding, besides the fill.

    `seed` draws the taps of `fresh`. `recalibrate` gives the norms of the padded model outputs of
    the mean and variance that those of the original have, channel by channel, on the images that
    the model is selected with. `images` (images, 3, height, width) in [0, 1], without labels, are
    for `fit` alone, which requires them; they should not be the images of the audit.
    """

    seed: int = 0
    recalibrate: bool = False
    images: Tensor | None = None


PADDING_DEFAULTS = PaddingOptions()


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
    """What kernel padding did: the fill, the layers it grew, and why it refused others, by name."""

    fill: Fill
    layers: tuple[PaddedLayer, ...] = ()
    refused_layers: Mapping[str, str] = field(default_factory=dict)


MOST_LEFT = 4
"""Most layers that a note names."""


def left_note(treatment: Treatment) -> list[str]:
    """A note on the strided kernels that kernel padding left, and why; none if it grew all.

    A network without an uneven kernel has the note that nothing was padded.
    """
    if treatment.fill == "none":
        return []
    left = [f"{name} ({why})" for name, why in treatment.refused_layers.items()]
    more = f" and {len(left) - MOST_LEFT} more" if len(left) > MOST_LEFT else ""
    named = ", ".join(left[:MOST_LEFT]) + more
    if not treatment.layers:
        return [f"{UNTOUCHED}: {named}" if left else UNTOUCHED]
    return [f"left by kernel padding {treatment.fill!r}: {named}"] if left else []
