"""The measured part: energy of the output by unit, and the pattern that repeats in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...adapters.errors import NotApplicableError
from ..measuring import phases
from ..measuring.batching import weight_sets
from ..measuring.forward import by_sample
from ..measuring.gradients import require
from ..measuring.output_view import at_output

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.batching import Batching
    from ..measuring.phases import Pair

MOST_PLACES = 1 << 16
"""Most channels times phases of the pattern; of more channels, evenly spaced ones are taken."""

SILENT = "the output is constant over the map on these images"


@dataclass(frozen=True)
class Observed:
    """By sample: energies (samples, rows, columns) of mean 1, their means, and patterns.

    A pattern (samples, places) has an entry for each channel and phase, in units of the output.
    """

    energies: Array
    levels: Array
    patterns: Array


def observe_output(model: Model, images: Tensor, period: Pair, batching: Batching) -> Observed:
    """Pass `images` (n, 3, height, width) through `model`, each by one of its weight sets.

    Raises `NotApplicableError` if an output is not finite, or constant over the map.
    """
    x = model.spec.prepare(images)
    members = min(model.members, len(x))
    seen: tuple[dict[int, Array], ...] = ({}, {}, {})
    for own in weight_sets(model, x):
        view, places = at_output(model), torch.tensor(own)
        parts = batching.run(len(own), lambda piece: _one(view, x[places[piece]], period))  # noqa: B023
        for index, found in enumerate(seen):
            found |= dict(zip(own, np.concatenate([p[index] for p in parts]), strict=True))
    return Observed(*(by_sample(found, members) for found in seen))


def _one(model: Model, x: Tensor, period: Pair) -> tuple[Array, Array, Array]:
    with torch.no_grad():
        out = require(model.run(x.to(model.device)).target, "target").double()
    if not bool(out.isfinite().all()):
        raise NotApplicableError("the output is not finite (NaN or infinite) on these images")
    energy = (out - out.mean((2, 3), keepdim=True)).square().mean(1)
    level = energy.mean((1, 2), keepdim=True)
    if not bool((level > 0).all()):
        raise NotApplicableError(SILENT)
    chosen = out[:, :: _step(out.shape[1], period)].cpu().numpy()
    pattern = phases.phase_pattern(chosen, period).reshape(len(chosen), -1)
    return (energy / level).cpu().numpy(), level.flatten().cpu().numpy(), pattern


def _step(channels: int, period: Pair) -> int:
    """Every how many channels one is taken for the pattern."""
    return -(-channels * period[0] * period[1] // MOST_PLACES)
