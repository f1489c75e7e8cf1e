"""Pixels that the target reads and the output does not: a hole behind the target.

The layers behind the target may leave units of it out, as a linear layer on the flattened map with
columns of zeros does, or a head that crops. Then the map is whole, and the output is blind. So the
gradient of v . y is taken, with y the logits and v random and Gaussian: where it is exactly 0 on
an image and the target is sensitive there, `MOST_IMAGES` are looked at: those given and,
where there are fewer, shifted and mirrored copies of them. A pixel counts if it is 0 on all of
them, and not by chance (see `dead_regions`).

Heads that choose places (a largest value, the best k, attention) have such zeros where nothing is
worth choosing. So as many images are shown that are plain but for the pixels in question; if any of
these is read then, the head chooses, and nothing is said.

Nothing is said of models with several outputs, of which others may read the pixel, with a map as
output, which can be the target itself (`--target output`), with several weight sets, or whose
logits have no gradient; of `--target all-scales` the target alone is looked at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...adapters.feature_grid import TargetChoice
from ...adapters.model import ModelOfScales
from ..base import Probe
from ..measuring import dead_regions, phases
from ..measuring.gradients import require, take_gradients
from ..measuring.silence import Zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from ...adapters.model import Model, Outputs
    from ..base import Array, Context

    Mask = np.ndarray[Any, np.dtype[np.bool_]]

MOST_IMAGES = 8
GROUNDS = (0.5, 0.0, 1.0)
BLOCKS = (4, 16, 1, 0)
STREAM = 43
"""Of the random numbers that weigh the logits."""


def regions_of_no_output(
    model: Model, channels: Array, context: Context
) -> list[dead_regions.Region]:
    """Connected regions of such pixels, largest first.

    `channels` (samples, channels, height, width) is the sensitivity of the target, a sample for
    each of the images of `context`.
    """
    if model.members > 1 or model.target is None or model.target.choice is TargetChoice.SCALE:
        return []
    try:
        return _regions(model, channels.sum(1) > 0, context)
    except Exception:  # no logits, or none with a gradient; a foreign head may raise anything
        return []


def _regions(model: Model, target: Mask, context: Context) -> list[dead_regions.Region]:
    from ..architecture.receptive_field import target_stride

    first = _read(model, context.images[:1], context).any(0)  # False where its scores are flat
    if not (target[0] & ~first).any() or not _has_one_output(model, context):
        return []
    rng = np.random.default_rng([context.seed, STREAM])
    images = _copied(context.images[:MOST_IMAGES], rng)
    period = phases.fit_period((model.spec.height, model.spec.width), target_stride(model))
    read = _read(model, images, context)
    if not len(read):
        return []
    unread = Zeros(~read, period).surely_silent() & target.any(0)
    if not unread.any():
        return []
    read = _read(model, _on_plain_ground(images, unread, rng), context)
    chooses = not len(read) or (unread & read.any(0)).any()
    return [] if chooses else dead_regions.connected_regions(unread)


def _copied(images: Tensor, rng: np.random.Generator) -> Tensor:
    """`MOST_IMAGES` (images, 3, height, width): `images`, then shifted, mirrored copies of them."""
    copies = [*images]
    while len(copies) < MOST_IMAGES:
        shift = tuple(int(rng.integers(n)) for n in images.shape[2:])
        axes = [axis for axis in (1, 2) if rng.random() < 0.5]
        copies.append(images[len(copies) % len(images)].roll(shift, (1, 2)).flip(axes))
    return torch.stack(copies)


def _on_plain_ground(images: Tensor, unread: Mask, rng: np.random.Generator) -> Tensor:
    """Images in [0, 1] that are grey, black or white but for the pixels in question.

    There they have blocks of the strongest colours at random, or every fourth one a shifted image.
    """
    count, channels, height, width = images.shape
    shown = images.roll((height // 2, width // 2), (2, 3)).clone()
    for i in range(count):
        side = BLOCKS[i % 4]
        if side:
            coarse = rng.integers(0, 2, (channels, -(-height // side), -(-width // side)))
            fine = coarse.repeat(side, 1).repeat(side, 2)[:, :height, :width]
            shown[i] = torch.from_numpy(fine).to(shown)
    ground = torch.tensor([GROUNDS[i % len(GROUNDS)] for i in range(count)]).to(images)
    where = torch.from_numpy(unread).to(images.device)
    return torch.where(where, shown, ground[:, None, None, None])


def _has_one_output(model: Model, context: Context) -> bool:
    """Whether the output is one tensor, and no map."""
    if isinstance(model, ModelOfScales) and model.output_map() is not None:
        return False
    found = model.every_output(model.spec.prepare(context.images[:1]).to(model.device))
    return len(found.tensors) == 1 and not found.unread


def _read(model: Model, images: Tensor, context: Context) -> Mask:
    """Where the logits have a gradient (images, height, width), of `images` that have any.

    Raises `NotApplicableError` if there are no logits.
    """
    probe = Probe(
        "deadpixel/logits",
        lambda outputs, indices: _weighed(outputs, indices, context.seed),
        lambda gradient: (gradient != 0).any(1).float(),
        logits=True,
    )
    found = take_gradients(model, images, [probe], batch=context.batch)
    if found.refused:  # 0 everywhere, or not finite
        return np.zeros((0, *images.shape[2:]), dtype=bool)
    read: Mask = found.maps[probe.name] > 0
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
