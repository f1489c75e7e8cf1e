"""What the user chooses that can change a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Precision


FIT_DEFAULT = "dead-leaves"


@dataclass(frozen=True)
class Settings:
    """Everything the user chooses that can change a number, except model, fill, suite, protocol.

    `images` is `dead-leaves`, `noise` or a folder; `count` how many; `draws` the bootstrap
    replicates; `members` the weight sets of an `@init` model; `size` (height, width); `precision`
    the float type of the passes; `recalibrate` re-estimates the norms of treated twins; `options`
    are settings of single suites, by suite and field (see `suites.settings`). `inputs` state
    what ONNX files leave to guess of their input and output (see
    `adapters.onnx.inputs.declaration`).
    `fit_images` is what kernel padding `fit` is fitted on (see `fit_images`).
    """

    images: str = "dead-leaves"
    count: int = 16
    seed: int = 0
    draws: int = 200
    target: str | None = None
    size: tuple[int, int] | None = None
    members: int | None = None
    precision: Precision = "float32"
    recalibrate: bool = False
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    fit_images: str = FIT_DEFAULT
