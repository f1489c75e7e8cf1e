"""A comparison as text, Markdown or data: a verdict in words, then a table.

The absence of a significant difference is never reported as equality: the verdict says how large a
difference in the headline metrics is still possible.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..output.layout import WIDTH, Section, Table, lay_out
from ..output.numbers import format_number, join_with_and
from ..output.text import clean, code
from ..statistics.significance import ROUNDING
from .fingerprint import DIVERGED, first_divergent_stage
from .result import NOT_LOOKED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..output.layout import Block
    from ..statistics.difference import Difference
    from .fingerprint import StageDifference
    from .result import ComparisonResult, ComparisonRow, Pair


HEADS = ("metric", "first", "second", "difference", "p (Holm)", "d", "shown")


MOST_SENTENCES = 5


SMALLEST_P = 1e-4


AGAINST = " against "


EXPLANATION = (
    "Difference: second minus first, paired where both rest on the same samples, with its 95 % "
    "interval; d: effect size, in standard deviations of one sample's contribution; p: two-sided, "
    "corrected by Holm's method for the {tests} estimates compared here, so that 5 % is the chance "
    "of any false difference among them. Exact values are equal or differ. A relative "
    "difference below 1e-5 counts as rounding."
)


def comparison_to_text(comparison: ComparisonResult, *, width: int, every: bool) -> str:
    """Sections for each pair, folded to `width` columns."""
    sections = []
    for pair in comparison.pairs:
        blocks: list[Block] = [*verdict(pair, comparison.headlines), *notes_of(pair)]
        rows = shown_rows(pair, comparison.headlines, every=every)
        if rows:
            hidden = len(pair.rows) - len(rows)
            caption = "Metrics" + (
                f" ({hidden} more do not differ significantly)" if hidden else ""
            )
            blocks.append(Table(caption, HEADS, [row_cells(row) for row in rows]))
        sections.append(Section(_heading(pair, width), blocks))
    sections.append(Section("How to read this", [explanation(comparison)]))
    return lay_out(sections, width)


def _heading(pair: Pair, width: int) -> str:
    """The names of both, shortened where they do not fit on one line."""
    names = [clean(side.name) for side in (pair.second, pair.first)]
    room = min(width, WIDTH) - len(AGAINST)
    if sum(map(len, names)) > room:
        names = [clean(name, room // 2) for name in names]
    return AGAINST.join(names)


def comparison_to_markdown(comparison: ComparisonResult, *, every: bool) -> str:
    """The same as Markdown; names are code, so nothing in them is markup."""
    from tabulate import tabulate

    parts = []
    for pair in comparison.pairs:
        parts.append(f"## {code(pair.second.name)} against {code(pair.first.name)}")
        lines = [*verdict(pair, comparison.headlines), *notes_of(pair)]
        parts.append("\n".join(f"- {_markdown(text)}" for text in lines))
        rows = [row_cells(row) for row in shown_rows(pair, comparison.headlines, every=every)]
        cells = [[code(row[0]), *map(_markdown, row[1:])] for row in rows]
        parts += [tabulate(cells, HEADS, tablefmt="pipe", disable_numparse=True)] if cells else []
    return "\n\n".join([*parts, explanation(comparison)]) + "\n"


def to_cells(comparison: ComparisonResult) -> list[dict[str, Any]]:
    """A flat dict for each metric of each pair; None where there is no number."""
    return [
        {
            "first": pair.first.name,
            "second": pair.second.name,
            "metric": row.column,
            "first.value": row.first.value if row.first else None,
            "second.value": row.second.value if row.second else None,
            **_numbers(row),
            "shown": row.shown,
            "reason": row.reason,
        }
        for pair in comparison.pairs
        for row in pair.rows
    ]


def _numbers(row: ComparisonRow) -> dict[str, Any]:
    found = row.evidence
    gap = found.difference if found else None
    return {
        "difference": gap.value if gap else None,
        "low": gap.low if gap else None,
        "high": gap.high if gap else None,
        "method": gap.method if gap else None,
        "effect": found.effect if found else None,
        "p": found.p if found else None,
        "p.holm": found.adjusted if found else None,
    }


def explanation(comparison: ComparisonResult) -> str:
    """What the columns mean and how many tests were corrected together."""
    return EXPLANATION.format(tests=comparison.tests)


def verdict(pair: Pair, headlines: frozenset[str]) -> list[str]:
    """What the pair shows, in a few sentences."""
    largest = _largest(pair.differing, headlines)
    measured_rows = [row for row in pair.rows if row.evidence is not None]
    if not measured_rows:
        return ["No metric was measured for both, so they cannot be compared.", *_divergence(pair)]
    if not largest:
        return [_nothing_shown(measured_rows, headlines), *_divergence(pair)]
    exact = sum(row.evidence is not None and row.evidence.p is None for row in largest)
    kinds = f" ({len(largest) - exact} estimates, {exact} exact values)" if exact else ""
    sentences = [_sentence(row) for row in largest[:MOST_SENTENCES]]
    more = len(largest) - MOST_SENTENCES
    if more > 0:
        sentences.append(f"The table below has {more} more.")
    lead = f"They differ in {len(largest)} of {len(measured_rows)} metrics{kinds}."
    return [lead, *sentences, *_divergence(pair)]


def _largest(rows: Sequence[ComparisonRow], headlines: frozenset[str]) -> list[ComparisonRow]:
    """Rows with headline metrics first, then the largest effects, then exact metrics."""
    return sorted(rows, key=lambda row: (row.column not in headlines, -_effect(row)))


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
    """What the direction means, where the metric has a better one."""
    metric = row.metric
    if metric is None or metric.better == "neither" or row.evidence is None:
        return ""
    if metric.even is not None and row.first is not None and row.second is not None:
        before, after = (abs((v.value or 0.0) - metric.even) for v in (row.first, row.second))
        return ", nearer to even" if after < before else ", further from even"
    rises = row.evidence.difference.value > 0
    return ", more even" if rises == (metric.better == "higher") else ", less even"


def _nothing_shown(rows: Sequence[ComparisonRow], headlines: frozenset[str]) -> str:
    """A sentence: no significant difference, and how large one could still be."""
    if all(_equal(row) for row in rows):
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


def _equal(row: ComparisonRow) -> bool:
    return row.first is not None and row.second is not None and row.first == row.second


def _reach(row: ComparisonRow) -> float | None:
    """How far from 0 the interval of the difference goes."""
    gap = row.evidence.difference if row.evidence else None
    if gap is None or gap.low is None or gap.high is None:
        return None
    return max(abs(gap.low), abs(gap.high)) or None


def _divergence(pair: Pair) -> list[str]:
    """Sentences: the first stage at which the features of the two diverge."""
    if isinstance(pair.stages, str):
        unknown = f"The stage at which they diverge is not known: {pair.stages}."
        return [] if pair.stages == NOT_LOOKED else [unknown]
    found = first_divergent_stage(pair.stages)
    if found is None:
        most = max((p.difference for p in pair.stages), default=0.0)
        return [
            f"Their features agree at all {len(pair.stages)} stages, {_within(most)}: the same "
            "function on these images."
        ]
    place = pair.stages.index(found)
    before = max((p.difference for p in pair.stages[:place]), default=0.0)
    text = (
        f"They diverge at stage {place + 1} of {len(pair.stages)}, {_place(found)}, where features "
        f"differ by {_share(found.difference)}"
    )
    text += f"; up to there they agree {_within(before)}" if place else ""
    return [f"{text}. At the last stage: {_share(pair.stages[-1].difference)}."]


def _place(found: StageDifference) -> str:
    """A stage by name and size."""
    channels, height, width = found.shape
    units = "" if height * width == 1 else f" ({channels} channels, {height} x {width} units)"
    other = "" if found.first == found.second else f" / `{clean(found.second, 60)}`"
    return f"`{clean(found.first, 60)}`{other}{units}"


def _within(most: float) -> str:
    return f"within {_share(most)}" if most else "bit for bit"


def _share(value: float) -> str:
    """A relative difference for a reader."""
    return (
        f"{format_number(100 * value, 2)} %"
        if value >= DIVERGED / 10
        else f"{value:.0e} of the norm"
    )


def notes_of(pair: Pair) -> list[str]:
    """Sentences about the limits of the comparison."""
    forced = [
        f"The comparison was forced although the records differ: {text}." for text in pair.forced
    ]
    return [*forced, *(f"Not compared: {text}." for text in pair.gaps)]


def shown_rows(pair: Pair, headlines: frozenset[str], *, every: bool) -> list[ComparisonRow]:
    """The rows of the table: those that differ and the headlines, or all."""
    return [row for row in pair.rows if every or row.shown or row.column in headlines]


def row_cells(row: ComparisonRow) -> tuple[str, ...]:
    """The cells of a row under `HEADS`."""
    first, second = (
        "n/a" if value is None or value.value is None else format_number(value.value)
        for value in (row.first, row.second)
    )
    found = row.evidence
    if found is None:
        return (row.column, first, second, clean(row.reason or "", 60), "", "", "")
    effect = "" if found.effect is None else f"{found.effect:+.2f}"
    shown = "yes" if row.shown else ""
    return (row.column, first, second, _change(found.difference), _p(row), effect, shown)


def _change(gap: Difference) -> str:
    """A difference with its sign and half its interval."""
    sign = "+" if gap.value > 0 else ""
    half = 0.0 if gap.low is None or gap.high is None else (gap.high - gap.low) / 2
    if half <= ROUNDING * abs(gap.value):
        return f"{sign}{format_number(gap.value)}"
    return f"{sign}{format_number(gap.value)} ± {format_number(half, 2)}"


def _p(row: ComparisonRow) -> str:
    found = row.evidence
    if found is None or found.adjusted is None:
        exact = found is not None and found.difference.method == "exact"
        return "exact" if exact else ""
    return f"< {SMALLEST_P:.4f}" if found.adjusted < SMALLEST_P else f"{found.adjusted:.4f}"


def _markdown(text: str) -> str:
    """A sentence whose special characters are only characters."""
    shown = clean(text, 2000)
    for char in "\\*_[]<>|#":
        shown = shown.replace(char, f"\\{char}")
    return shown
