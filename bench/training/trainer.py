"""Training of one network: from its initial weights, or from its checkpoint, to its last epoch.

Stochastic gradient descent with Nesterov momentum; the rate rises linearly over the first tenth of
all steps, then falls to 0 along a cosine. Batches, boxes and order come from the task, by seed and
epoch; the random numbers of the network itself (dropout) come from torch's generators, whose
states are part of the checkpoint, as are weights, momenta and history. So a run that was
interrupted, even within an epoch, gives the same result as one that was not: bit for bit on a CPU
with the same number of threads.

A checkpoint is one safetensors file, tensors and facts, written atomically. Facts are JSON in the
file's own metadata. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import math
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adapters.errors import ModelFileError, NotApplicableError
from ...suites.training.summary import TrainingHistory
from ..output.files import FULL, StoreError, explain, write_atomically
from .probe import probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from ...adapters.trainable import Trainable
    from ...suites.training.tasks import Task
    from .experiment import Recipe


SAVE_EVERY_S = 60.0

TEST_BATCH = 256

PROBE_IMAGES = 32


def probed_epochs(epochs: int) -> set[int]:
    """Epochs after which dead pixels and ERF are measured: 0, 1, 2, 4, 8, ... and the last.

    >>> sorted(probed_epochs(12))
    [0, 1, 2, 4, 8, 12]
    """
    return {0, epochs, *(2**i for i in range(epochs.bit_length()) if 2**i <= epochs)}


@dataclass
class Clock:
    """A time limit in seconds, None for no limit; tests replace `now`."""

    budget_s: float | None = None
    now: Callable[[], float] = time.monotonic
    begun: float = field(init=False)

    def __post_init__(self) -> None:
        self.begun = self.now()

    def spent(self) -> bool:
        """Whether the time limit has been reached."""
        return self.budget_s is not None and self.now() - self.begun >= self.budget_s


@dataclass
class _Progress:
    """How far a run is: whole epochs, batches of the next one, and the sum of their losses."""

    epoch: int = 0
    step: int = 0
    loss: float = 0.0


class Trainer:
    """One network of one seed on one task; `path` is its checkpoint.

    `report` gets the share of finished steps after each step; `seconds` is the time they took.
    """

    def __init__(
        self,
        network: Trainable,
        task: Task,
        recipe: Recipe,
        *,
        seed: int,
        path: Path,
        images: int,
        device: torch.device,
        report: Callable[[float], None] = lambda _share: None,
    ) -> None:
        self.network, self.task, self.recipe = network, task, recipe
        self.seed, self.path, self.device = seed, path, device
        self.steps = images // recipe.batch
        self.history = TrainingHistory(seed, [], [])
        self.seconds = 0.0
        self._since = time.monotonic()
        self._report = report
        self._at = _Progress()
        self.module = network.module.to(device).to(memory_format=torch.channels_last)
        self._optimiser = torch.optim.SGD(
            self.module.parameters(),
            lr=recipe.rate,
            momentum=recipe.momentum,
            weight_decay=recipe.decay,
            nesterov=recipe.momentum > 0,
        )

    def run(self, clock: Clock) -> TrainingHistory | None:
        """Train to the last epoch; None if the time limit is reached first, with a checkpoint.

        Raises `StoreError` when a checkpoint cannot be written, `ModelFileError` when one cannot
        be read, `NotApplicableError` when the loss is not finite.
        """
        with self._settled():
            self._since = time.monotonic()
            torch.manual_seed(self.seed)
            if not self._restore():
                self._probe()
            while self._at.epoch < self.recipe.epochs:
                if not self._train(clock):
                    self._save()
                    return None
                self._finish_epoch()
                self._save()
        return self.history

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Use separate random generators, and deterministic kernels where there is a choice."""
        cuda = self.device.type == "cuda"
        cudnn = torch.backends.cudnn
        before = cudnn.deterministic, cudnn.benchmark
        with torch.random.fork_rng(devices=[self.device] if cuda else []):
            cudnn.deterministic, cudnn.benchmark = True, False
            try:
                yield
            finally:
                cudnn.deterministic, cudnn.benchmark = before

    def _train(self, clock: Clock) -> bool:
        """Train the rest of one epoch; whether it finished within the time limit."""
        saved = time.monotonic()
        self.module.train()
        batches = self.task.epoch(self._at.epoch, self.seed, self.recipe.batch, self._at.step)
        for images, labels in batches:
            if clock.spent():
                return False
            self._at.loss += self._step(images, labels)
            self._at.step += 1
            done = self._at.epoch * self.steps + self._at.step
            self._report(done / (self.steps * self.recipe.epochs))
            if time.monotonic() - saved > SAVE_EVERY_S:
                self._save()
                saved = time.monotonic()
        return True

    def _step(self, images: Tensor, labels: Tensor) -> float:
        """Take one step of gradient descent; the loss before it."""
        done = self._at.epoch * self.steps + self._at.step
        for group in self._optimiser.param_groups:
            group["lr"] = self.recipe.rate_at(done, self.steps * self.recipe.epochs)
        loss = F.cross_entropy(self._logits(images), labels.to(self.device))
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()
        value = loss.item()
        if not math.isfinite(value):
            raise NotApplicableError(
                f"the loss is {value} at step {done}; expected a finite one: lower the rate "
                f"({self.recipe.rate})"
            )
        return value

    def _logits(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) in float32 of images (batch, 3, height, width) in [0, 1]."""
        x = self.network.spec.prepare(images.to(self.device))
        x = x.contiguous(memory_format=torch.channels_last)
        mixed = self.recipe.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=mixed):
            logits: Tensor = self.module(x)
        return logits.float()

    def predict(self, images: Tensor) -> Tensor:
        """Logits (n, classes) on the CPU, in evaluation mode."""
        self.module.eval()
        with torch.no_grad():
            return torch.cat([self._logits(part).cpu() for part in images.split(TEST_BATCH)])

    def _finish_epoch(self) -> None:
        """Test the network, and probe it if this epoch is one of `probed_epochs`."""
        loss = self._at.loss / self.steps
        self._at = _Progress(self._at.epoch + 1)
        row = {"epoch": self._at.epoch, "loss": loss, **self.task.evaluate(self.predict)}
        self.history.epochs.append(row)
        self._probe()

    def _probe(self) -> None:
        if self._at.epoch in probed_epochs(self.recipe.epochs):
            self.module.eval()
            images = self.task.test_images(PROBE_IMAGES)
            found = probe(self.module, self.network.spec, images, self.device)
            self.history.probes.append({"epoch": self._at.epoch, **found})

    def _save(self) -> None:
        """Write everything the rest of the training depends on."""
        now = time.monotonic()
        self.seconds += now - self._since
        self._since = now
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        for place, parameter in enumerate(self.module.parameters()):
            state = self._optimiser.state.get(parameter, {})
            tensors |= {
                f"optimiser.{place}.{k}": v for k, v in state.items() if isinstance(v, Tensor)
            }
        tensors["generator.cpu"] = torch.get_rng_state()
        if self.device.type == "cuda":
            tensors["generator.cuda"] = torch.cuda.get_rng_state(self.device)
        facts = {
            "at": vars(self._at),
            "seed": self.seed,
            "seconds": self.seconds,
            "epochs": self.history.epochs,
            "probes": self.history.probes,
        }
        save_checkpoint(self.path, tensors, facts)

    def _restore(self) -> bool:
        """Restore the state of the checkpoint; False if there is none."""
        if not self.path.exists():
            return False
        tensors, facts = load_checkpoint(self.path)
        try:
            self.module.load_state_dict(_part(tensors, "model."))
            for place, parameter in enumerate(self.module.parameters()):
                state = _part(tensors, f"optimiser.{place}.")
                self._optimiser.state[parameter] = {
                    name: torch.empty_like(parameter).copy_(value) for name, value in state.items()
                }
            torch.set_rng_state(tensors["generator.cpu"])
            if self.device.type == "cuda":
                torch.cuda.set_rng_state(tensors["generator.cuda"], self.device)
            self._at = _Progress(**facts["at"])
            self.seconds = facts["seconds"]
            self.history = TrainingHistory(facts["seed"], facts["epochs"], facts["probes"])
        except (RuntimeError, KeyError, TypeError) as error:
            raise ModelFileError(
                f"{self.path} is not a checkpoint of this network ({error}); remove it to train "
                "from the beginning"
            ) from error
        return True


def _part(tensors: dict[str, Any], prefix: str) -> dict[str, Tensor]:
    """Those whose names begin with `prefix`, without it."""
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


FACTS = "perimetry"


def save_checkpoint(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write `path` atomically: the previous checkpoint stays until then. Raises `StoreError`."""
    from safetensors.torch import save

    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    data = save(plain, {FACTS: json.dumps(facts, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda stream: stream.write(data))
    except OSError as error:
        if error.errno in FULL:
            raise StoreError(
                f"no space left for the checkpoint {path}; expected some free space: free some and "
                "run the same command again, which resumes from the previous checkpoint"
            ) from error
        raise explain(error, path) from error


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read tensors by name, and facts. Raises `ModelFileError` if it is not a checkpoint."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})[FACTS])
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a checkpoint ({type(error).__name__}: {error}); remove it "
            "to train this network from the beginning"
        ) from error
