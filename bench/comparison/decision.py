"""What a comparison of models decides, in sentences: first what a buyer needs, without any ranking.

Dead regions, fidelity, evenness, border and size come first, then what differs for certain, and
what these samples are too few to show, with how many would (see `statistics.significance`). Only
differences that are shown are reported as such. Numbers that grow with the scale of the output are
left to the table.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..output.numbers import format_number, join_with_and
from .divergence import DIVERGED
from .matrix import NONE, output_difference, share
from .result import NOT_LOOKED, RowVerdict, pair_of
from .sides import why_not_measured

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Metric, Suite
    from .matrix import Matrix, MatrixRow
    from .result import ComparisonResult, ComparisonRow, Pair


FIRST = ("Fidelity", "Evenness", "Border")
"""Topics that come first, and that are missed where they were not measured."""

MOST = 6
"""Number of pairs or metrics that a sentence names."""

TOO_MANY = 100_000
"""More samples than these are called more than these."""


@dataclass(frozen=True)
class Finding:
    """A sentence and what it is about."""

    topic: str
    text: str

    def __str__(self) -> str:
        return f"{self.topic}: {self.text}"


def decision(found: ComparisonResult, matrix: Matrix) -> list[Finding]:
    """The sentences about the models of `matrix`; the suites say what their metrics are about."""
    known = found.suites
    topics = _topics(found, matrix, known)
    outputs = _fidelity(found, matrix)
    order = dict.fromkeys([*FIRST, *topics])
    broken = [(s.name, why) for s in matrix.sides if (why := why_not_measured(s)) is not None]
    findings = [Finding("Not measured", f"{name}: {why.rstrip('.')}.") for name, why in broken]
    findings.append(Finding("Dead regions", _dead(matrix)))
    for topic in order:
        texts = [_relation(row, matrix) for row in topics.get(topic, [])]
        texts = [*outputs, *texts] if topic == "Fidelity" else texts
        names = [name for name, suite in known.items() if suite.topic == topic]
        how = f" (--suite {' or '.join(names)})" if names else ""
        texts = texts or [f"not measured{how}"]
        findings.append(Finding(topic, "; ".join(texts) + "."))
    findings.append(Finding("Size and cost", _size(matrix)))
    more = {
        "Further differences": _further(found, matrix),
        "Too few samples to say": _unknown(found, matrix),
        "Comparisons": _counts(matrix.pairs),
    }
    return [*findings, *(Finding(topic, text) for topic, text in more.items() if text)]


def _topics(
    found: ComparisonResult, matrix: Matrix, known: Mapping[str, Suite]
) -> dict[str, list[MatrixRow]]:
    """The headline metrics by topic."""
    topics: dict[str, list[MatrixRow]] = {}
    for row in matrix.metrics:
        suite = known.get(row.name.partition(".")[0].partition(":")[0])
        if row.name in found.headlines and not (row.metric and row.metric.scales):
            topics.setdefault((suite and suite.topic) or row.name.partition(".")[0], []).append(row)
    return topics


def _dead(matrix: Matrix) -> str:
    """Which models have dead regions, and where."""
    sides = list(zip(matrix.sides, matrix.defects, matrix.hidden, strict=True))
    texts = [f"{side.name} ({'; '.join([*own, *hidden])})" for side, own, hidden in sides if own]
    groups: dict[tuple[str, str], list[str]] = {}
    for side, own, hidden in sorted(sides, key=lambda one: one[1] is None):
        if not own:
            words = "was not looked at" if own is None else "has none"
            groups.setdefault((words, "; ".join(hidden)), []).append(side.name)
    for (words, hidden_text), names in groups.items():
        said = f"{join_with_and(names, len(names))} {_plural(words, names)}"
        texts.append(f"{said} ({hidden_text})" if hidden_text else said)
    return "; ".join(texts) + "."


def _plural(words: str, names: Sequence[str]) -> str:
    if len(names) == 1:
        return words
    return words.replace("has ", "have ").replace("was ", "were ").replace("is ", "are ")


def _fidelity(found: ComparisonResult, matrix: Matrix) -> list[str]:
    """How far the outputs of the others are from those of the first model."""
    first, *others = matrix.sides
    equal, same, apart, unlike, unknown = [], [], [], [], []
    for side in others:
        pair = pair_of(found.pairs, first, side)
        gap = output_difference(pair) if pair is not None else None
        if gap is None:
            unknown.append(side.name)
        elif gap.difference == 0:
            equal.append(side.name)
        elif gap.difference <= DIVERGED:
            same.append(side.name)
        elif math.isfinite(gap.difference):
            apart.append(f"those of {side.name} differ by {share(gap.difference)}")
        else:
            unlike.append(f"{side.name} ({gap.why or 'values that are not finite'})")
    texts = []
    if unlike:
        texts.append(f"outputs of another kind than those of {first.name}: {join_with_and(unlike)}")
    if apart:
        texts.append(f"compared with the outputs of {first.name}, {join_with_and(apart)}")
    for names, within in ((equal, "exactly"), (same, f"to {share(DIVERGED)}")):
        if names:
            gives = "gives" if len(names) == 1 else "give"
            outputs = f"the outputs of {first.name} {within}, on these images"
            texts.append(f"{join_with_and(names)} {gives} {outputs}")
    if unknown:
        texts.append(f"the outputs of {join_with_and(unknown)} were not compared with them")
    if len(unknown) < len(others):
        return texts
    pairs = [pair_of(found.pairs, first, side) for side in others]
    whys = (p.stages for p in pairs if p is not None and isinstance(p.stages, str))
    why = next((why for why in whys if why != NOT_LOOKED), None)
    return [f"the outputs were not compared{f': {why}' if why else ' (--stages)'}"]


def _relation(row: MatrixRow, matrix: Matrix) -> str:
    """Which models are shown to be more even (or higher) than which others in one metric."""
    above = _above(row)
    label = _label(row)
    clauses = _clauses(row, above, [side.name for side in matrix.sides])
    if len(clauses) > MOST:
        count = sum(map(len, above.values()))
        return f"{label} differs in {count} of {len(row.pairs)} pairs (letters in the table)"
    if clauses:
        return f"{label}: {', and '.join(clauses)}"
    verdicts = {compared.verdict for *_, compared in row.pairs} - {RowVerdict.missing}
    if RowVerdict.differs in verdicts:
        return f"{label}: the differences that are shown are below 2 % or 0.01"
    if verdicts == {RowVerdict.alike}:
        known = [(s.name, c) for s, c in zip(matrix.sides, row.cells, strict=True) if c != NONE]
        where = (
            _all(matrix) if len(known) == len(row.cells) else join_with_and([n for n, _ in known])
        )
        return f"{label} is alike in {where} ({known[0][1]})"
    if not verdicts:
        return f"{label} was measured for fewer than two"
    return f"{label}: no difference is shown"


def _above(row: MatrixRow) -> dict[int, list[int]]:
    """The places of models, and of those that they are shown to be above by more than a margin."""
    above: dict[int, list[int]] = {}
    for one, other, compared in row.pairs:
        if compared.shown and compared.evidence is not None and not compared.small:
            rises = compared.evidence.difference.value > 0
            upwards = row.metric is None or row.metric.better != "lower"
            upper, lower = (other, one) if rises == upwards else (one, other)
            above.setdefault(upper, []).append(lower)
    return above


def _clauses(row: MatrixRow, above: Mapping[int, list[int]], names: Sequence[str]) -> list[str]:
    """A clause for all models that are above the same others."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for upper, below in sorted(above.items()):
        groups.setdefault(tuple(sorted(below)), []).append(f"{names[upper]} ({row.cells[upper]})")
    return [
        f"{join_with_and(uppers)} {'is' if len(uppers) == 1 else 'are'} {_word(row.metric)} "
        f"than {join_with_and([f'{names[i]} ({row.cells[i]})' for i in below])}"
        for below, uppers in groups.items()
    ]


def _all(matrix: Matrix) -> str:
    return "both" if len(matrix.sides) == 2 else "all"


def _label(row: MatrixRow) -> str:
    words = row.metric.label if row.metric else ""
    return f"{words} ({row.name})" if words else row.name


def _word(metric: Metric | None) -> str:
    """The comparative of what the better direction means."""
    if metric is None or metric.better == "neither" or metric.even is None:
        lower = metric is not None and metric.better == "lower"
        return "lower" if lower else "higher"
    off, even = metric.verdicts
    return "more even" if even == "even" else f"less {off}"


def _size(matrix: Matrix) -> str:
    """Parameters, MACs and bytes: one number where all are equal."""
    texts = []
    for row in matrix.size:
        if len(set(row.cells)) == 1:
            known = row.cells[0] != NONE
            same = f"{row.name} {row.cells[0]} in {_all(matrix)}"
            texts.append(same if known else f"{row.name} not known")
        else:
            names = [s.name for s in matrix.sides]
            own = [f"{c} ({n})" for c, n in zip(row.cells, names, strict=True) if c != NONE]
            texts.append(f"{row.name} {join_with_and(own, len(own))}")
    return "; ".join(texts) + "."


def counts_of(rows: Iterable[ComparisonRow]) -> str:
    """How many metrics have each verdict, which adds up: `12: 3 differ, 6 are alike, ...`."""
    counted = Counter(row.verdict for row in rows)
    parts = [f"{counted[verdict]} {verdict.value}" for verdict in RowVerdict]
    return f"{sum(counted.values())}: {', '.join(parts)}"


def _further(found: ComparisonResult, matrix: Matrix) -> str:
    """The main metrics besides the headlines that differ."""
    counted = Counter(
        row.column
        for pair in matrix.pairs
        for row in pair.rows
        if row.leading and row.shown and row.column not in found.headlines and not row.scales
    )
    of = f" of {len(matrix.pairs)} pairs" if len(matrix.pairs) > 1 else ""
    names = [f"{name} ({n}{of})" if of else name for name, n in counted.items()]
    return f"shown in {join_with_and(names, len(names))}." if names else ""


def _counts(pairs: Sequence[Pair]) -> str:
    """How all comparisons add up."""
    rows = [row for pair in pairs for row in pair.rows]
    missed = sum(all(row.evidence is None for row in pair.rows) for pair in pairs)
    of = f"of {len(pairs)} pairs, " if len(pairs) > 1 else ""
    of += f"{missed} of which could not be measured, " if missed else ""
    main = counts_of(row for row in rows if row.leading)
    return f"{of}main metrics {main}; all metrics {counts_of(rows)}."


def _unknown(found: ComparisonResult, matrix: Matrix) -> str:
    """The main metrics in which these samples show no difference, and how many samples would.

    Headline metrics have their pairs; of the others the smallest number is said. Where every sample
    is the same in both models, no number of such samples would show a difference.
    """
    texts, samples = [], {0}
    for row in matrix.metrics:
        left = [(i, j, c) for i, j, c in row.pairs if c.verdict is RowVerdict.unknown]
        left = [(i, j, c) for i, j, c in left if c.evidence is None or c.evidence.difference.value]
        if left:
            samples |= {c.evidence.samples for *_, c in left if c.evidence}
            pairs = _pairs_left(left, matrix) if row.name in found.headlines else _least(left)
            texts.append(f"{row.name} {pairs}")
    if not texts:
        return ""
    members = max(r.model.members or 1 for s in matrix.sides for r in s.records.values())
    unit = "weight sets" if members > 1 else "images"
    return (
        f"with {max(samples)} {unit}, {'; '.join(texts)}. The numbers are how many would "
        "show a difference as large as the one that was measured; the true one may be smaller."
    )


def _pairs_left(left: Sequence[tuple[int, int, ComparisonRow]], matrix: Matrix) -> str:
    """`of A and B (about 40), A and C (about 900)`."""
    names = [side.name for side in matrix.sides]
    parts = [f"{names[i]} and {names[j]} ({needed(c)})" for i, j, c in left[:MOST]]
    parts += [f"{len(left) - MOST} more pairs"] if len(left) > MOST else []
    return f"of {', '.join(parts)}"


def _least(left: Sequence[tuple[int, int, ComparisonRow]]) -> str:
    """`(3 pairs, from about 40)`."""

    def to_show(row: ComparisonRow) -> float:
        found = row.evidence
        return found.samples_to_show() if found and found.half is not None else math.inf

    count = f"{len(left)} pairs, from " if len(left) > 1 else ""
    return f"({count}{needed(min((row for *_, row in left), key=to_show))})"


def needed(row: ComparisonRow) -> str:
    """About how many samples would show the difference that was measured."""
    if row.evidence is None or row.evidence.half is None:
        return "too few samples for an interval"
    count = row.evidence.samples_to_show()
    if count > TOO_MANY:
        return f"more than {TOO_MANY:,}"
    rounded = float(f"{max(count, row.evidence.samples + 1):.1e}")  # to two digits
    return f"about {format_number(rounded, 6)}"
