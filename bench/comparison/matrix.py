"""All models of a comparison side by side: models are columns, main metrics are rows.

Letters say which differences are shown: models that have a letter in common are not shown to
differ (compact letter display; Piepho 2004). They follow the verdicts of the pairs: a row without a
shown difference has none.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from string import ascii_lowercase
from typing import TYPE_CHECKING

from ...adapters.load import files_of
from ..model_report.dead_regions import can_hide
from ..model_report.reported import reported
from ..output.numbers import format_number, short_count, with_interval_text
from .result import RowVerdict, pair_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...suites.base import Metric
    from ..records.parts import Value
    from .divergence import StageDifference
    from .result import ComparisonResult, ComparisonRow, Pair
    from .sides import Side

NONE = "n/a"


@dataclass(frozen=True)
class MatrixRow:
    """One row: a name, and a text for each model, with its letters where a difference is shown."""

    name: str
    cells: tuple[str, ...]
    letters: tuple[str, ...] = ()
    metric: Metric | None = None
    pairs: tuple[tuple[int, int, ComparisonRow], ...] = ()
    """The places of two models, and their comparison."""

    @property
    def shown(self) -> list[str]:
        """The cells with their letters."""
        letters = self.letters or ("",) * len(self.cells)
        return [f"{c} {n}".rstrip() for c, n in zip(self.cells, letters, strict=True)]


@dataclass(frozen=True)
class Matrix:
    """The models of one group, and the rows: dead regions, outputs, metrics, size and cost."""

    sides: tuple[Side, ...]
    defects: tuple[tuple[str, ...] | None, ...]
    """Certain defects of each model in clauses; None where no suite looked for them."""
    hidden: tuple[tuple[str, ...], ...]
    """What those suites do not count or cannot see, for each model, in clauses."""
    metrics: tuple[MatrixRow, ...]
    outputs: MatrixRow
    size: tuple[MatrixRow, ...]
    pairs: tuple[Pair, ...]

    @property
    def rows(self) -> list[MatrixRow]:
        """All rows in order."""
        texts = [
            "not looked for"
            if own is None
            else "yes, see above"
            if own
            else "none, but see above"
            if hidden
            else "none"
            for own, hidden in zip(self.defects, self.hidden, strict=True)
        ]
        return [MatrixRow("dead regions", tuple(texts)), self.outputs, *self.metrics, *self.size]


def matrix_of(found: ComparisonResult, group: tuple[Side, ...]) -> Matrix:
    """The models of `group` side by side."""
    places = {id(side): place for place, side in enumerate(group)}
    pairs = [p for p in found.pairs if id(p.first) in places and id(p.second) in places]
    columns = dict.fromkeys(row.column for pair in pairs for row in pair.rows if row.leading)
    metrics = [_metric_row(column, pairs, places) for column in columns]
    metrics.sort(key=lambda row: row.name not in found.headlines)
    return Matrix(
        group,
        tuple(_defects(pairs, side) for side in group),
        tuple(can_hide([*side.records.values()], found.suites) for side in group),
        tuple(metrics),
        _outputs(pairs, group),
        tuple(_sizes(group)),
        tuple(pairs),
    )


def _defects(pairs: Iterable[Pair], side: Side) -> tuple[str, ...] | None:
    """Certain defects of one model; None where no record is of a suite that finds them."""
    found: dict[str, None] = {}
    for pair in pairs:
        for one, own in zip((pair.first, pair.second), pair.defects, strict=True):
            found |= dict.fromkeys(own) if one is side else {}
    from ...suites.registry import SUITES

    looked = any(one.looked for one in reported(side.records.values(), SUITES))
    return tuple(found) if looked or found else None


def _metric_row(column: str, pairs: Sequence[Pair], places: dict[int, int]) -> MatrixRow:
    values: dict[int, Value | None] = {}
    compared = []
    metric = None
    for pair in pairs:
        row = pair.by_column.get(column)
        if row is not None:
            one, other = places[id(pair.first)], places[id(pair.second)]
            values |= {one: row.first, other: row.second}
            compared.append((one, other, row))
            metric = row.metric
    cells = tuple(
        with_interval_text(v.value, v.low, v.high) if v and v.value is not None else NONE
        for v in map(values.get, range(len(places)))
    )
    apart = {(i, j) for i, j, row in compared if row.verdict is RowVerdict.differs}
    known = [place for place, value in values.items() if value and value.value is not None]
    return MatrixRow(
        column,
        cells,
        significance_letters(len(places), sorted(known), apart),
        metric,
        tuple(compared),
    )


def significance_letters(
    count: int, known: Sequence[int], apart: set[tuple[int, int]]
) -> tuple[str, ...]:
    """Letters of each of `count` models: `known` ones share one unless they are `apart`."""
    if not apart:
        return ()
    groups = [set(known)]
    for i, j in sorted(apart):
        split = [g - {one} for g in groups if {i, j} <= g for one in (i, j)]
        kept = [g for g in groups if not {i, j} <= g]
        for new in split:
            if not any(new <= other for other in kept):
                kept = [*(g for g in kept if not g <= new), new]
        groups = kept
    groups.sort(key=sorted)
    return tuple(
        "".join(ascii_lowercase[k % 26] for k, group in enumerate(groups) if place in group)
        for place in range(count)
    )


def _outputs(pairs: Sequence[Pair], group: Sequence[Side]) -> MatrixRow:
    """How far the outputs of the others are from those of the first model."""
    found = ["reference"]
    for side in group[1:]:
        pair = pair_of(pairs, group[0], side)
        gap = None if pair is None else output_difference(pair)
        found.append(NONE if gap is None else share(gap.difference))
    return MatrixRow("outputs against the first", tuple(found))


def output_difference(pair: Pair) -> StageDifference | None:
    """The output that differs most between a pair, relatively; None where it is not known."""
    return max(pair.outputs, key=lambda output: output.difference, default=None)


def share(value: float) -> str:
    """A relative difference for a reader."""
    if value == 0:
        return "equal"
    if not math.isfinite(value):
        return "unlike"
    return f"{format_number(100 * value, 2)} %" if value >= 1e-4 else f"{value:.0e}"


def _sizes(group: Sequence[Side]) -> list[MatrixRow]:
    """Parameters, operations and file size in bytes."""
    models = [next(iter(side.records.values())).model for side in group]
    return [
        MatrixRow("parameters", tuple(_amount(m.parameters) for m in models)),
        MatrixRow("MACs of one image", tuple(_amount(m.macs) for m in models)),
        MatrixRow("file size in bytes", tuple(_amount(_bytes(side)) for side in group)),
    ]


def _amount(count: int | None) -> str:
    return NONE if count is None else short_count(count)


def _bytes(side: Side) -> int | None:
    """The size of the model's files, external data included; None if it has none here."""
    try:
        named = {p.resolve() for p in files_of(side.reference)}
        files = [p for p in named if p.suffix != ".toml" and p.is_file()]
        return sum(p.stat().st_size for p in files) or None
    except (OSError, ValueError):
        return None
