"""What the user chooses that can change a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Precision


FIT_DEFAULT = "dead-leaves"


@dataclass(frozen=True)
class Settings:
    """Everything the user chooses that can change a number, except model, fill, suite, protocol.

    `images` is `dead-leaves`, `noise` or a folder; `count` the number of images; `draws` the number
    of bootstrap replicates; `members` the number of weight sets of an `@init` model; `size`
    (height, width); `precision` the float type of the passes; `recalibrate` re-estimates the norms
    of kernel-padded models; `options` are settings of single suites, by suite and field, such as
    `{"erf": {"unit": (0, 0)}}` (see `suites.settings`); `inputs` declares what ONNX files leave
    open about their input and output, such as `{"range": "0..255", "output": "scores"}` (see
    `adapters.onnx.inputs.declaration`); `fit_images` is `dead-leaves` or a folder of unlabelled
    images that kernel padding `fit` is fitted on (see `fit_images`).
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

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(
                f"the seed is {self.seed}; expected 0 to {LARGEST_SEED}: give another --seed"
            )


LARGEST_SEED = 2**62


class SettingsFields(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments; `tests/test_settings.py` compares the two."""

    images: str
    count: int
    seed: int
    draws: int
    target: str | None
    size: tuple[int, int] | None
    members: int | None
    precision: Precision
    recalibrate: bool
    options: Mapping[str, Mapping[str, Any]]
    inputs: Mapping[str, Any]
    fit_images: str
