"""Whether two rows differ: paired bootstrap draws where they pair, else independent intervals.

Draws pair when both estimates rest on the same images, seed and number of samples: replicate i of
both then resamples the same samples, so that what both share cancels in the difference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from ...suites.base import Array, Exactness
    from ...suites.measuring.bootstrap import Bootstrap
    from ..records.record import Record


Method = Literal["exact", "paired", "independent", "none"]

ENOUGH_SAMPLES = 8
"""Below this number of samples, ranks by an estimate mean little."""

SAMPLE_NAMES = ("images_sha256", "draws")


@dataclass(frozen=True)
class Difference:
    """One value minus another, with its 95 % interval and the method that gave it.

    `method` is `exact` where neither value is an estimate, `paired`, `independent`, or `none` where
    an estimate rests on too few samples to have an interval.
    """

    value: float
    low: float | None
    high: float | None
    method: Method

    @property
    def separated(self) -> bool:
        """Whether the interval excludes 0; for exact values, whether they are unequal.

        Estimates without an interval are never separated.
        """
        if self.method == "exact":
            return self.value != 0
        if self.low is None or self.high is None:
            return False
        return self.low > 0 or self.high < 0


SAME = 1e-12
"""Draws of a difference that differ by less than this share of it are equal but for rounding."""


def metric_difference(first: Record, second: Record, metric: str) -> Difference | None:
    """The metric of `first` minus that of `second`; None if either has no value."""
    a, b = first.metrics.get(metric), second.metrics.get(metric)
    if a is None or b is None or a.value is None or b.value is None:
        return None
    value = a.value - b.value
    if is_exact(first, metric) and is_exact(second, metric):
        return Difference(value, None, None, "exact")
    draws = _paired_draws(first, second, metric)
    if draws is not None and np.ptp(draws) <= SAME * max(abs(value), np.abs(draws).max()):
        return Difference(value, value, value, "paired")  # one change, draw by draw
    if draws is not None:
        found = _resamples(sample_count(first)).estimate(np.concatenate([[value], draws]))
        if found.low is not None:
            return Difference(value, found.low, found.high, "paired")
    halves = [half for half in (a.half_width, b.half_width) if half is not None]
    if len(halves) < 2:
        return Difference(value, None, None, "none")
    half = math.hypot(*halves)
    return Difference(value, value - half, value + half, "independent")


def is_exact(record: Record, metric: str) -> bool:
    """Whether a metric was not sampled: by its own account, or because nothing of the record was.

    What is exact for one weight set and its stimulus is sampled where there are several sets.
    """
    if record.images is None:
        return True
    from ...suites.registry import SUITES

    suite = SUITES.get(record.suite)
    known = next((m.exact for m in suite.metrics if m.name == metric), None) if suite else None
    return not_sampled(record, known or "estimate")


def not_sampled(record: Record, exactness: Exactness) -> bool:
    """Whether a metric of this exactness was not sampled for `record`."""
    one_set = exactness == "one weight set" and (record.model.members or 1) == 1
    return record.images is None or exactness == "always" or one_set


def sample_count(record: Record) -> int:
    """The number of independent samples behind a record's estimates: weight sets, else images."""
    count = record.images.count if record.images else 1
    members = record.model.members or 1
    return min(members, count) if members > 1 else count


def more_samples(record: Record) -> str:
    """What a user does to have more of the samples that `sample_count` counts."""
    if record.suite == "training":
        return "train with more seeds"
    members, count = record.model.members or 1, record.images.count if record.images else 1
    if members == 1 or count < members:
        return "measure with more images"
    return "measure with more weight sets" + (" and images" if count == members else "")


def _paired_draws(first: Record, second: Record, metric: str) -> Array | None:
    same = (
        first.seed == second.seed
        and sample_count(first) == sample_count(second)
        and [first.settings.get(n) for n in SAMPLE_NAMES]
        == [second.settings.get(n) for n in SAMPLE_NAMES]
    )
    if not same:
        return None
    a, b = first.draws_of(metric), second.draws_of(metric)
    return None if a is None or b is None or a.shape != b.shape else a - b


@cache
def _resamples(count: int) -> Bootstrap:
    """The bootstrap whose interval formula fits `count` samples; its weights are not used."""
    from ...suites.measuring.bootstrap import bootstrap

    return bootstrap(count, 1, 0)
