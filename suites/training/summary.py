"""From the histories of trained variants to the metrics, tables and maps of `training`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base import Estimate, Measurement, missing
from ..measuring.bootstrap import Bootstrap, bootstrap
from ..measuring.phases import fold
from ..measuring.unbiased import extreme_mean, root_mean_square
from .micro_object import box_mean
from .suite import TRAINING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..base import Array, Metric

TARGET_ACCURACY = 0.9

PROBED = {"weakest": "weakest", "imbalance": "imbalance", "erf": "luo_size"}
"""Numbers of a probe: name in the metrics, name in the probe."""


@dataclass(frozen=True)
class TrainingHistory:
    """The training of one variant with one seed.

    `epochs` has a row for each epoch (`epoch`, from 1, `loss` and the task's test results);
    `probes` one for each probed epoch, from 0 (`epoch`, `weakest`, `imbalance`, `luo_size`,
    `radius`, and the maps `profile` and `erf` as nested lists). A probe's number may be None.
    """

    seed: int
    epochs: list[dict[str, Any]]
    probes: list[dict[str, Any]]

    def row(self) -> dict[str, float | None]:
        """The numbers of this seed that are averaged over seeds; None if one is missing."""
        values = self.curve("accuracy")
        row: dict[str, float | None] = {
            "accuracy": float(values[-1]),
            "mean_accuracy": float(values.mean()),
            "epochs_to_90": epochs_to(values),
            "reached_90": float(epochs_to(values) is not None),
        }
        for name, probed in PROBED.items():
            start, end = self.probes[0][probed], self.probes[-1][probed]
            row |= {f"{name}_start": start, f"{name}_end": end}
            changed = None if start is None or end is None else end - start
            row["erf_growth" if name == "erf" else f"{name}_change"] = changed
        return row

    def curve(self, name: str) -> Array:
        """A number by epoch (epochs,)."""
        return np.array([row[name] for row in self.epochs], dtype=np.float64)


def epochs_to(accuracy: Array, enough: float = TARGET_ACCURACY) -> float | None:
    """The first epoch, from 1, after which `accuracy` (epochs,) is `enough`, or None.

    >>> epochs_to(np.array([0.5, 0.91, 0.89]))
    2.0
    """
    reached = np.flatnonzero(accuracy >= enough)
    return float(reached[0] + 1) if len(reached) else None


def summarise(
    histories: Sequence[TrainingHistory],
    protocol: str,
    *,
    side: int = 1,
    draws: int = 200,
    seed: int = 0,
) -> Measurement:
    """The metrics, tables and maps of one variant from its `histories`, one for each seed.

    All histories have the same epochs and probes. `side` is that of the box in pixels; `draws` and
    `seed` are those of the bootstrap, so that variants with the same seeds can be paired.
    """
    resamples = bootstrap(len(histories), draws, seed)
    rows = [history.row() for history in histories]
    found = Measurement({})
    for metric in TRAINING.metrics:
        if metric.name in rows[0]:
            found.metrics[metric.name] = _over_seeds(rows, metric, resamples)
    found.tables["seeds"] = [
        {"seed": history.seed, **row} for history, row in zip(histories, rows, strict=True)
    ]
    found.tables["curve"] = _curve(histories, resamples)
    found.tables["along"] = _along(histories, resamples)
    for end, place in (("start", 0), ("end", -1)):
        for name in ("profile", "erf"):
            maps = [h.probes[place][name] for h in histories]
            if None not in maps:
                label = "phase_profile" if name == "profile" else name
                found.maps[f"{label}_{end}"] = np.mean(maps, 0)
    found.metrics |= _phases(histories, protocol, side, resamples, found)
    found.metrics = {m.name: found.metrics[m.name] for m in TRAINING.metrics}
    return found


def _over_seeds(
    rows: Sequence[Mapping[str, float | None]], metric: Metric, resamples: Bootstrap
) -> Estimate:
    """Mean of one number over seeds; missing if one seed has no value."""
    values = [row[metric.name] for row in rows]
    lacking = sum(value is None for value in values)
    if lacking:
        why = (
            "did not reach 90 % accuracy"
            if metric.name == "epochs_to_90"
            else "could not be probed"
        )
        return missing(f"{lacking} of {len(values)} seeds {why}")
    array = np.array(values, dtype=np.float64)
    if metric.name == "reached_90":
        return resamples.share(array)
    return resamples.estimate(resamples.weights @ array, low=metric.low, high=metric.high)


def _phases(
    histories: Sequence[TrainingHistory],
    protocol: str,
    side: int,
    resamples: Bootstrap,
    found: Measurement,
) -> dict[str, Estimate]:
    """The metrics by phase of the box."""
    names = ("phase_weakest", "phase_spread", "phase_agreement")
    if protocol != "micro_object":
        return dict.fromkeys(names, missing("ordinary classification has no box"))
    accuracy = np.array([[row["phase_accuracy"] for row in h.epochs] for h in histories]).mean(1)
    contrast = np.array([h.epochs[-1]["phase_contrast"] for h in histories])
    found.maps["phase_accuracy"] = accuracy.mean(0)
    found.maps["phase_contrast"] = contrast.mean(0)
    if accuracy[0].size < 2:
        return dict.fromkeys(names, missing("there are too few test images to measure each phase"))
    relative = (accuracy / accuracy.mean((1, 2), keepdims=True)).reshape(len(histories), -1)
    weakest = extreme_mean(relative, np.argmin, resamples)
    return {
        "phase_weakest": resamples.estimate(weakest, low=0.0),
        "phase_spread": resamples.estimate(root_mean_square(relative - 1, resamples), low=0.0),
        "phase_agreement": _agreement(histories, contrast, side, resamples),
    }


def _agreement(
    histories: Sequence[TrainingHistory], contrast: Array, side: int, resamples: Bootstrap
) -> Estimate:
    """Mean over seeds of the correlation of contrast and dead-pixel profile over phases."""
    values = []
    for history, own in zip(histories, contrast, strict=True):
        profile = history.probes[-1]["profile"]
        if profile is None:
            return missing("the network has no phase profile")
        value = correlation(own, box_mean(np.array(profile), side))
        if value is None:
            return missing("contrast and profile have no phases in common, or do not vary")
        values.append(value)
    return resamples.estimate(resamples.weights @ np.array(values), low=-1.0, high=1.0)


def correlation(contrast: Array, profile: Array) -> float | None:
    """Correlation over phases, folded to the shorter period; None if it is undefined.

    Periods of which neither divides the other have no phases in common.
    """
    fewer, more = sorted((contrast, profile), key=np.size)
    if any(b % a for a, b in zip(fewer.shape, more.shape, strict=True)) or fewer.size < 2:
        return None
    more = fold(more, (fewer.shape[0], fewer.shape[1]))
    if not (np.ptp(fewer) > 0 and np.ptp(more) > 0):
        return None
    return float(np.corrcoef(fewer.ravel(), more.ravel())[0, 1])


def _curve(histories: Sequence[TrainingHistory], resamples: Bootstrap) -> list[dict[str, Any]]:
    """Accuracy and loss by epoch, with the interval over seeds."""
    rows = []
    for place, first in enumerate(histories[0].epochs):
        values = [h.epochs[place] for h in histories]
        row: dict[str, Any] = {"epoch": first["epoch"]}
        for name, high in (("accuracy", 1.0), ("loss", None)):
            row |= _interval(name, [v[name] for v in values], resamples, high)
        rows.append(row)
    return rows


def _along(histories: Sequence[TrainingHistory], resamples: Bootstrap) -> list[dict[str, Any]]:
    """Dead-pixel and ERF metrics by probed epoch, with the interval over seeds."""
    rows = []
    for place, first in enumerate(histories[0].probes):
        row: dict[str, Any] = {"epoch": first["epoch"]}
        for name in (*PROBED.values(), "radius"):
            values = [h.probes[place][name] for h in histories]
            if None not in values:
                row |= _interval(name, values, resamples, None)
        rows.append(row)
    return rows


def _interval(
    name: str, values: Sequence[float], resamples: Bootstrap, high: float | None
) -> dict[str, float | None]:
    estimate = resamples.estimate(resamples.weights @ np.array(values), low=0.0, high=high)
    return {name: estimate.value, f"{name}.low": estimate.low, f"{name}.high": estimate.high}
