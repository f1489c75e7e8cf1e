"""A row of the board: one model variant, its records, and what is ranked of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit

from ...suites.measuring.bootstrap import ROUNDING
from ..output.files import try_or_none
from ..records.selection import family, input_size
from ..statistics.difference import SAMPLE_NAMES, not_sampled, sample_count
from ..statistics.ranks import Rank, Ranked

if TYPE_CHECKING:
    from ...suites.base import Metric
    from ..records.parts import Value
    from ..records.record import Record


SIZES = ("model.parameters", "model.macs")
"""Columns with the size of the model, which rank the smallest first; MACs are for one image."""


FACTS = ("library", "target", "reason", "family", "input", "precision")
"""What else the frame says of the model, as `model.library`: what built it, the measured tensor,
why that was taken, its family, input size and the precision of the measurement."""


@dataclass
class BoardRow:
    """One model variant and its records by column prefix, such as `erf` or `erf:kim2023`."""

    model: str
    fill: str
    records: dict[str, Record]
    rank: Rank | None = None

    def find(self, column: str) -> tuple[Record | None, str]:
        """The record behind a column, and the metric's name in it."""
        prefix, _, metric = column.partition(".")
        return self.records.get(prefix), metric

    def size(self, name: str) -> int | None:
        """Parameters or MACs of the model, whichever record has them."""
        values = (getattr(record.model, name) for record in self.records.values())
        return next((value for value in values if value is not None), None)

    def value(self, column: str) -> float | None:
        """The number in `column`, or None."""
        if column in SIZES:
            return self.size(column.partition(".")[2])
        record, metric = self.find(column)
        found = record.metrics.get(metric) if record else None
        return found.value if found else None


def ranked_value(row: BoardRow, column: str, metric: Metric | None, sign: int) -> Ranked | None:
    """The value of `row` in `column` as `rank_rows` takes it."""
    if column in SIZES:
        size = row.value(column)
        return None if size is None else Ranked(-size, error=0.0, group=row.model)
    record, name = row.find(column)
    found = record.metrics.get(name) if record else None
    if record is None or found is None or found.value is None:
        return None
    if record.images is None and found.low is None:
        return Ranked(sign * found.value)
    samples = sample_count(record)
    draws = try_or_none(record.draws_of, name) if record.images else None
    if draws is not None and np.ptp(draws) > ROUNDING * abs(found.value):
        group = str([record.seed, samples, *(record.settings.get(n) for n in SAMPLE_NAMES)])
        return Ranked(sign * found.value, sign * draws, samples=samples, group=group)
    return Ranked(
        sign * found.value,
        error=_error(record, metric, found),
        samples=samples,
        group=f"{row.model} {row.fill}",
    )


def _error(record: Record, metric: Metric | None, found: Value) -> float | None:
    """Standard error of a value without draws: 0 if it is exact, None if it is unknown."""
    half = found.half_width
    if half is not None:
        return half / float(stdtrit(max(sample_count(record) - 1, 1), 0.975))
    return 0.0 if not_sampled(record, metric.exact if metric else "estimate") else None


def row_facts(row: BoardRow) -> dict[str, str | None]:
    """The `FACTS` of a row, of the first record that has a target or an input size."""
    records = list(row.records.values())
    model = next((r.model for r in records if r.model.target), records[0].model)
    best = next((record for record in records if record.model.spec), records[0])
    target = model.target or {}
    name = "{name} ({channels} x {height} x {width})".format(**target) if target else None
    precisions = (record.settings.get("precision") for record in records)
    found = (
        *(model.library, name, target.get("reason"), family(best), input_size(best)),
        next((str(one) for one in precisions if one), None),
    )
    return dict(zip(FACTS, found, strict=True))
