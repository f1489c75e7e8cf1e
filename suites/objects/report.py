"""Metrics, table and map of `objects`, from the products of all samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Estimate, missing
from ..measuring.unbiased import extreme_mean, root_mean_square
from .responses import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..base import Array, Measurement
    from ..measuring.bootstrap import Bootstrap
    from .layout import Layout
    from .responses import Responses


RELATIVE = ("half_size", "smallest_size", "phase_weakest", "phase_spread")
"""The metrics that are relative to the mean response."""


def report(
    answered: float, layout: Layout, seen: Responses, resamples: Bootstrap, found: Measurement
) -> None:
    """Fill in metrics, table and map.

    Where cut-outs are not shown to raise the scores of their classes, there is no response to
    divide by, and only the share that is named right is given.
    """
    sums, sizes = seen.sums, np.array(layout.sizes)
    shape = (len(sums), len(layout.sizes), len(layout.phases))
    totals = np.tensordot(resamples.weights, sums, 1)
    metrics = found.metrics
    right = None if seen.right is None else seen.right.reshape(shape).mean(2)
    metrics["named_right"] = (
        missing("boxes have no class: protocol cutouts has labelled objects")
        if right is None
        else resamples.share(right[:, -1])
    )
    shown = seen.raised and _above_zero(resamples.estimate(totals[:, -1]))
    if right is not None and not shown:
        metrics.update(dict.fromkeys(RELATIVE, missing(UNKNOWN)))
        return
    relative = (sums[:, :-1] / sums[:, -1].mean()).reshape(shape)
    curves = (totals[:, :-1] / totals[:, -1:]).reshape(-1, *shape[1:]).mean(2)
    half = np.array([half_size(sizes, curve) for curve in curves])
    metrics["half_size"] = resamples.estimate(half, low=float(sizes[0]), positive=True)
    least = [
        resamples.estimate(extreme_mean(relative[:, k], np.argmin, resamples))
        for k in range(len(sizes))
    ]
    metrics["smallest_size"] = _smallest(layout.sizes, least, answered)
    found.notes.append(f"phases are compared by objects of {sizes[layout.compared]} pixels")
    _read_phases(relative[:, layout.compared], resamples, metrics)
    found.maps["response"] = relative.mean(0)
    found.tables["response"] = _rows(layout, relative.mean(0), right)


def _rows(layout: Layout, response: Array, right: Array | None) -> list[dict[str, Any]]:
    """A row for each size; `right` are shares (samples, sizes)."""
    rows: list[dict[str, Any]] = []
    for k, (size, one) in enumerate(zip(layout.sizes, response, strict=True)):
        row, column = layout.phases[int(one.argmin())]
        rows.append(
            {"size": size, "mean": float(one.mean()), "least": float(one.min())}
            | {"most": float(one.max()), "worst_row": row, "worst_column": column}
            | ({} if right is None else {"named_right": float(right[:, k].mean())})
        )
    return rows


def _above_zero(one: Estimate) -> bool:
    end = one.value if one.low is None else one.low
    return end is not None and end > 0


def _read_phases(small: Array, resamples: Bootstrap, metrics: dict[str, Estimate]) -> None:
    """Fill in least and spread of the responses `small` (samples, phases) of one size."""
    names = ("phase_weakest", "phase_spread")
    mean = resamples.weights @ small.mean(1)
    if small.shape[1] < 2:
        metrics |= dict.fromkeys(names, missing("a stride of 1 has no phases"))
        return
    if not _above_zero(resamples.estimate(mean)):
        reason = missing("no response to objects of this size is shown: choose larger sizes")
        metrics |= dict.fromkeys(names, reason)
        return
    least = extreme_mean(small, np.argmin, resamples)
    spread = root_mean_square(small - small.mean(1, keepdims=True), resamples)
    metrics[names[0]] = resamples.estimate(least / mean)
    metrics[names[1]] = resamples.estimate(spread / mean, low=0.0)


def half_size(sizes: Array, curve: Array) -> float:
    """The size at which `curve` reaches 1/2 for good, interpolated in logarithms of the size."""
    below = np.flatnonzero(curve < 0.5)
    if len(below) == 0:
        return float(sizes[0])
    k = int(below[-1])
    if k + 1 == len(sizes):
        return float(sizes[-1])
    share = (0.5 - curve[k]) / (curve[k + 1] - curve[k])
    low, high = math.log(sizes[k]), math.log(sizes[k + 1])
    return math.exp(low + share * (high - low))


def _smallest(sizes: Sequence[int], least: Sequence[Estimate], answered: float) -> Estimate:
    """The smallest size from which on the least response is `answered`, with its interval."""

    def first(end: str) -> float | None:
        found = None
        for size, one in zip(reversed(sizes), reversed(least), strict=True):
            value = getattr(one, end)
            value = one.value if value is None else value
            if value is None or value < answered:
                return found
            found = float(size)
        return found

    value = first("value")
    if value is None:
        return missing(f"an object of {sizes[-1]} pixels is not seen at every phase")
    if all(one.low is None for one in least):
        return Estimate(value)
    low, high = first("high"), first("low")
    return Estimate(value, value if low is None else low, high)
