"""The report of `perimetry train`: metrics and their paired differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...suites.measuring.bootstrap import MIN_SAMPLES
from ...suites.training.suite import TRAINING
from ..output.layout import tabulated
from ..statistics.difference import metric_difference
from .study import pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.parts import Value
    from ..records.record import Record
    from ..statistics.difference import Difference
    from .experiment import Result


HEADS = ("task", "metric", "fill", "value", "minus none")

REPORTED_METRICS = (
    *("accuracy", "mean_accuracy", "epochs_to_90", "reached_90", "phase_weakest"),
    *(
        "phase_spread",
        "phase_agreement",
        "weakest_start",
        "weakest_end",
        "imbalance_start",
        "imbalance_end",
    ),
    *("erf_start", "erf_end", "erf_growth"),
)


def training_table(records: Sequence[Record]) -> str:
    """A table of `REPORTED_METRICS`, with differences from the network without padding.

    Intervals are 95 %, over seeds; differences are paired seed by seed.
    """
    plain = {treated.key: untreated for treated, untreated in pairs(list(records))}
    rows = []
    for task in TRAINING.protocols:
        own = [record for record in records if record.protocol == task]
        for metric in REPORTED_METRICS:
            if task == "classification" and metric.startswith("phase_"):
                continue
            for record in own:
                base = plain.get(record.key)
                change = metric_difference(record, base, metric) if base else None
                cells = (
                    with_interval(record.metrics[metric]),
                    difference_text(change) if change else "",
                )
                rows.append((task, metric, record.fill, *cells))
    return tabulated(HEADS, rows)


def with_interval(value: Value) -> str:
    """`0.912 [0.901, 0.923]`, or the reason why there is none."""
    if value.value is None:
        return f"none: {value.reason}"
    if value.low is None or value.high is None:
        return f"{value.value:.3f}"
    return f"{value.value:.3f} [{value.low:.3f}, {value.high:.3f}]"


def difference_text(change: Difference) -> str:
    """A difference with its interval, and a star if that excludes 0."""
    if change.low is None or change.high is None:
        return f"{change.value:+.3f}"
    star = " *" if change.separated else ""
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]{star}"


def seeds_text(seeds: set[int]) -> str:
    """Sentences: the number of seeds, and whether they give intervals."""
    counts = " or ".join(map(str, sorted(seeds)))
    plural = "" if seeds == {1} else "s"
    if max(seeds) < MIN_SAMPLES:
        return (
            f"Means over {counts} seed{plural}; differences are paired by seed. Fewer than "
            f"{MIN_SAMPLES} seeds give no confidence intervals; use --seeds {MIN_SAMPLES} or more."
        )
    few = f" for tasks with at least {MIN_SAMPLES}" if min(seeds) < MIN_SAMPLES else ""
    return (
        f"Means over {counts} seeds with 95 % intervals{few}; differences are paired by seed, * "
        "where the interval excludes 0."
    )


def training_summary(result: Result) -> str:
    """The table, a legend, and the remaining runs."""
    lines = []
    if result.records:
        seeds = {len(record.settings["seeds"]) for record in result.records}
        lines = [training_table(result.records), seeds_text(seeds)]
    if result.remaining:
        lines.append(
            f"The time limit was reached with {len(result.remaining)} "
            f"{'run' if len(result.remaining) == 1 else 'runs'} remaining, the next one "
            f"{result.remaining[0].label}; the same command resumes there."
        )
    return "\n".join(lines)
