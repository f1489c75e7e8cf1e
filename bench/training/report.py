"""What `perimetry train` says in the end: metrics of the twins, and their paired differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...suites.measuring.bootstrap import MIN_SAMPLES
from ...suites.training.suite import TRAINING
from ..statistics.difference import metric_difference
from .study import pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.record import Record, Value
    from ..statistics.difference import Difference
    from .experiment import Result


HEADS = ("task", "metric", "fill", "value", "less none")


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


def training_table(records: Sequence[Record], form: str = "simple") -> str:
    """Every told metric of every twin, with its difference from the untreated one.

    Intervals are 95 %, over seeds; differences are paired seed by seed. `form` is tabulate's.
    """
    from tabulate import tabulate

    plain = {treated.key: untreated for treated, untreated in pairs(list(records))}
    rows = []
    for task in TRAINING.protocols:
        own = [record for record in records if record.protocol == task]
        for metric in REPORTED_METRICS:
            if task == "classification" and metric.startswith("phase_"):
                continue
            for record in own:
                twin = plain.get(record.key)
                change = metric_difference(record, twin, metric) if twin else None
                cells = (
                    with_interval(record.metrics[metric]),
                    difference_text(change) if change else "",
                )
                rows.append((task, metric, record.fill, *cells))
    text: str = tabulate(rows, HEADS, tablefmt=form, disable_numparse=True)
    return text


def with_interval(held: Value) -> str:
    """`0.912 [0.901, 0.923]`, or the reason why there is none."""
    if held.value is None:
        return f"none: {held.reason}"
    if held.low is None or held.high is None:
        return f"{held.value:.3f}"
    return f"{held.value:.3f} [{held.low:.3f}, {held.high:.3f}]"


def difference_text(change: Difference) -> str:
    """A difference with its interval, and a star where that leaves out 0."""
    if change.low is None or change.high is None:
        return f"{change.value:+.3f}"
    star = " *" if change.separated else ""
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]{star}"


def _made_of(seeds: set[int]) -> str:
    """How many seeds are behind the numbers, and what they allow to say."""
    counts = " or ".join(map(str, sorted(seeds)))
    plural = "" if seeds == {1} else "s"
    if max(seeds) < MIN_SAMPLES:
        return (
            f"Means over {counts} seed{plural}; differences are paired by seed. Fewer than "
            f"{MIN_SAMPLES} seeds give no intervals: --seeds {MIN_SAMPLES} would."
        )
    few = f", which fewer than {MIN_SAMPLES} seeds do not give" if min(seeds) < MIN_SAMPLES else ""
    return (
        f"Means over {counts} seeds with 95 % intervals{few}; differences are paired by seed, * "
        "where the interval leaves out 0."
    )


def training_summary(result: Result) -> str:
    """The table, what its signs mean, and what is still to do."""
    lines = []
    if result.records:
        seeds = {len(record.settings["seeds"]) for record in result.records}
        lines = [training_table(result.records), _made_of(seeds)]
    if result.undone:
        lines.append(
            f"The budget ended with {len(result.undone)} "
            f"{'twin' if len(result.undone) == 1 else 'twins'} undone, the next being "
            f"{result.undone[0].label}; the same command goes on there."
        )
    return "\n".join(lines)
