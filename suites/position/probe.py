"""A linear probe of position, trained and tested on different images.

Ridge regression of a coordinate on standardised features. The images are split in halves, every
second one; each half tests the probe of the other. Its penalty, one of `PENALTIES` times the
variance of a feature and the same for rows and columns, is chosen within the training half, whose
halves test each other.

Of an image a grid of units is kept: of a map of more than `SIDE` units along an axis evenly spaced
ones, first and last included; of more than `CHANNELS` channels every k-th.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..base import Array

PENALTIES = np.geomspace(1e-4, 1e3, 15)


def held_out_r2(moments: Array) -> Array:
    """R^2 of row and column on each image, by a probe of other images: (images, 2).

    `moments` (images, k, k) are those of `second_moments`; a value below 0 means that the
    mean would have been a better guess.
    """
    found = np.empty((len(moments), 2))
    for test, train in ((0, 1), (1, 0)):
        own, other = moments[test::2], moments[train::2]
        errors = (_errors(a, b) for a, b in ((other[::2], other[1::2]), (other[1::2], other[::2])))
        best = np.sum([error.sum((1, 2)) for error in errors], 0).argmin()
        found[test::2] = 1 - _errors(other, own)[best]
    return found


def _errors(train: Array, test: Array) -> Array:
    """Squared error over variance (penalties, test images, 2) of the probe of `train`."""
    total = train.sum(0)
    features, count = len(total) - 3, total[-3, -3]
    mean = total[:features, -3] / count
    covariance = total[:features, :features] / count - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
    scale = np.divide(1, deviation, out=np.zeros_like(deviation), where=deviation > 1e-9)
    values, vectors = np.linalg.eigh(covariance * scale[:, None] * scale)
    target_mean = total[-2:, -3] / count
    link = total[:features, -2:] / count - np.outer(mean, target_mean)
    turned = vectors.T @ (link * scale[:, None])
    errors = []
    for penalty in PENALTIES:
        weights = scale[:, None] * (vectors @ (turned / (np.maximum(values, 0) + penalty)[:, None]))
        errors.append(_error_of(test, weights, target_mean - mean @ weights))
    return np.array(errors)


def _error_of(test: Array, weights: Array, constant: Array) -> Array:
    """Squared error over variance (images, 2) of the guess features @ weights + constant."""
    found = []
    for axis in (0, 1):
        guess = np.zeros(test.shape[1])
        guess[: len(weights)], guess[-3] = weights[:, axis], constant[axis]
        guess[-2 + axis] = -1.0
        error = test @ guess @ guess
        place = -2 + axis
        variance = test[:, place, place] - test[:, place, -3] ** 2 / test[:, -3, -3]
        found.append(error / variance)
    return np.stack(found, 1)


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
