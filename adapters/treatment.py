"""What kernel padding did to a model: the fill, the layers it grew, those it left."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


Fill = Literal["none", "zero", "box", "fresh", "fit"]


UNTOUCHED = "untouched by kernel padding: no strided kernel that the fill could grow"


FILLS: tuple[Fill, ...] = ("none", "zero", "box", "fresh", "fit")


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
