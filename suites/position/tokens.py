"""Norms of single units: those that stand out, and how they are distributed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from ..base import Array

LARGE = 3.0
"""A norm above this many medians stands out."""


def unit_norms(maps: Tensor) -> Array:
    """Norms over channels of the units of `maps`: (images, rows, columns)."""
    norms: Array = maps.detach().double().norm(dim=1).cpu().numpy()
    return norms


def outlying(norms: Array) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which of the norms (rows, columns) of an image stand out."""
    found: np.ndarray[Any, np.dtype[np.bool_]] = norms > LARGE * np.median(norms)
    return found


def bimodality(norms: Array) -> float | None:
    """Sarle's coefficient of the logarithms: (skewness^2 + 1) / kurtosis, 1/3 of a normal law.

    It is 5/9 for a uniform law and 1 for two values. None where all are equal or one is 0.
    """
    flat = norms.ravel()
    if flat.min() <= 0:
        return None
    logs = np.log(flat)
    centred = logs - logs.mean()
    variance = float((centred**2).mean())
    if variance <= 1e-18:
        return None
    skewness = float((centred**3).mean()) / variance**1.5
    kurtosis = float((centred**4).mean()) / variance**2
    return float((skewness**2 + 1) / kurtosis)
