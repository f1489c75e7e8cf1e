"""The five-parameter Gaussian that Kim et al. (2023) fit to a receptive field.

g(y, x) = a exp(-((x - cx)^2 / (2 sx^2) + (y - cy)^2 / (2 sy^2))), fitted by least squares to a map
scaled to sum 1; R^2 = 1 - var(residual) / var(map); sigmas by absolute value.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..measuring.bootstrap import linear

if TYPE_CHECKING:
    from ..base import Array

MIN_SIGMA = 0.1

PARAMETERS = ("amplitude", "center_y", "center_x", "sigma_y", "sigma_x")


@dataclass(frozen=True)
class GaussianFit:
    """Parameters and R^2, each (replicates,) with the fit itself first; or why the fit failed."""

    values: dict[str, Array]
    failure: str | None = None


def fit_gaussian(samples: Array, weights: Array) -> GaussianFit:
    """Fit the mean of `samples` (n, height, width) under each row of `weights` (replicates, n).

    Row 0 is fitted; the others are one Gauss-Newton step away, which is exact to first order.
    """
    mean: Array = np.tensordot(weights[0], samples, 1)
    scale = mean.sum()
    if scale <= 0:
        return GaussianFit({}, "the map sums to 0")
    mean = np.asarray(mean / scale, dtype=np.float64)
    theta, failure = _fit(mean)
    if failure is not None:
        return GaussianFit({}, failure)
    jacobian = _gaussian(theta, mean.shape)[1]
    flat = samples.reshape(len(samples), -1) / scale
    inverse = np.asarray(np.linalg.pinv(jacobian), dtype=np.float64)
    moves: Array = flat @ inverse.T
    thetas = linear(theta, moves, weights)
    thetas[:, 3:] = np.abs(thetas[:, 3:])
    values = dict(zip(PARAMETERS, thetas.T, strict=True))
    values["r_squared"] = _r_squared(flat, jacobian, theta[0], moves, weights)
    return GaussianFit(values)


def _fit(mean: Array) -> tuple[Array, str | None]:
    """Parameters of the best fit to a map of sum 1, and the reason if it cannot be used.

    The fit starts from the moments and, if that explains less than half of the map, also from the
    region above half of the peak.
    """
    best = _descend(mean, _from_moments(mean))
    if best.cost > 0.25 * mean.var() * mean.size:
        best = min(best, _descend(mean, _from_peak(mean)), key=lambda found: found.cost)
    theta = np.asarray(best.x, dtype=np.float64)
    height, width = mean.shape
    if best.status <= 0:
        return theta, "the Gaussian fit did not converge"
    if theta[3] > 5 * height or theta[4] > 5 * width:
        return theta, "the map is flat: the fitted Gaussian is over five times as wide as the image"
    if min(theta[3:]) < 2 * MIN_SIGMA:
        return theta, "the map is a dot: the fitted Gaussian is narrower than a pixel can show"
    return theta, None


def _from_moments(mean: Array) -> list[float]:
    y, x = np.arange(mean.shape[0]), np.arange(mean.shape[1])
    rows, columns = mean.sum(1), mean.sum(0)
    cy, cx = rows @ y, columns @ x
    sy, sx = np.sqrt(rows @ (y - cy) ** 2), np.sqrt(columns @ (x - cx) ** 2)
    return [float(mean.max()), cy, cx, max(sy / 2, 0.5), max(sx / 2, 0.5)]


def _from_peak(mean: Array) -> list[float]:
    """Parameters from the area above half of the peak, 2 pi ln 2 sigma^2 for a Gaussian."""
    y, x = np.nonzero(mean > mean.max() / 2)
    sigma = max(np.sqrt(len(y) / (2 * np.pi * np.log(2))), 0.5)
    return [float(mean.max()), y.mean(), x.mean(), sigma, sigma]


def _descend(mean: Array, start: list[float]) -> Any:
    """Least squares from `start`; the centre is at most one image side outside the image."""
    from scipy.optimize import least_squares

    height, width = mean.shape
    peak = start[0]
    with np.errstate(all="ignore"):  # steps that overflow are rejected by the solver
        return least_squares(
            lambda t: _gaussian(t, mean.shape)[0] - mean.ravel(),
            np.clip(start, [0, 0, 0, MIN_SIGMA, MIN_SIGMA], [np.inf, height, width, height, width]),
            jac=lambda t: _gaussian(t, mean.shape)[1],
            bounds=(
                [-np.inf, -height, -width, MIN_SIGMA, MIN_SIGMA],
                [np.inf, 2 * height, 2 * width, 10 * height, 10 * width],
            ),
            x_scale=[peak, height, width, height, width],
            ftol=1e-10,
            xtol=1e-10,
            gtol=None,
            max_nfev=200,
        )


def _gaussian(theta: Array, shape: tuple[int, ...]) -> tuple[Array, Array]:
    """The Gaussian (pixels,) and its Jacobian (pixels, 5)."""
    amplitude, cy, cx, sy, sx = theta
    y = (np.arange(shape[0]) - cy) / sy
    x = (np.arange(shape[1]) - cx) / sx
    bell = np.outer(np.exp(-(y**2) / 2), np.exp(-(x**2) / 2))
    g = amplitude * bell
    columns = (
        bell,
        g * (y / sy)[:, None],
        g * (x / sx)[None],
        g * (y**2 / sy)[:, None],
        g * (x**2 / sx)[None],
    )
    return g.ravel(), np.stack([c.ravel() for c in columns], 1)


def _r_squared(
    flat: Array, jacobian: Array, amplitude: float, moves: Array, weights: Array
) -> Array:
    """R^2 (replicates,) from the covariances of the samples and of the Jacobian's columns.

    The map and the residual of a replicate are linear in these, so neither is computed itself: the
    map is weights @ flat, and the Gaussian after one step is the Jacobian times `amplitude` for the
    first column and the weighted `moves` (n, 5) for all. R^2 of a replicate of zeros is 0.
    """
    gaussian = (weights - weights[:1]) @ moves
    gaussian[:, 0] += amplitude
    covariance = _covariance(flat, jacobian)
    totals = _squares(weights, covariance[: len(flat), : len(flat)])
    residuals = _squares(np.hstack([weights, -gaussian]), covariance)
    left: Array = np.divide(residuals, totals, out=np.ones_like(totals), where=totals > 0)
    return 1 - left


def _covariance(rows: Array, columns: Array) -> Array:
    """Covariance over pixels of `rows` (n, pixels) and `columns` (pixels, k): (n + k, n + k)."""
    cross = rows @ columns
    products = np.block([[rows @ rows.T, cross], [cross.T, columns.T @ columns]])
    means = np.concatenate([rows.mean(1), columns.mean(0)])
    covariance: Array = products / len(columns) - np.outer(means, means)
    return covariance


def _squares(factors: Array, form: Array) -> Array:
    """The quadratic `form` (n, n) of each row of `factors` (replicates, n)."""
    squares: Array = ((factors @ form) * factors).sum(1)
    return squares
