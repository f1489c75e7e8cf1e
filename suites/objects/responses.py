"""Passes over images with pasted objects: products by size and phase, for every sample."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError
from ..base import ANSWER_IS
from ..measuring.batching import Batching, weight_sets
from ..measuring.forward import by_sample, gives_logits
from ..measuring.gradients import require
from ..measuring.output_view import at_output, named_units

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array, Context
    from .layout import Layout

UNSEEN = "the largest box does not change the answer, so smaller ones cannot be compared with it"

UNKNOWN = (
    "the largest cut-outs do not raise the score of their classes, so smaller ones cannot be "
    "compared with them"
)


@dataclass(frozen=True)
class Scenes:
    """`count` images, each with all objects: `make(i)` is the plain one, then size by size.

    `classes` are the classes that the objects show, for cut-outs.
    """

    count: int
    make: Callable[[int], list[Tensor]]
    classes: tuple[int, ...] | None = None


@dataclass
class Responses:
    """`sums` are the numerators of r by size and phase, then its denominator, for each sample.

    They are (samples, sizes x phases + 1); `right` (samples, sizes x phases) is the share of
    cut-outs whose class is the top one. `raised` says whether the largest cut-outs raise the score
    of their classes in every weight set, so that smaller ones can be compared with them.
    """

    sums: Array
    right: Array | None
    raised: bool = True


@dataclass
class Passes:
    """The passes of one measurement."""

    model: Model
    layout: Layout
    scenes: Scenes
    context: Context
    notes: list[str]
    products: dict[int, Array] = field(default_factory=dict)
    right: dict[int, Array] = field(default_factory=dict)
    raised: bool = True

    def run(self) -> Responses:
        """Pass every scene. Raises `NotApplicableError` where no object changes the answer."""
        model, count = self.model, self.scenes.count
        self.logits = gives_logits(model)
        self.batching = Batching(self.context.batch, model.device, self.notes)
        members = min(model.members, count)
        prepared = model.spec.prepare(self.context.images)
        for own in weight_sets(model, prepared, count):
            view = model if self.logits else at_output(model)
            for index in own:
                self._pass(view, index)
            if members > 1:
                self._scale(own)
        if not self.logits:
            self.notes.append(f"{ANSWER_IS}{named_units(view)}")
        sums = by_sample(self.products, members)
        if self.scenes.classes is not None:
            return Responses(sums, by_sample(self.right, members), self.raised)
        if not sums[:, -1].any():
            raise NotApplicableError(UNSEEN)
        return Responses(sums, None)

    def _scale(self, own: range) -> None:
        """Give one weight set, with its scenes `own`, a mean denominator of 1."""
        level = float(np.mean([self.products[i][-1] for i in own]))
        if level <= 0 and self.scenes.classes is not None:
            self.raised = False
            return
        for i in own:
            self.products[i] = self.products[i] / (level or 1.0)

    def _pass(self, view: Model, index: int) -> None:
        answers = self._answers(view, self.scenes.make(index))
        if self.scenes.classes is None:
            self.products[index] = self._projected(answers)
            return
        label = self.scenes.classes[index]
        score = answers[:, label] - answers.mean(1)
        change = score[1:] - score[0]
        whole = change[-len(self.layout.phases) :].mean()
        self.products[index] = np.append(change.cpu().numpy(), float(whole))
        self.right[index] = (answers[1:].argmax(1) == label).double().cpu().numpy()

    def _projected(self, answers: Tensor) -> Array:
        """Numerators and denominator of one image with boxes."""
        import torch

        change = answers[1:] - answers[:1]
        change = change if self.logits else change.norm(dim=1, keepdim=True)
        whole = change[-len(self.layout.phases) :].mean(0)
        found: Array = torch.cat([change @ whole, (whole @ whole)[None]]).cpu().numpy()
        return found

    def _answers(self, view: Model, images: list[Tensor]) -> Tensor:
        """The answers (images, units) to one scene."""
        import torch

        x = view.spec.prepare(torch.stack(images))

        def one(chunk: slice) -> Tensor:
            with torch.no_grad():
                out = view.run(x[chunk].to(view.device), target=not self.logits, logits=self.logits)
            answer = require(out.logits, "logits") if self.logits else require(out.target, "target")
            return answer.double().flatten(1)

        answers = torch.cat(self.batching.run(len(x), one))
        if not bool(answers.isfinite().all()):
            raise NotApplicableError("the answer is not finite (NaN or infinite) on these images")
        return answers
