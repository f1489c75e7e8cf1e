"""Pixels that the target reads and the output does not: a hole behind the target.

The layers behind the target may leave units of it out, as a linear layer on the flattened map with
columns of zeros does, or a head that crops. Then the map is whole, and the output is blind. So the
gradient of v . y is taken, with y the logits and v random and Gaussian: where it is exactly 0 on
an image and the target is sensitive there, more images are looked at, up to `MOST_IMAGES`. A pixel
counts if it is 0 on all of them, and not by chance (see `dead_regions`).

Nothing is said of models with several outputs, of which others may read the pixel, with a map as
output, which can be the target itself (`--target output`), with several weight sets, or whose
logits have no gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...adapters.model import ModelOfScales
from ..base import Probe
from ..measuring import dead_regions, phases
from ..measuring.gradients import gradient_maps, require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model, Outputs
    from ..base import Array, Context

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

MOST_IMAGES = 8
STREAM = 43
"""Of the random numbers that weigh the logits."""


def regions_of_no_output(
    model: Model, channels: Array, context: Context
) -> list[dead_regions.Region]:
    """Connected regions of such pixels, largest first.

    `channels` (samples, channels, height, width) is the sensitivity of the target, a sample for
    each of the images of `context`.
    """
    if model.members > 1 or model.target is None:
        return []
    try:
        return _regions(model, channels.sum(1) > 0, context)
    except Exception:  # no logits, or none with a gradient; a foreign head may raise anything
        return []


def _regions(model: Model, target: Mask, context: Context) -> list[dead_regions.Region]:
    from ..architecture.receptive_field import target_stride

    if not (target[:1] & ~_read(model, context, 1)).any() or not _has_one_output(model, context):
        return []
    read = _read(model, context, MOST_IMAGES)
    size = (model.spec.height, model.spec.width)
    period = phases.fit_period(size, target_stride(model))
    found = dead_regions.surely_silent(~read, period) & target.any(0)
    return dead_regions.connected_regions(found)


def _has_one_output(model: Model, context: Context) -> bool:
    """Whether the output is one tensor, and no map."""
    if isinstance(model, ModelOfScales) and model.output_map() is not None:
        return False
    found = model.every_output(model.spec.prepare(context.images[:1]).to(model.device))
    return len(found.tensors) == 1 and not found.unread


def _read(model: Model, context: Context, images: int) -> Mask:
    """Where the logits have a gradient (images, height, width), of images that have any.

    Raises `NotApplicableError` if there are no logits, or if their gradient is 0 everywhere.
    """
    probe = Probe(
        "deadpixel/logits",
        lambda outputs, indices: _weighed(outputs, indices, context.seed),
        lambda gradient: (gradient != 0).any(1).float(),
        logits=True,
    )
    shown = context.images[:images]
    read: Mask = gradient_maps(model, shown, [probe], batch=context.batch).maps[probe.name] > 0
    some: Mask = read[read.any((1, 2))]  # all scores of an image may be saturated
    return some


def _weighed(outputs: Outputs, indices: Sequence[int], seed: int) -> Tensor:
    """The sum over the batch of v . y, y being (batch, classes)."""
    logits = require(outputs.logits, "logits")
    rows = [
        np.random.default_rng([seed, STREAM, index]).standard_normal(logits[0].numel())
        for index in indices
    ]
    return (logits.flatten(1) * torch.tensor(np.array(rows)).to(logits)).sum()
