"""Passes over images with pasted objects, and metrics, table and map from their products."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import NotApplicableError
from ..base import ANSWER_IS, Estimate, missing
from ..measuring.batching import Batching, weight_sets
from ..measuring.forward import by_sample, gives_logits
from ..measuring.gradients import require
from ..measuring.output_view import at_output, named_units
from ..measuring.unbiased import extreme_mean, root_mean_square

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array, Context, Measurement
    from ..measuring.bootstrap import Bootstrap
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
class ObjectResponses:
    """`sums` are the numerators of r by size and phase, then its denominator, for each sample.

    They are (samples, sizes x phases + 1); `right` (samples, sizes x phases) is the share of
    cut-outs whose class is the top one. `raised` says whether the largest cut-outs raise the score
    of their classes in every weight set, so that smaller ones can be compared with them.
    """

    sums: Array
    right: Array | None
    raised: bool = True


@dataclass
class ObjectPasses:
    """The passes of one measurement."""

    model: Model
    layout: Layout
    scenes: Scenes
    context: Context
    notes: list[str]
    products: dict[int, Array] = field(default_factory=dict)
    right: dict[int, Array] = field(default_factory=dict)
    raised: bool = True

    def run(self) -> ObjectResponses:
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
            return ObjectResponses(sums, by_sample(self.right, members), self.raised)
        if not sums[:, -1].any():
            raise NotApplicableError(UNSEEN)
        return ObjectResponses(sums, None)

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


RELATIVE = ("half_size", "smallest_size", "phase_weakest", "phase_spread")
"""The metrics that are relative to the mean response."""


def report_responses(
    answered: float, layout: Layout, seen: ObjectResponses, resamples: Bootstrap, found: Measurement
) -> None:
    """Fill in metrics, table and map.

    Where cut-outs are not shown to raise the scores of their classes, there is no response to
    divide by, and only the share that is classified correctly is given.
    """
    sums, sizes = seen.sums, np.array(layout.sizes)
    shape = (len(sums), len(layout.sizes), len(layout.phases))
    totals = np.tensordot(resamples.weights, sums, 1)
    metrics = found.metrics
    right = None if seen.right is None else seen.right.reshape(shape).mean(2)
    metrics["named_right"] = (
        missing("boxes have no class: protocol cutouts has labelled objects")
        if right is None
        else resamples.share(right[:, -1])
    )
    shown = seen.raised and _above_zero(resamples.estimate(totals[:, -1]))
    if right is not None and not shown:
        metrics.update(dict.fromkeys(RELATIVE, missing(UNKNOWN)))
        return
    relative = (sums[:, :-1] / sums[:, -1].mean()).reshape(shape)
    curves = (totals[:, :-1] / totals[:, -1:]).reshape(-1, *shape[1:]).mean(2)
    half = np.array([half_size(sizes, curve) for curve in curves])
    metrics["half_size"] = resamples.estimate(half, low=float(sizes[0]), positive=True)
    least = [
        resamples.estimate(extreme_mean(relative[:, k], np.argmin, resamples))
        for k in range(len(sizes))
    ]
    metrics["smallest_size"] = _smallest(layout.sizes, least, answered)
    found.notes.append(f"phases are compared by objects of {sizes[layout.compared]} pixels")
    _read_phases(relative[:, layout.compared], resamples, metrics)
    found.maps["response"] = relative.mean(0)
    found.tables["response"] = _rows(layout, relative.mean(0), right)


def _rows(layout: Layout, response: Array, right: Array | None) -> list[dict[str, Any]]:
    """A row for each size; `right` are shares (samples, sizes)."""
    rows: list[dict[str, Any]] = []
    for k, (size, one) in enumerate(zip(layout.sizes, response, strict=True)):
        row, column = layout.phases[int(one.argmin())]
        rows.append(
            {"size": size, "mean": float(one.mean()), "least": float(one.min())}
            | {"most": float(one.max()), "worst_row": row, "worst_column": column}
            | ({} if right is None else {"named_right": float(right[:, k].mean())})
        )
    return rows


def _above_zero(one: Estimate) -> bool:
    end = one.value if one.low is None else one.low
    return end is not None and end > 0


def _read_phases(small: Array, resamples: Bootstrap, metrics: dict[str, Estimate]) -> None:
    """Fill in least and spread of the responses `small` (samples, phases) of one size."""
    names = ("phase_weakest", "phase_spread")
    mean = resamples.weights @ small.mean(1)
    if small.shape[1] < 2:
        metrics |= dict.fromkeys(names, missing("a stride of 1 has no phases"))
        return
    if not _above_zero(resamples.estimate(mean)):
        reason = missing("no response to objects of this size is shown: choose larger sizes")
        metrics |= dict.fromkeys(names, reason)
        return
    least = extreme_mean(small, np.argmin, resamples)
    spread = root_mean_square(small - small.mean(1, keepdims=True), resamples)
    metrics[names[0]] = resamples.estimate(least / mean)
    metrics[names[1]] = resamples.estimate(spread / mean, low=0.0)


def half_size(sizes: Array, curve: Array) -> float:
    """The size at which `curve` reaches 1/2 for good, interpolated in logarithms of the size."""
    below = np.flatnonzero(curve < 0.5)
    if len(below) == 0:
        return float(sizes[0])
    k = int(below[-1])
    if k + 1 == len(sizes):
        return float(sizes[-1])
    share = (0.5 - curve[k]) / (curve[k + 1] - curve[k])
    low, high = math.log(sizes[k]), math.log(sizes[k + 1])
    return math.exp(low + share * (high - low))


def _smallest(sizes: Sequence[int], least: Sequence[Estimate], answered: float) -> Estimate:
    """The smallest size from which on the least response is `answered`, with its interval."""

    def first(end: str) -> float | None:
        found = None
        for size, one in zip(reversed(sizes), reversed(least), strict=True):
            value = getattr(one, end)
            value = one.value if value is None else value
            if value is None or value < answered:
                return found
            found = float(size)
        return found

    value = first("value")
    if value is None:
        return missing(f"an object of {sizes[-1]} pixels is not seen at every phase")
    if all(one.low is None for one in least):
        return Estimate(value)
    low, high = first("high"), first("low")
    return Estimate(value, value if low is None else low, high)
