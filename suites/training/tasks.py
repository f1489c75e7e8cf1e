"""The two tasks of `training`: their training batches and their evaluation.

A task gives batches as (images in [0, 1], labels), drawn by generators seeded with (seed, purpose,
epoch), so that any epoch can be produced without the previous ones. It evaluates a network, a
function from images to logits, on the test images.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ...adapters.errors import InputError, check_name
from . import micro_object
from .micro_object import Boxes, Places, draw_boxes, paint_boxes, resolved_period, spread_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..measuring.phases import Pair
    from .data import TrainingSet

    Predict = Callable[[Tensor], Tensor]
    Batch = tuple[Tensor, Tensor]

TaskName = Literal["classification", "micro_object"]

TASKS: tuple[TaskName, ...] = ("classification", "micro_object")

ORDER, BOXES, TEST = 11, 12, 13
"""The purposes of generators, which give one seed independent streams."""

CHUNK = 512


class Task(Protocol):
    """One task on one set of images."""

    classes: tuple[str, ...]

    def epoch(self, number: int, seed: int, batch: int, skip: int = 0) -> Iterator[Batch]:
        """The complete batches of epoch `number` in order, without the first `skip`."""

    def evaluate(self, predict: Predict) -> dict[str, Any]:
        """Test results: `accuracy` and the task's own numbers, as plain values and lists."""

    def test_images(self, count: int) -> Tensor:
        """The first `count` test images as the network gets them, but without boxes."""


def open_task(
    name: str, data: TrainingSet, *, seed: int = 0, period: Pair = (1, 1), side: int = 1
) -> Task:
    """Open the task called `name`; `seed` is that of the evaluation, equal for all variants.

    `period` is the network's stride and `side` that of the box, in pixels, for `micro_object`.
    Raises `UnknownNameError`, and `InputError` for data that the task cannot use.
    """
    check_name("task", name, TASKS)
    if name == "classification":
        return Classification(data)
    return MicroObject(data, seed, period, side)


def batches_of(count: int, batch: int, number: int, seed: int, skip: int) -> Iterator[Any]:
    """The indices in each batch of an epoch. Raises `InputError` if there are too few images."""
    if count < batch:
        raise InputError(f"{count} training images are fewer than a batch of {batch}")
    order = np.random.default_rng([seed, ORDER, number]).permutation(count)
    whole = count // batch
    yield from order[: whole * batch].reshape(whole, batch)[skip:]


def chunks_of(count: int) -> list[slice]:
    """Slices of `CHUNK` images, so that few test images are in memory as floats."""
    return [slice(start, start + CHUNK) for start in range(0, count, CHUNK)]


@dataclass
class Classification:
    """Ordinary classification of the images' labels."""

    data: TrainingSet
    classes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.classes = self.data.classes
        if len(self.classes) < 2:
            raise InputError(
                f"{self.data.name} has {len(self.classes)} classes; classification needs two or "
                "more: a folder with a subfolder of images for each, IDX files, or digits"
            )

    def epoch(self, number: int, seed: int, batch: int, skip: int = 0) -> Iterator[Batch]:
        """Images and their labels; see `Task`."""
        train = self.data.train
        for indices in batches_of(len(train), batch, number, seed, skip):
            yield train.images(indices), train.labels[torch.from_numpy(indices)]

    def evaluate(self, predict: Predict) -> dict[str, Any]:
        """The share of test images whose label has the largest logit."""
        test = self.data.test
        logits = torch.cat([predict(test.images(part)) for part in chunks_of(len(test))])
        return {"accuracy": float((logits.argmax(1) == test.labels).double().mean())}

    def test_images(self, count: int) -> Tensor:
        """Test images as they are."""
        return self.data.test.images(slice(count))


@dataclass
class MicroObject:
    """The task of `micro_object`: is the box black or red?"""

    data: TrainingSet
    seed: int
    period: Pair
    side: int
    classes: tuple[str, ...] = micro_object.CLASSES
    places: Places = field(init=False)
    resolved: Pair = field(init=False)

    def __post_init__(self) -> None:
        count = len(self.data.test)
        self.resolved = resolved_period(self.period, count)
        rng = np.random.default_rng([self.seed, TEST])
        self.places = spread_places(count, self.data.size, self.side, self.resolved, rng)

    def epoch(self, number: int, seed: int, batch: int, skip: int = 0) -> Iterator[Batch]:
        """Images of limited range with boxes drawn for this epoch; see `Task`."""
        train = self.data.train
        rng = np.random.default_rng([seed, BOXES, number])
        boxes = draw_boxes(len(train), self.data.size, self.side, rng)
        for indices in batches_of(len(train), batch, number, seed, skip):
            own = Boxes(boxes.places[indices], boxes.red[indices])
            images = micro_object.limit_range(train.images(indices))
            yield paint_boxes(images, own, self.side), torch.from_numpy(own.red).long()

    def evaluate(self, predict: Predict) -> dict[str, Any]:
        """Accuracy over both colours of every test image, overall and by phase, and the contrast.

        The contrast of an image is the increase of (red logit - black logit) from the black to
        the red box, divided by its mean over all images.
        """
        black, red = (self._logit_differences(predict, red=value) for value in (False, True))
        right = ((red > 0).astype(float) + (black <= 0)) / 2
        rise = red - black
        scale = abs(rise.mean()) or 1.0
        return {
            "accuracy": float(right.mean()),
            "phase_accuracy": self._by_phase(right),
            "phase_contrast": self._by_phase(rise / scale),
        }

    def test_images(self, count: int) -> Tensor:
        """Test images of limited range."""
        return micro_object.limit_range(self.data.test.images(slice(count)))

    def _logit_differences(self, predict: Predict, *, red: bool) -> Any:
        """Red minus black logit of every test image (images,), with a red or a black box."""
        found = []
        for part in chunks_of(len(self.data.test)):
            images, places = (
                micro_object.limit_range(self.data.test.images(part)),
                self.places[part],
            )
            boxes = Boxes(places, np.full(len(places), red))
            logits = predict(paint_boxes(images, boxes, self.side))
            found.append((logits[:, 1] - logits[:, 0]).double().numpy())
        return np.concatenate(found)

    def _by_phase(self, values: Any) -> list[list[float]]:
        found: list[list[float]] = micro_object.by_phase(
            values, self.places, self.resolved
        ).tolist()
        return found
