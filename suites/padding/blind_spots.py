"""Blind-spot map: the response of the model to a small stimulus at each of many places.

A square stimulus is moved over a grid of places on a plain background, from border to border. The
*response* at a place is the Euclidean norm of the change in F, over all channels and units; that of
the top logit is the magnitude of its change, the class being the one predicted for the plain
background. Forward passes only. Each batch contains the plain background too: both sides of a
difference are then rounded in the same way, and a stimulus without effect has a response of 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from ...adapters.errors import InputError, NotApplicableError
from ..base import missing
from ..measuring.batching import Batching
from ..measuring.gradients import require
from ..measuring.unbiased import extreme_mean, root_mean_square
from .spatial_bias import MIN_UNITS, asymmetries, border_ratio, why_no_centre

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ...adapters.input_spec import InputSpec
    from ...adapters.model import Model
    from ..base import Array, Estimate
    from ..measuring.bootstrap import Bootstrap

PER_SIDE = 28
"""Default ratio of the image's shorter side to the stimulus: 8 pixels of 224."""

Place = tuple[int, int]


@dataclass(frozen=True)
class Stimulus:
    """A square of `side` pixels and `colour` (red, green, blue) on a `background` of grey."""

    side: int
    colour: tuple[float, float, float]
    background: float

    def images(self, places: Sequence[Place], spec: InputSpec) -> Tensor:
        """The plain background and the stimulus at each of `places`: (1 + places, 3, h, w)."""
        images = torch.full((1 + len(places), 3, spec.height, spec.width), self.background)
        paint = torch.tensor(self.colour)[:, None, None]
        for image, (row, column) in zip(images[1:], places, strict=True):
            image[:, row : row + self.side, column : column + self.side] = paint
        return images


def default_side(spec: InputSpec) -> int:
    """Default side of the stimulus in pixels."""
    return max(1, round(min(spec.height, spec.width) / PER_SIDE))


def grid_places(spec: InputSpec, side: int, grid: int) -> list[Place]:
    """Upper left pixels of `grid` x `grid` stimuli from border to border, row by row.

    They are mirror-symmetric, except that the middle one of an odd number is rounded down. Raises
    `InputError` if they do not fit or would coincide.
    """
    largest = min(spec.height, spec.width) - grid + 1
    if side > largest:
        raise InputError(
            f"a stimulus of {side} pixels does not fit {grid} x {grid} places in an image of "
            f"{spec.height} x {spec.width}; allowed are "
            + (f"1 to {largest} pixels" if largest > 0 else "grids of fewer places")
        )
    rows, columns = (_axis_places(n - side, grid) for n in (spec.height, spec.width))
    return [(row, column) for row in rows for column in columns]


def _axis_places(room: int, grid: int) -> list[int]:
    first = [room * i // (grid - 1) for i in range((grid + 1) // 2)]
    return first + [room - place for place in reversed(first[: grid // 2])]


def unseen(spec: InputSpec, side: int, places: Sequence[Place]) -> tuple[int, int]:
    """The most adjacent rows, and columns, that no stimulus at `places` covers."""
    sizes = (spec.height, spec.width)
    starts = (sorted({place[axis] for place in places}) for axis in (0, 1))
    rows, columns = (
        max(b - a - side for a, b in pairwise([-side, *own, size]))
        for own, size in zip(starts, sizes, strict=True)
    )
    return max(0, rows), max(0, columns)


@dataclass(frozen=True)
class StimulusResponses:
    """Responses of F and of the top logit (None without logits), by place.

    `plain` (height, width) is the channel-mean magnitude of F on the background alone.
    """

    target: dict[Place, float]
    logit: dict[Place, float] | None
    plain: Array

    def grid(self, places: Sequence[Place]) -> Array:
        """Responses of F at the places of a square grid: (grid, grid)."""
        return _square(self.target, places)

    def logit_grid(self, places: Sequence[Place]) -> Array | None:
        """Responses of the top logit at the same places, or None."""
        return None if self.logit is None else _square(self.logit, places)


def _square(values: Mapping[Place, float], places: Sequence[Place]) -> Array:
    side = math.isqrt(len(places))
    return np.array([values[p] for p in places]).reshape(side, side)


def respond(
    model: Model, places: Sequence[Place], stimulus: Stimulus, batching: Batching, *, logits: bool
) -> StimulusResponses:
    """The responses to the stimulus at each of `places`.

    Raises `NotApplicableError` if an output is not finite.
    """
    # The plain background is the first image of every batch.
    batching = Batching(max(1, batching.size - 1), batching.device, batching.notes)
    parts = batching.run(
        len(places), lambda chunk: _respond_once(model, places[chunk], stimulus, logits=logits)
    )
    target = [value for part in parts for value in part.target]
    logit = [value for part in parts for value in part.logit]
    if not np.isfinite([*target, *logit]).all():
        raise NotApplicableError("the model's output is not finite on a plain background")
    found = dict(zip(places, logit, strict=True)) if logit else None
    return StimulusResponses(dict(zip(places, target, strict=True)), found, parts[-1].plain)


class _BatchResponses(NamedTuple):
    """Responses of one batch of places; `logit` is empty for a model without logits."""

    target: list[float]
    logit: list[float]
    plain: Array


def _respond_once(
    model: Model, places: Sequence[Place], stimulus: Stimulus, *, logits: bool
) -> _BatchResponses:
    images = stimulus.images(places, model.spec)
    out = model.run(model.spec.prepare(images).to(model.device), logits=logits)
    f = require(out.target, "target")
    plain = channel_mean(f[:1])[0]
    f = f.double().flatten(1)
    found = _BatchResponses((f[1:] - f[:1]).norm(dim=1).tolist(), [], plain)
    if logits and out.logits is not None:
        scores = out.logits.double()
        top = scores[:, int(scores[0].argmax())]
        found.logit.extend((top[1:] - top[0]).abs().tolist())
    return found


def channel_mean(maps: Tensor) -> Array:
    """Mean magnitude over the channels of `maps` (batch, channels, height, width)."""
    mean: Array = maps.detach().abs().double().mean(1).cpu().numpy()
    return mean


def relative_responses(responses: Array) -> Array:
    """Responses (weight sets, grid, grid), divided by the mean of each weight set.

    Raises `NotApplicableError` if a weight set responds at no place.
    """
    level = responses.mean((-2, -1), keepdims=True)
    if not level.all():
        raise NotApplicableError("the stimulus changes nothing at any place")
    share: Array = responses / level
    return share


def border_drop(maps: Array) -> Array:
    """1 - border / centre of `maps` (..., grid, grid); NaN where the centre is 0."""
    return 1 - border_ratio(maps)


def blind_metrics(shares: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """Metrics of relative responses (weight sets, grid, grid).

    The estimates of minimum, spread and asymmetries are not biased by noise (see `unbiased`).
    """
    flat = shares.reshape(len(shares), -1)
    weakest = extreme_mean(flat, np.argmin, resamples)
    cv = root_mean_square(flat - 1, resamples)
    sides = asymmetries(shares, resamples)
    return {
        "blind_weakest": _at_most_one(resamples.estimate(weakest, low=0.0, high=1.0), flat),
        "blind_cv": resamples.estimate(cv, low=0.0),
        "blind_left_right": sides["left_right"],
        "blind_top_bottom": sides["top_bottom"],
        "border_drop": _drop(shares, resamples),
    }


def _at_most_one(weakest: Estimate, shares: Array) -> Estimate:
    """The smallest share with an interval that is not empty.

    No share is above the mean, but one that is read on the other half of the samples may be. Where
    the whole interval is, it begins at the smallest mean of `shares` (weight sets, places), which
    is chosen and read on the same samples and so too small.
    """
    if weakest.low is None or weakest.low < 1:
        return weakest
    return replace(weakest, low=min(1.0, float(shares.mean(0).min())))


def _drop(shares: Array, resamples: Bootstrap) -> Estimate:
    if shares.shape[-1] < MIN_UNITS:
        return missing(why_no_centre(shares.shape))
    drops = border_drop(np.tensordot(resamples.weights, shares, 1))
    if not np.isfinite(drops).all():
        return missing("the response at the centre is 0: a drop towards the border is undefined")
    return resamples.estimate(drops, high=1.0)
