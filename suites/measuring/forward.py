"""Forward passes over altered inputs: weight set after weight set, batched, memory permitting.

A *member* is one weight set with the images it sees: all of them, or, for a model of several
weight sets, every `members`-th. A *sample* is an image, or then a weight set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor

from ...adapters.errors import InputError, NotApplicableError
from .gradients import require

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from ...adapters.model import Model, Outputs
    from ..base import Array

T = TypeVar("T")


@dataclass
class ForwardPasses:
    """Reads what a model makes of inputs; results do not depend on how they fall into batches.

    F is the target, or the logits of a model without a spatial map; the *answer* is the logits, or
    F of a model without logits. Both are flattened to (units,) an input.
    """

    model: Model
    batch: int
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch {self.batch} was given; expected at least 1")
        self.has_target = self.model.why_not_spatial is None
        self.has_logits = gives_logits(self.model)

    def target(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """F (units,) of each of `inputs` (channels, height, width), in order."""
        return self._each(inputs, logits=not self.has_target)

    def answer(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """The logits (classes,), or F, of each of `inputs` (channels, height, width), in order."""
        return self._each(inputs, logits=self.has_logits)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F and the answer of `x` (batch, channels, height, width), axes as the model has them."""
        out = self.model.run(x, target=self.has_target, logits=self.has_logits)
        f = self._read(out, logits=not self.has_target)
        return f, self._read(out, logits=self.has_logits)

    def in_batches(self, count: int, run: Callable[[slice], Tensor]) -> Tensor:
        """Join `run` of consecutive slices of `count` inputs; they halve when memory runs out."""
        parts: list[Tensor] = []
        done = 0
        while done < count:
            piece = slice(done, min(count, done + self.batch))
            try:
                parts.append(run(piece))
            except torch.OutOfMemoryError:
                if piece.stop - piece.start == 1:
                    raise
                self._halve(piece.stop - piece.start)
                continue
            done = piece.stop
        return torch.cat(parts)

    def _halve(self, size: int) -> None:
        if size == 1:
            raise
        self.batch = size // 2
        self.notes.append(f"out of memory: batch lowered to {self.batch}")
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()

    def _each(self, inputs: Iterable[Tensor], *, logits: bool) -> Iterator[Tensor]:
        waiting = iter(inputs)
        while chunk := list(islice(waiting, self.batch)):
            yield from self._read_chunk(torch.stack(chunk), logits)

    def _read_chunk(self, x: Tensor, logits: bool) -> Tensor:
        return self.in_batches(len(x), lambda piece: self._flat(x[piece], logits))

    def _flat(self, x: Tensor, logits: bool) -> Tensor:
        out = self.model.run(x, target=not logits, logits=logits)
        flat = self._read(out, logits=logits).flatten(1)
        if not bool(flat.isfinite().all()):
            raise NotApplicableError("the model's output is not finite on these images")
        return flat

    def _read(self, out: Outputs, *, logits: bool) -> Tensor:
        return require(out.logits, "logits") if logits else require(out.target, "target")


def gives_logits(model: Model) -> bool:
    """Whether `model` gives (batch, classes) logits, by trying."""
    spec = model.spec
    blank = torch.zeros(1, 3, spec.height, spec.width)
    x = spec.prepare(blank).to(model.device)
    logits = model.run(x, target=False, logits=True).logits
    return logits is not None and logits.ndim == 2


@dataclass(frozen=True)
class MemberImages:
    """One weight set, selected, and the places `indices` in the set of the images it sees.

    `x` (images, channels, height, width) holds all images, prepared.
    """

    passes: ForwardPasses
    x: Tensor
    indices: Sequence[int]

    def first(self, limit: int) -> list[int]:
        """Those of its images that are among the first `limit` of the set."""
        return [i for i in self.indices if i < limit]

    def image(self, index: int) -> Tensor:
        """Image `index` of the set (channels, height, width), on the model's device."""
        return self.x[index].to(self.passes.model.device)


def each_member(
    model: Model, images: Tensor, batch: int, notes: list[str]
) -> Iterator[MemberImages]:
    """Select one weight set after the other; `images` are (n, 3, height, width)."""
    x = model.spec.prepare(images)
    members = min(model.members, len(x))
    passes: ForwardPasses | None = None
    for member in range(members):
        model.select(member, x)
        passes = passes or ForwardPasses(model, batch, notes)
        yield MemberImages(passes, x, range(member, len(x), members))


def by_sample(values: Mapping[int, Array], members: int) -> Array:
    """Stack `values`, by image, to (samples, ...): images, or means over those of a weight set."""
    groups: dict[int, list[Array]] = {}
    for i in sorted(values):
        groups.setdefault(i if members == 1 else i % members, []).append(values[i])
    stacked: Array = np.stack([np.mean(group, axis=0) for group in groups.values()])
    return stacked
