"""Comparing models: paired differences, where they diverge, and why they may not be comparable.

All models of a comparison are compared with one another, and the first one is the reference of the
others. The difference of a metric is *second minus first*, paired image by image (or weight set by
weight set) through the stored bootstrap draws. Its interval is simultaneous: the chance that any
interval of the main metrics of all pairs misses its difference is 5 %, and so it is for the other
metrics (see `statistics.significance`). Each metric of a pair has one of four verdicts (see
`result.RowVerdict`).

Records with different protocol versions, settings, images or preprocessing are refused (see
`compatibility`); `force` compares them anyway and says what differs. For two models of one
architecture the first stage or output at which they diverge is reported (see `divergence`).
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Unpack

from ...adapters.errors import InputError, UnknownNameError
from ..execution.all_scales import split_scale
from ..execution.audit import check_several
from ..execution.keywords import read_keywords
from ..execution.rerun import RerunOptions
from ..model_report.reported import defects_of, reported
from ..output.numbers import join_with_and
from ..records.record import damaged_arrays
from ..records.selection import meaningless, prefix_of
from ..statistics.significance import evidence
from .audited import MissingAudit
from .compatibility import UnlikeRecordsError, incompatibilities
from .data import to_cells, to_data
from .fingerprint import CELL
from .html import to_html
from .look import ReopenedModels
from .result import ComparisonResult, ComparisonRow, Pair, family_size, pair_of
from .sides import Side
from .sources import ONE_MODEL, open_sides
from .text import comparison_to_markdown, comparison_to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from ..execution.rerun import RerunFields
    from ..execution.settings import Settings
    from ..records.record import Record


class Comparison(ComparisonResult):
    """A comparison with its text, Markdown, data and notebook forms."""

    def text(
        self, *, width: int = 96, every: bool = False, pairs: Sequence[Pair] | None = None
    ) -> str:
        """The report for a terminal: all models side by side, then `pairs`.

        By default the one pair of two models, none of more models, and all of several runs. With
        `every`, all metrics of a pair and not only those that differ.
        """
        return comparison_to_text(self, width=width, every=every, pairs=pairs)

    def markdown(self, *, every: bool = False, pairs: Sequence[Pair] | None = None) -> str:
        """The same as Markdown."""
        return comparison_to_markdown(self, every=every, pairs=pairs)

    def cells(self) -> list[dict[str, Any]]:
        """All numbers, a flat dict for each metric of each pair."""
        return to_cells(self)

    def data(self) -> dict[str, Any]:
        """What it decides, the table of all models and all numbers, as plain values."""
        return to_data(self)

    def pair(self, first: str, second: str) -> Pair:
        """The pair of two models by their names, or enough of them, in either order.

        Raises `UnknownNameError`.
        """
        sides = {side.name: side for group in self.groups for side in group}
        found = [sides[_one_name(name, list(sides))] for name in (first, second)]
        pair = pair_of(self.pairs, *found)
        if pair is None:
            raise UnknownNameError(
                f"{found[0].name!r} and {found[1].name!r} were not compared with each other; "
                "name both in one command"
            )
        return pair

    def _repr_html_(self) -> str:
        return to_html(self)


def compare(
    *sides: Any,
    suites: Sequence[str] | None = None,
    settings: Settings | None = None,
    force: bool = False,
    stages: bool = True,
    nodes: bool = False,
    quantise_one_at_a_time: bool = False,
    known: Mapping[str, Suite] | None = None,
    names: Mapping[str, Any] = MappingProxyType({}),
    **options: Unpack[RerunFields],
) -> Comparison:
    """Compare `sides` with one another.

    A side is what `comparison.sources` describes: `DIR`, `DIR:MODEL`, a model reference (audited
    now), the records of one model variant, a module, an opened model. `suites` and `settings` are
    for models that are audited now; beside stored records the settings of those are used. `stages`
    opens stored models again to find the first stage at which features differ. `nodes` compares the
    nodes of variants of one graph with those of the first side (see `nodes`), and
    `quantise_one_at_a_time` adds what each layer costs in eight bits, if the first side is a float
    ONNX file. `known` are the suites whose metrics are described, by default those of this package;
    `names` are names for some of `sides`, or for further ones (`names={"A": "path/model.onnx"}`);
    `options` are the fields of `execution.rerun.RerunOptions`. A module is measured at the size of
    what it is compared with, and inputs that differ are refused before anything is measured. Raises
    `UnlikeRecordsError` unless `force` is set, and other subclasses of `PerimetryError`.

    >>> compare("timm:test_resnet@init", "timm:test_resnet@init+box").text()  # doctest: +SKIP
    """
    rerun_options = read_keywords(compare, RerunOptions, options)
    check_several("suites", suites)
    chosen = tuple(suites) if suites else None
    wanted = MissingAudit(settings, chosen, stages, rerun_options, force)
    groups, problems = open_sides(sides, wanted, names)
    if known is None:
        known = rerun_options.run.toolkit().suites
    pairs = _every_pair(groups, known, force=force)
    look = ReopenedModels(rerun_options, {id(group[0]) for group in groups})
    if stages:
        pairs = look.at_stages(pairs)
    if nodes or quantise_one_at_a_time:
        pairs = look.at_nodes(pairs, alone=quantise_one_at_a_time)
    columns = {
        f"{prefix_of(suite, protocol, known)}.{known[suite].headline}"
        for pair in pairs
        for suite, protocol in pair.first.records
        if suite in known
    }
    compared = [side for group in groups for side in group]
    damage = damaged_arrays(record for side in compared for record in side.records.values())
    return Comparison(
        _compared_together(pairs),
        (*problems, *damage),
        tuple(map(tuple, groups)),
        frozenset(columns),
        known,
    )


def _every_pair(
    groups: Sequence[Sequence[Side]], known: Mapping[str, Suite], *, force: bool
) -> list[Pair]:
    """All pairs of all groups. Raises `InputError` if there are none, and as `_pair` does."""
    pairs = [
        _pair(one, other, known, force=force, among=one is not group[0])
        for group in groups
        for one, other in _pairs_of(group)
    ]
    if not pairs:
        raise InputError(ONE_MODEL)
    return pairs


MOST_MODELS = 12
"""More models than these are compared with the first one only; a board ranks them."""


def _pairs_of(group: Sequence[Side]) -> list[tuple[Side, Side]]:
    """All pairs of a group, those with the first side at the beginning."""
    if len(group) > MOST_MODELS:
        return [(group[0], other) for other in group[1:]]
    return list(combinations(group, 2))


def _one_name(name: str, known: Sequence[str]) -> str:
    """The one of `known` that is `name` or contains it. Raises `UnknownNameError`."""
    found = [one for one in known if one == name] or [one for one in known if name in one]
    if len(found) != 1:
        raise UnknownNameError(
            f"{name!r} is the name of {len(found)} models here; expected one of "
            f"{join_with_and(list(known), 12)}"
        )
    return found[0]


def _pair(
    first: Side, second: Side, known: Mapping[str, Suite], *, force: bool, among: bool = False
) -> Pair:
    """All metrics of both, each compared alone. Raises `UnlikeRecordsError`, `InputError`.

    Two models `among` others, neither of which is the reference, may have no suite in common.
    """
    shared = [cell for cell in first.records if cell in second.records and cell != CELL]
    if not shared and not among:
        raise InputError(
            f"{first.name} and {second.name} have no suite and protocol in common: the first has "
            f"{_named(first.records)}, the second {_named(second.records)}"
        )
    found = _incompatibilities(first, second, shared)
    if found and not force:
        raise UnlikeRecordsError(
            f"{first.name} and {second.name} are not comparable: {'; '.join(found)}. Measure both "
            "with the same settings, or compare them anyway with --force"
        )
    rows: list[ComparisonRow] = []
    gaps = []
    for side, other in ((first, second), (second, first)):
        alone = [cell for cell in side.records if cell not in other.records and cell != CELL]
        gaps += [f"only {side.name} has {_named(alone)}"] if alone else []
    for cell in shared:
        a, b = first.records[cell], second.records[cell]
        gaps += [
            f"{':'.join(cell)} {record.status} for {side.name}: {record.why}"
            for record, side in ((a, first), (b, second))
            if record.status != "ok"
        ]
        rows += _rows(a, b, prefix_of(*cell, known), known.get(a.suite))
    if _identical(rows):
        rows = [replace(row, identical=True) for row in rows]
    ours, theirs = (_defects(side, known) for side in (first, second))
    return Pair(first, second, tuple(rows), tuple(gaps), tuple(found), defects=(ours, theirs))


def _identical(rows: Sequence[ComparisonRow]) -> bool:
    """Whether all is equal, bit for bit, and not only because no sample varies.

    The intervals of estimates that are at the end of their range say little of the model.
    """
    measured = [row for row in rows if row.evidence is not None]
    inside = any(
        row.first is not None
        and None not in (row.first.value, row.first.low, row.first.high)
        and row.first.low < row.first.value < row.first.high  # type: ignore[operator]
        for row in measured
    )
    exact = all(row.evidence and row.evidence.difference.method == "exact" for row in measured)
    return bool(measured) and all(row.equal for row in measured) and (inside or exact)


def _defects(side: Side, known: Mapping[str, Suite]) -> tuple[str, ...]:
    """What is NaN, infinite or constant, then the defects by suite, of all records of a side."""
    records = list(side.records.values())
    return (*meaningless(records), *defects_of(reported(records, known)))


def _incompatibilities(first: Side, second: Side, shared: Iterable[tuple[str, str]]) -> list[str]:
    """What differs, each phrase once, with its suites where it does not apply to all."""
    found: dict[str, list[str]] = {}
    cells = [
        cell
        for cell in shared
        if all(side.records[cell].status == "ok" for side in (first, second))
    ]
    for cell in cells:
        for phrase in incompatibilities(first.records[cell], second.records[cell]):
            found.setdefault(phrase, []).append(":".join(cell))
    return [
        text if len(where) == len(cells) else f"{text} ({', '.join(where)})"
        for text, where in found.items()
    ]


def _named(cells: Iterable[tuple[str, str]]) -> str:
    return ", ".join(":".join(cell) for cell in cells) or "nothing"


def _rows(a: Record, b: Record, prefix: str, suite: Suite | None) -> list[ComparisonRow]:
    """The metrics of both; those of a suite that failed for one of them are not comparable."""
    declared = {metric.name: metric for metric in suite.metrics} if suite else {}
    headline = suite.headline if suite else ""
    names = [*declared, *sorted({*a.metrics, *b.metrics} - declared.keys())]
    rows = []
    for name in (n for n in names if n in a.metrics or n in b.metrics):
        values = a.metrics.get(name), b.metrics.get(name)
        found = evidence(a, b, name)
        reason = next((v.reason for v in values if v and v.reason), "measured for one only")
        own, scale = split_scale(name)
        known = declared.get(own)
        leads = known is not None and scale is None and (known.main or own == headline)
        why = None if found else reason
        rows.append(ComparisonRow(f"{prefix}.{name}", known, *values, found, why, leads))
    return rows


def _compared_together(pairs: Sequence[Pair]) -> tuple[Pair, ...]:
    """The pairs with simultaneous intervals: of all main metrics, and of all others."""
    tests = {leading: family_size(pairs, leading=leading) for leading in (True, False)}

    def among(row: ComparisonRow) -> ComparisonRow:
        if row.evidence is None or not row.evidence.is_test:
            return row
        return replace(row, evidence=replace(row.evidence, tests=tests[row.leading]))

    return tuple(replace(pair, rows=tuple(map(among, pair.rows))) for pair in pairs)
