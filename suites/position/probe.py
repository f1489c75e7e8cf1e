"""A linear probe of position, trained and tested on different images.

Ridge regression of a coordinate on standardised features. The images are split in halves, every
second one; each half tests the probe of the other. Its penalty, one of `PENALTIES` times the
variance of a feature and the same for rows and columns, is chosen within the training half, whose
halves test each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..base import Array

PENALTIES = np.geomspace(1e-4, 1e3, 15)


def held_out_r2(moments: Array) -> Array:
    """R^2 of row and column on each image, by a probe of other images: (images, 2).

    `moments` (images, k, k) are those of `moments.second_moments`; a value below 0 means that the
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
