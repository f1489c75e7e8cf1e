"""The verdict of a comparison in sentences: defects, the largest differences, the first stage.

The absence of a significant difference is never reported as equality: the verdict says how large a
difference in the headline metrics is still possible.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ..output.numbers import format_number, join_with_and
from ..output.text import clean
from .decision import counts_of
from .divergence import DIVERGED, first_divergent_stage, looked_at
from .result import NOT_LOOKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .divergence import StageDifference
    from .result import ComparisonRow, Pair


MOST_SENTENCES = 5


def verdict(pair: Pair, headlines: frozenset[str]) -> list[str]:
    """What the pair shows, in a few sentences; certain defects come first."""
    return [*_defects(pair), *_differences(pair, headlines)]


def _defects(pair: Pair) -> list[str]:
    """A sentence each: defects of the second alone, of the first alone, and of both."""
    first, second = pair.defects
    kinds = {
        f"{pair.second.name} alone": [text for text in second if text not in first],
        f"{pair.first.name} alone": [text for text in first if text not in second],
        "both": [text for text in first if text in second],
    }
    return [f"Defects of {whose}: {'; '.join(texts)}." for whose, texts in kinds.items() if texts]


def _differences(pair: Pair, headlines: frozenset[str]) -> list[str]:
    """How many metrics differ, the largest differences, and where features diverge."""
    largest = _largest(pair.differing, headlines)
    counts = f"Metrics, {counts_of(pair.rows)}."
    measured_rows = [row for row in pair.rows if row.evidence is not None]
    if not measured_rows:
        return ["No metric was measured for both, so they cannot be compared.", *_divergence(pair)]
    if not largest:
        return [_nothing_shown(measured_rows, headlines), counts, *_divergence(pair)]
    leading = [row for row in largest if not row.scales]
    sentences = [_sentence(row) for row in (leading or largest)[:MOST_SENTENCES]]
    more = len(largest) - len(sentences)
    if more > 0:
        sentences.append(f"The table below has {more} more.")
    lead = f"They differ in {len(largest)} of {len(measured_rows)} metrics{_kinds(largest)}."
    return [lead, counts, *sentences, *_divergence(pair)]


def _kinds(rows: Sequence[ComparisonRow]) -> str:
    """How many are estimates and exact values, and whether all depend on the output's scale."""
    exact = sum(row.evidence is not None and row.evidence.p is None for row in rows)
    texts = [f"{len(rows) - exact} estimates, {exact} exact values"] if exact else []
    texts += ["all grow with the scale of the output"] if all(row.scales for row in rows) else []
    return f" ({'; '.join(texts)})" if texts else ""


def _largest(rows: Sequence[ComparisonRow], headlines: frozenset[str]) -> list[ComparisonRow]:
    """Headlines, main metrics, estimates by effect, exact values; what is small or scales last."""
    return sorted(
        rows,
        key=lambda row: (
            row.scales,
            row.small,
            row.column not in headlines,
            not row.leading,
            -_effect(row),
        ),
    )


def _effect(row: ComparisonRow) -> float:
    """The effect size of a difference; infinite for estimates without any spread."""
    found = row.evidence
    if found is None or found.p is None:
        return -1.0
    return abs(found.effect) if found.effect is not None else math.inf


def _sentence(row: ComparisonRow) -> str:
    """A sentence: whether a metric is higher or lower, by how much, and what that means."""
    if row.evidence is None or row.first is None or row.second is None:
        return ""
    gap = row.evidence.difference
    direction = "higher" if gap.value > 0 else "lower"
    values = f"{format_number(row.first.value or 0.0)} to {format_number(row.second.value or 0.0)}"
    return (
        f"{row.column} is {direction} by {format_number(abs(gap.value))} ({values}){_meaning(row)}."
    )


def _meaning(row: ComparisonRow) -> str:
    """What the direction means, where the metric has a value on an even model."""
    metric = row.metric
    if metric is None or metric.better == "neither" or metric.even is None:
        return ""
    before, after = (abs((v.value or 0.0) - metric.even) for v in (row.first, row.second) if v)
    return ", nearer to even" if after < before else ", further from even"


def _nothing_shown(rows: Sequence[ComparisonRow], headlines: frozenset[str]) -> str:
    """A sentence: no significant difference, and how large one could still be."""
    if all(row.identical for row in rows):
        return f"All {len(rows)} metrics are equal, bit for bit."
    hidden = [
        f"{row.column} by {format_number(reach)}"
        for row in rows
        if row.column in headlines and (reach := _reach(row)) is not None
    ]
    most = f": they may still differ in {join_with_and(hidden)}" if hidden else ""
    return (
        f"None of {len(rows)} metrics differs significantly. That does not prove that the two are "
        f"equal{most}."
    )


def _reach(row: ComparisonRow) -> float | None:
    """How far from 0 the interval of the difference goes."""
    found = row.evidence
    if found is None or found.low is None or found.high is None:
        return None
    return max(abs(found.low), abs(found.high)) or None


def _divergence(pair: Pair) -> list[str]:
    """Sentences: the first stage, or the outputs, at which the two diverge; what was looked at."""
    left_out = [f"Not looked at: {text}." for text in pair.unread]
    changed = [p for p in pair.outputs if p.exceeds(DIVERGED)]
    if isinstance(pair.stages, str):
        if pair.stages == NOT_LOOKED:
            return []
        sentences = [f"The stage at which they diverge is not known: {pair.stages}."]
        if changed:
            sentences.append(f"They differ {_of_outputs(changed)}.")
        elif pair.outputs:
            most = max(p.difference for p in pair.outputs)
            sentences.append(f"Their outputs agree {_within(most)}.")
        return [*sentences, *left_out]
    stages = [p for p in pair.stages if not p.output]
    found = first_divergent_stage(stages)
    sentences = [_of_stages(stages, found)] if found else []
    if changed:
        agree = ""
        if stages and not found:
            most = max(p.difference for p in stages)
            agree = f"; features of all {len(stages)} stages agree {_within(most)}"
        sentences.append(f"They diverge {_of_outputs(changed)}{agree}.")
    if not sentences:
        sentences.append(_same(pair))
    return [*sentences, *left_out]


def _same(pair: Pair) -> str:
    """A sentence: what agrees; the same function only if every output does."""
    found = list(pair.stages) if not isinstance(pair.stages, str) else []
    whole = ": the same function on these images" if not pair.unread else ""
    most = max((p.difference for p in found), default=0.0)
    return f"They agree at {looked_at(found)}, {_within(most)}{whole}."


def _of_stages(stages: Sequence[StageDifference], found: StageDifference) -> str:
    """A sentence about the first stage that diverges."""
    place = list(stages).index(found)
    before = max((p.difference for p in stages[:place]), default=0.0)
    text = (
        f"They diverge at stage {place + 1} of {len(stages)}, {_place(found)}, where features "
        f"differ by {_share(found.difference)}"
    )
    text += f", a shift by {found.shift} (rows, columns)" if found.shift else ""
    text += f"; up to there they agree {_within(before)}" if place else ""
    return f"{text}. At the last stage: {_share(stages[-1].difference)}."


def _of_outputs(changed: Sequence[StageDifference]) -> str:
    """The outputs that diverge, by name, with their differences."""
    parts = [f"at output {_place(p)} {_how(p)}" for p in changed[:MOST_SENTENCES]]
    more = len(changed) - len(parts)
    return " and ".join([*parts, *([f"at {more} more outputs"] if more else [])])


def _how(found: StageDifference) -> str:
    """How far an output differs."""
    if found.why:
        return f"({found.why})"
    if found.exact:
        return f"in {_share(found.difference)} of its parts, which are compared by equality"
    return f"by {_share(found.difference)}"


def _place(found: StageDifference) -> str:
    """A stage or an output by name and size."""
    other = "" if found.second in ("", found.first) else f" / `{clean(found.second, 60)}`"
    return f"`{clean(found.first or found.second, 60)}`{other}{_size(found)}"


def _size(found: StageDifference) -> str:
    if found.output:
        return f" ({' x '.join(map(str, found.shape))})"
    channels, height, width = found.shape
    return "" if height * width == 1 else f" ({channels} channels, {height} x {width} units)"


def _within(most: float) -> str:
    return f"within {_share(most)}" if most else "bit for bit"


def _share(value: float) -> str:
    """A relative difference for a reader."""
    if not math.isfinite(value):
        return "an infinite share (values that are not finite, or all 0 in the first)"
    return (
        f"{format_number(100 * value, 2)} %"
        if value >= DIVERGED / 10
        else f"{value:.0e} of the norm"
    )
