"""Mean feature maps: how strongly the units of each stage answer, channel by channel averaged.

A(i, j) = mean over channels of |F_c(i, j)|, F being the last spatial map of a stage (see
`Model.stages`). Before a ReLU the magnitude stands for the activation, behind one it is it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError

if TYPE_CHECKING:
    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array


def stage_maps(model: Model, x: Tensor, batch: int) -> dict[str, Array]:
    """A of each stage, (images, height, width), by the name of its last layer.

    `x` is (images, channels, height, width). Raises `NotApplicableError` without a spatial map, or
    when one is not finite.
    """
    parts: dict[str, list[Array]] = {}
    for chunk in x.split(batch):
        for name, maps in model.stages(chunk.to(model.device)).items():
            parts.setdefault(name, []).append(channel_mean(maps))
    return {name: _checked(name, np.concatenate(maps)) for name, maps in parts.items()}


def channel_mean(maps: Tensor) -> Array:
    """Mean magnitude over the channels of `maps` (batch, channels, height, width)."""
    mean: Array = maps.detach().abs().double().mean(1).cpu().numpy()
    return mean


def _checked(name: str, maps: Array) -> Array:
    if not np.isfinite(maps).all():
        raise NotApplicableError(f"the feature map {name!r} is not finite on these images")
    return maps
