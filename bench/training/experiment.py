"""The data classes of training: the experiment, its recipe, its runs and their results."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ...adapters.errors import InputError, check_name
from ...adapters.treatment import Fill
from ...suites.training.tasks import TASKS
from ..execution.plan import parse_fills

if TYPE_CHECKING:
    from torch import nn

    from ...adapters.input_spec import InputSpec
    from ...adapters.treatment import Treatment
    from ...suites.measuring.phases import Pair
    from ...suites.training.summary import TrainingHistory
    from ..records.record import Record


DEFAULT_DATA = {"micro_object": "dead-leaves", "classification": "digits"}

DEFAULT_FILLS: tuple[Fill, ...] = ("none", "zero")


@dataclass(frozen=True)
class Recipe:
    """How a network is trained; everything here can change the numbers."""

    epochs: int = 16
    batch: int = 32
    rate: float = 0.03
    momentum: float = 0.9
    decay: float = 5e-4
    warmup: float = 0.1
    precision: Literal["float32", "bfloat16"] = "float32"

    def rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step `step`, from 0, of all `steps`."""
        rising = max(1, round(self.warmup * steps))
        if step < rising:
            return self.rate * (step + 1) / rising
        return self.rate * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising))) / 2


@dataclass(frozen=True)
class Experiment:
    """What is to be trained. Everything here but `export` can change the numbers.

    `data` is a folder or built in (see `suites.training.data`), None for the default of each task;
    `size` is (height, width) of the images, `train` and `test` their maximum numbers; `side` that
    of the box in pixels; `seeds` the number of seeds, from `first_seed` on. The trained networks of
    the first `export` seeds are written as ONNX files.
    """

    network: str = "small-resnet"
    tasks: tuple[str, ...] = TASKS
    fills: tuple[Fill, ...] = DEFAULT_FILLS
    seeds: int = 5
    first_seed: int = 0
    data: str | None = None
    size: Pair | None = None
    train: int | None = None
    test: int | None = None
    side: int = 3
    recipe: Recipe = field(default_factory=Recipe)
    draws: int = 200
    export: int = 1

    def __post_init__(self) -> None:
        for task in self.tasks:
            check_name("task", task, TASKS)
        if "fit" in parse_fills(self.fills):
            raise InputError(
                "kernel padding 'fit' was given, which applies to trained networks alone; expected "
                "some of none, zero, fresh and box"
            )
        least = {"seeds": self.seeds, "epochs": self.recipe.epochs, "batch": self.recipe.batch}
        for name, value in least.items():
            if value < 1:
                raise InputError(f"{name} {value} was given; expected at least 1")


@dataclass(frozen=True)
class TrainingRun:
    """One run: a task, a kernel padding and a seed."""

    task: str
    fill: Fill
    seed: int

    @property
    def label(self) -> str:
        """The run in words, such as `micro_object, zero, seed 0`."""
        return f"{self.task}, {self.fill}, seed {self.seed}"


@dataclass(frozen=True)
class FinishedRun:
    """A run that reached its last epoch; `module` is None once it has been exported."""

    history: TrainingHistory
    treatment: Treatment
    seconds: float
    spec: InputSpec
    module: nn.Module | None


@dataclass
class Result:
    """Records of the seeds that all runs of a task have finished, and the remaining runs."""

    records: list[Record]
    remaining: list[TrainingRun]
