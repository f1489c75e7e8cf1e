"""What is kept of the feature maps of an image: a grid of units, and second moments for the probe.

Of a map of more than `SIDE` units along an axis evenly spaced ones are taken, first and last
included; of more than `CHANNELS` channels every k-th.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..base import Array

SIDE, CHANNELS = 24, 768


def features(maps: Tensor) -> Array:
    """The units kept of `maps` (images, channels, rows, columns), as (images, units, channels)."""
    rows, columns = (_places(n) for n in maps.shape[2:])
    step = -(-maps.shape[1] // CHANNELS)
    kept = maps[:, ::step][:, :, rows][:, :, :, columns].detach().double().cpu()
    found: Array = kept.flatten(2).transpose(1, 2).numpy()
    return found


def coordinates(rows: int, columns: int) -> Array:
    """Row and column of each unit kept of a map (units, 2), from -1 to 1."""
    axes = (_places(rows), _places(columns))
    along = [2 * p / max(1, n - 1) - 1 for p, n in zip(axes, (rows, columns), strict=True)]
    found: Array = np.stack(np.meshgrid(*along, indexing="ij"), -1).reshape(-1, 2)
    return found


def _places(units: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.unique(np.linspace(0, units - 1, min(units, SIDE)).round().astype(np.int64))


def second_moments(units: Array, places: Array) -> Array:
    """Z' Z of each image (images, k, k), Z being features, 1 and coordinates of its units."""
    images, count, _ = units.shape
    ones = np.ones((images, count, 1))
    z = np.concatenate([units, ones, np.broadcast_to(places, (images, *places.shape))], 2)
    moments: Array = z.transpose(0, 2, 1) @ z
    return moments


def within_map(units: Array) -> Array:
    """Features (images, units x channels) minus their mean over the units of the image."""
    centred: Array = units - units.mean(1, keepdims=True)
    return centred.reshape(len(units), -1)
