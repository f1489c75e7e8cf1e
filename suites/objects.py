"""`objects`: how the answer to a small object depends on its size and on where the grid lies.

A box is pasted on the images near their centre, at every size of `sizes` and at phases of the
stride cell, and the change of the answer is compared with that to the largest box: the micro-object
test of the suite `training` on whole, trained networks, without training or labels. Forward passes
alone.

Answer
    y: the logits, or else the output of the most units (detectors, segmenters), or else the target;
    all numbers of an image as one vector.
Boxes
    Squares of s pixels; `sizes` are by default powers of 2 from 1 up to the stride P of the target
    (32 where there is no map), at least to 8 and at most to a quarter of the image. The upper left
    pixel is at a + p, a the first multiple of P from the centre on, p = (row, column) the phase, 0
    to P - 1 along each axis: all phases, or a seeded sample of `phases`. In each channel the colour
    is 0 or 1, whichever is farther from the mean of the pixels that any box may cover.
Response
    With d(s, p) the change of y by the box: for logits the projection d . d*, d* being the mean
    over phases of d by the largest box; for maps, where a box at another phase changes other units,
    the product |d| D, D being the mean over phases of |d| by the largest box. Over images,

        r(s, p) = sum of d . d* over the sum of |d*|^2, or sum of |d| D over the sum of D^2,

    the part of the largest box's effect that the small one has: 1 on average at the largest size,
    about s^2 over its square for a linear network, 0 where the box is not seen.
Metrics
    `half_size`: the size in pixels at which the mean of r over phases reaches 1/2 for good,
    interpolated in logarithms; at least the smallest of `sizes`. `smallest_size`: the smallest size
    from which on the least r of all phases is at least `answered`; the ends of its interval are
    those of the least r's interval. `phase_weakest` and `phase_spread`: least r over the mean, and
    standard deviation over the mean, at the largest size up to a quarter of the stride (or the
    smallest size); missing where the mean's interval contains 0. Phases are chosen on one half of
    the samples and read on the other, and sampling noise is removed from the spread (see
    `measuring.unbiased`). The table `response` has the curve, with the worst phase of each size,
    the map `response` is r, (sizes, phases).

Samples are images, at most `images` of them; for several weight sets, weight sets, each scaled to a
mean of |d*|^2 of 1.

Cost: phases x sizes + 1 forward passes an image.

Source: ours; the question of Kim et al. 2023 (small objects at dead pixels), asked of one network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..adapters.errors import InputError, NotApplicableError
from .base import (
    Context,
    Estimate,
    Measurement,
    Metric,
    Suite,
    described,
    missing,
    require_at_least,
)
from .measuring.batching import Batching
from .measuring.bootstrap import Bootstrap, bootstrap
from .measuring.forward import by_sample, gives_logits
from .measuring.gradients import require
from .measuring.output_view import at_output, named_units, why_no_map_nor_logits
from .measuring.unbiased import extreme_mean, root_mean_square

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ..adapters.model import Model
    from .base import Array

STREAM = 43

DEFAULT_STRIDE = 32
"""Pixels of a cell where there is no map whose stride could be taken."""

LEAST_LARGEST = 8

UNSEEN = "the largest box does not change the answer, so smaller ones cannot be compared with it"

_METRICS = described(
    (
        Metric("half_size", "size of half the largest response", "pixels", "lower"),
        Metric("smallest_size", "smallest size answered at all phases", "pixels", "lower"),
        Metric("phase_weakest", "least over mean response", "ratio", "higher", low=None, even=1.0),
        Metric("phase_spread", "deviation over phases over the mean", "ratio", "lower", even=0.0),
    ),
    {
        "half_size": "size of half the response",
        "smallest_size": "smallest size seen at every phase",
        "phase_weakest": "response at the worst phase",
        "phase_spread": "variation over phases",
    },
    caveats={
        "half_size": "It is relative to the largest box: compare at equal sizes only.",
        "smallest_size": "It holds for boxes of strong contrast near the centre.",
        "phase_weakest": "Of a sample of phases: the worst of all may be worse.",
    },
    main=("half_size", "smallest_size", "phase_weakest"),
)


@dataclass(frozen=True)
class Objects(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    sizes: tuple[int, ...] | None = None
    phases: int = 16
    images: int = 8
    answered: float = 0.1
    name: ClassVar[str] = "objects"
    protocols: ClassVar[Mapping[str, str]] = {"boxes": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "half_size"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how small an object may be, and where it is missed"
    captions: ClassVar[Mapping[str, str]] = {"response": "Response to a box by its size in pixels"}
    setting_help: ClassVar[Mapping[str, str]] = {
        "sizes": "sides of the boxes in pixels; None for powers of 2 up to the stride",
        "phases": "most phases of the stride cell; a seeded sample of them if there are more",
        "images": "most images that boxes are pasted on",
        "answered": "response from which on a box counts as seen, of the largest box's",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "phases", "images")
        if not (0 < self.answered < 1):
            raise InputError(f"objects.answered = {self.answered}; expected between 0 and 1")
        if self.sizes is not None and (len(set(self.sizes)) < 2 or min(self.sizes) < 1):
            raise InputError(f"objects.sizes = {self.sizes}; expected two sizes or more, from 1 on")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A map or logits are needed."""
        del protocol
        return why_no_map_nor_logits(model)

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Paste the boxes and compare the answers. Raises `InputError` if they do not fit."""
        del protocol, maps
        found = Measurement({})
        boxes = _boxes(self, model, context.seed, found)
        try:
            sums = _responses(model, boxes, context.images[: self.images], context, found)
        except NotApplicableError as error:
            found.metrics = {metric.name: missing(str(error)) for metric in self.metrics}
            return found
        resamples = bootstrap(len(sums), context.draws, context.seed)
        _report(self, boxes, sums, resamples, found)
        return found


@dataclass(frozen=True)
class Boxes:
    """Sides, smallest first, and upper left pixels of the boxes; `start` is that of phase 0.

    `stride` is the side of the cell in pixels, the longer one if they differ.
    """

    sizes: tuple[int, ...]
    places: tuple[tuple[int, int], ...]
    start: tuple[int, int]
    stride: int

    def pasted(self, image: Tensor) -> list[Tensor]:
        """`image` (3, height, width) as it is, then with each box, size by size."""
        reach = max(max(p) for p in self.offsets()) + self.sizes[-1]
        rows, columns = (slice(s, s + reach) for s in self.start)
        colour = (image[:, rows, columns].mean((1, 2)) < 0.5).to(image.dtype)[:, None, None]
        found = [image]
        for size in self.sizes:
            for row, column in self.places:
                one = image.clone()
                one[:, row : row + size, column : column + size] = colour
                found.append(one)
        return found

    def offsets(self) -> list[tuple[int, int]]:
        """The phases (row, column)."""
        return [(row - self.start[0], column - self.start[1]) for row, column in self.places]


def _boxes(chosen: Objects, model: Model, seed: int, found: Measurement) -> Boxes:
    """The boxes for `model`. Raises `InputError` if they do not fit into the image."""
    spec = model.spec
    if model.why_not_spatial is None:
        from .architecture.receptive_field import target_stride

        stride = target_stride(model)
    else:
        stride = (DEFAULT_STRIDE, DEFAULT_STRIDE)
        found.notes.append(f"no map has a stride: phases within {DEFAULT_STRIDE} pixels")
    quarter = max(2, min(spec.height, spec.width) // 4)
    largest = min(max(LEAST_LARGEST, *stride), quarter)
    powers = tuple(2**k for k in range(largest.bit_length()))
    sizes = tuple(sorted(set(powers if chosen.sizes is None else chosen.sizes)))
    pixels = (spec.height, spec.width)
    start = tuple(-(-(n // 2) // s) * s for n, s in zip(pixels, stride, strict=True))
    room = tuple(n - a - sizes[-1] for n, a in zip(pixels, start, strict=True))
    if min(room) < 0:
        raise InputError(
            f"objects.sizes = {sizes}: a box of {sizes[-1]} pixels at {start} does not fit into an "
            f"image of {pixels[0]} x {pixels[1]}; expected at most {min(room) + sizes[-1]} pixels"
        )
    rows, columns = (range(min(s, r + 1)) for s, r in zip(stride, room, strict=True))
    every = [(start[0] + a, start[1] + b) for a in rows for b in columns]
    if len(every) > chosen.phases:
        rng = np.random.default_rng([seed, STREAM, len(every)])
        picked = sorted(rng.choice(len(every), chosen.phases, replace=False))
        every = [every[k] for k in picked]
    return Boxes(sizes, tuple(every), (start[0], start[1]), max(stride))


def _responses(
    model: Model, boxes: Boxes, images: Tensor, context: Context, found: Measurement
) -> Array:
    """Numerators of r by size and phase, then its denominator: (samples, sizes x phases + 1)."""
    logits = gives_logits(model)
    batching = Batching(context.batch, model.device, found.notes)
    members = min(model.members, len(images))
    prepared = model.spec.prepare(context.images)
    products: dict[int, Array] = {}
    for member in range(members):
        model.select(member, prepared)
        view = model if logits else at_output(model)
        for index in range(member, len(images), members):
            products[index] = _products(view, boxes, images[index], batching, logits=logits)
        own = [products[i] for i in range(member, len(images), members)]
        level = float(np.mean([p[-1] for p in own]))
        if members > 1 and level > 0:
            for i in range(member, len(images), members):
                products[i] = products[i] / level
    if not logits:
        found.notes.append(f"the answer is {named_units(view)}")
    samples = by_sample(products, members)
    if not samples[:, -1].any():
        raise NotApplicableError(UNSEEN)
    return samples


def _products(
    model: Model, boxes: Boxes, image: Tensor, batching: Batching, *, logits: bool
) -> Array:
    """Numerators of r of one image by size and phase, then its denominator."""
    import torch

    x = model.spec.prepare(torch.stack(boxes.pasted(image)))

    def one(chunk: slice) -> Tensor:
        with torch.no_grad():
            out = model.run(x[chunk].to(model.device), target=not logits, logits=logits)
        answer = require(out.logits, "logits") if logits else require(out.target, "target")
        return answer.double().flatten(1)

    answers = torch.cat(batching.run(len(x), one))
    if not bool(answers.isfinite().all()):
        raise NotApplicableError("the answer is not finite (NaN or infinite) on these images")
    change = answers[1:] - answers[:1]
    change = change if logits else change.norm(dim=1, keepdim=True)
    whole = change[-len(boxes.places) :].mean(0)
    products: Array = torch.cat([change @ whole, (whole @ whole)[None]]).cpu().numpy()
    return products


def _report(
    chosen: Objects, boxes: Boxes, sums: Array, resamples: Bootstrap, found: Measurement
) -> None:
    """Fill in metrics, table and map; `sums` are those of `_responses`."""
    sizes, level = np.array(boxes.sizes), sums[:, -1].mean()
    shape = (len(sums), len(boxes.sizes), len(boxes.places))
    relative = (sums[:, :-1] / level).reshape(shape)
    totals = np.tensordot(resamples.weights, sums, 1)
    curves = (totals[:, :-1] / totals[:, -1:]).reshape(-1, *shape[1:]).mean(2)
    metrics = found.metrics
    half = np.array([half_size(sizes, curve) for curve in curves])
    metrics["half_size"] = resamples.estimate(half, low=float(sizes[0]), positive=True)
    least = [
        resamples.estimate(extreme_mean(relative[:, k], np.argmin, resamples))
        for k in range(len(sizes))
    ]
    metrics["smallest_size"] = _smallest(boxes.sizes, least, chosen.answered)
    quarter = max((k for k, size in enumerate(sizes) if 4 * size <= boxes.stride), default=0)
    found.notes.append(f"phases are compared by boxes of {sizes[quarter]} pixels")
    _read_phases(relative[:, quarter], resamples, metrics)
    response = relative.mean(0)
    found.maps["response"] = response
    rows: list[dict[str, Any]] = []
    for size, one in zip(boxes.sizes, response, strict=True):
        row, column = boxes.offsets()[int(one.argmin())]
        rows.append(
            {"size": size, "mean": float(one.mean()), "least": float(one.min())}
            | {"most": float(one.max()), "worst_row": row, "worst_column": column}
        )
    found.tables["response"] = rows


def _read_phases(small: Array, resamples: Bootstrap, metrics: dict[str, Estimate]) -> None:
    """Fill in least and spread of the responses `small` (samples, phases) of one size."""
    names = ("phase_weakest", "phase_spread")
    mean = resamples.weights @ small.mean(1)
    if small.shape[1] < 2:
        metrics |= dict.fromkeys(names, missing("a stride of 1 has no phases"))
        return
    level = resamples.estimate(mean)
    if level.value is None or (level.value if level.low is None else level.low) <= 0:
        reason = missing("no response to boxes of this size is shown: choose larger sizes")
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
        return missing(f"a box of {sizes[-1]} pixels is not seen at every phase")
    if all(one.low is None for one in least):
        return Estimate(value)
    low, high = first("high"), first("low")
    return Estimate(value, value if low is None else low, high)


OBJECTS = Objects()
