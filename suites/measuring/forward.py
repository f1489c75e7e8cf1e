"""Forward passes over altered inputs, one weight set after the other, in batches.

A *member* is one weight set with its images: all images, or, for a model of several weight sets,
every `members`-th. A *sample* is one image, or, for several weight sets, one weight set.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...adapters.errors import NotApplicableError
from .batching import Batching, weight_sets
from .gradients import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from ...adapters.model import Model, Outputs
    from ..base import Array


@dataclass
class ForwardPasses:
    """Computes a model's outputs for a stream of inputs; batching does not affect the results.

    F is the target, or the logits of a model without a spatial map; the *answer* is the logits, or
    F for a model without logits. Both are flattened to (units,) per input.
    """

    model: Model
    batch: int
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.batching = Batching(self.batch, self.model.device, self.notes)
        self.has_target = self.model.why_not_spatial is None
        self.has_logits = gives_logits(self.model)

    def target(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """F (units,) of each of `inputs` (channels, height, width), in order."""
        return self._each(inputs, logits=not self.has_target)

    def answer(self, inputs: Iterable[Tensor]) -> Iterator[Tensor]:
        """The answer (units,) to each of `inputs` (channels, height, width), in order."""
        return self._each(inputs, logits=self.has_logits)

    def outputs(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """F and the answer to `x` (batch, channels, height, width), with the model's own axes."""
        out = self.model.run(x, target=self.has_target, logits=self.has_logits)
        f = self._read(out, logits=not self.has_target)
        return f, self._read(out, logits=self.has_logits)

    def _each(self, inputs: Iterable[Tensor], *, logits: bool) -> Iterator[Tensor]:
        waiting = iter(inputs)
        while chunk := list(islice(waiting, self.batching.size)):
            run = partial(self._flat, torch.stack(chunk), logits)
            yield from torch.cat(self.batching.run(len(chunk), run))

    def _flat(self, x: Tensor, logits: bool, piece: slice) -> Tensor:
        out = self.model.run(x[piece], target=not logits, logits=logits)
        flat = self._read(out, logits=logits).flatten(1)
        if not bool(flat.isfinite().all()):
            raise NotApplicableError("the model's output is not finite on these images")
        return flat

    def _read(self, out: Outputs, *, logits: bool) -> Tensor:
        return require(out.logits, "logits") if logits else require(out.target, "target")


def gives_logits(model: Model) -> bool:
    """Whether `model` outputs logits (batch, classes), found by running it on a black image."""
    spec = model.spec
    blank = torch.zeros(1, 3, spec.height, spec.width)
    x = spec.prepare(blank).to(model.device)
    logits = model.run(x, target=False, logits=True).logits
    return logits is not None and logits.ndim == 2


@dataclass(frozen=True)
class MemberImages:
    """One weight set, already selected, and the `indices` of its images in the set.

    `x` (images, channels, height, width) holds all prepared images.
    """

    passes: ForwardPasses
    x: Tensor
    indices: Sequence[int]

    def first(self, limit: int) -> list[int]:
        """The indices of its images that are among the first `limit` of the set."""
        return [i for i in self.indices if i < limit]

    def image(self, index: int) -> Tensor:
        """Image `index` of the set (channels, height, width), on the model's device."""
        return self.x[index].to(self.passes.model.device)


def each_member(
    model: Model, images: Tensor, batch: int, notes: list[str]
) -> Iterator[MemberImages]:
    """Select one weight set after the other. `images` are (n, 3, height, width)."""
    x = model.spec.prepare(images)
    passes: ForwardPasses | None = None
    for own in weight_sets(model, x):
        passes = passes or ForwardPasses(model, batch, notes)
        yield MemberImages(passes, x, own)


def by_sample(values: Mapping[int, Array], members: int) -> Array:
    """Stack `values` by image to (samples, ...): images, or means over those of a weight set."""
    groups: dict[int, list[Array]] = {}
    for i in sorted(values):
        groups.setdefault(i if members == 1 else i % members, []).append(values[i])
    stacked: Array = np.stack([np.mean(group, axis=0) for group in groups.values()])
    return stacked


def why_no_class(logits: Tensor) -> str | None:
    """Why the largest of `logits` (images, classes) means nothing, or None where it does.

    The arg-max of NaN, of equal numbers, and of one number is a class all the same: agreement with
    itself.
    """
    if logits.shape[1] < 2:
        return "the output is one number for an image, so that its largest names no class"
    if not bool(logits.isfinite().all()):
        return "the logits are not finite (NaN or infinite), so they name no class"
    if bool((logits == logits[:, :1]).all()):
        return "the logits are the same for all classes, so they name no class"
    if len(logits) > 1 and bool((logits == logits[:1]).all()):
        return "the logits are the same for all images, so they say nothing of them"
    return None
