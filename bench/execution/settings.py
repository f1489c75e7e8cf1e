"""What the user chooses that can change a number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypedDict

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Precision
    from ...suites.images import ImageSet


FIT_DEFAULT = "dead-leaves"


@dataclass(frozen=True)
class Settings:
    """Everything the user chooses that can change a number, except model, fill, suite, protocol.

    `images` is `dead-leaves`, `noise` or a folder; `count` the number of images; `draws` the number
    of bootstrap replicates; `members` the number of weight sets of an `@init` model; `size`
    (height, width); `precision` the float type of the passes; `recalibrate` re-estimates the norms
    of kernel-padded models; `options` are settings of single suites, by suite and field, such as
    `{"erf": {"unit": (0, 0)}}` (see `suites.settings`); `inputs` declares what ONNX files and
    modules leave open about their input and output, such as `{"range": "0..255", "output":
    "scores"}` (see `adapters.onnx.inputs.declaration`); `fit_images` is `dead-leaves` or a folder
    of unlabelled images that kernel padding `fit` is fitted on (see `fit_images`).

    With a `precision_goal` a model variant gets more than `count` images until the half width of
    the interval of `PRECISION_OF` is at most that, but not more than `most_images`. An `@init`
    model then gets a weight set for each image, unless `members` says otherwise. An interval at
    which one stops because it is narrow covers a little less often than it says.
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
    precision_goal: float | None = None
    most_images: int = 256

    def __post_init__(self) -> None:
        self._check_goal()
        if not 0 <= self.seed <= LARGEST_SEED:
            raise InputError(
                f"the seed is {self.seed}; expected 0 to {LARGEST_SEED}: give another --seed"
            )

    def _check_goal(self) -> None:
        """Raise `InputError` for a goal that no number of images reaches."""
        if self.precision_goal is None:
            return
        if not self.precision_goal > 0:
            raise InputError(
                f"the precision goal is {self.precision_goal:g}; expected a half width above 0, "
                "such as 0.05"
            )
        if self.most_images < self.count:
            raise InputError(
                f"at most {self.most_images} images may be taken for the precision goal, but it "
                f"begins with {self.count}: raise --most-images or lower --count"
            )

    @property
    def weight_sets(self) -> int | None:
        """The number of weight sets that an `@init` model is opened with; None for the default."""
        if self.members is None and self.precision_goal is not None:
            return self.most_images
        return self.members

    def open_images(self) -> ImageSet:
        """The images to audit on; with a precision goal all that it may take.

        Raises `InputError` for an empty folder, `UnknownNameError` for an unknown name.
        """
        from ...suites.images import open_images

        if self.precision_goal is None:
            return open_images(self.images, self.count, self.seed)
        return open_images(self.images, self.most_images, self.seed).shuffled()


PRECISION_OF = ("deadpixel", "energy")
"""The suite and protocol whose headline metric, `weakest`, a precision goal is about."""

GOAL_FIELDS = ("precision_goal", "count", "most_images")
"""Fields that are among a record's settings if there is a precision goal."""

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
    precision_goal: float | None
    most_images: int
