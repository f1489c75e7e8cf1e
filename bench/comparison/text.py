"""A comparison as text, Markdown or data: what it decides, all models side by side, then pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output.layout import WIDTH, Section, Table, lay_out, tabulated
from ..output.numbers import format_number, join_with_and
from ..output.text import clean, code, escape_markdown
from ..records.fed import fed_differently
from .decision import counts_of, decision
from .matrix import matrix_of
from .node_report import node_blocks
from .result import RowVerdict
from .verdict import verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..output.layout import Block
    from ..statistics.significance import Evidence
    from .matrix import Matrix
    from .result import ComparisonResult, ComparisonRow, Pair


HEADS = ("metric", "first", "second", "difference", "verdict", "p (corrected)", "d")


SMALLEST_P = 1e-4


AGAINST = " against "


EXPLANATION = (
    "Difference: second minus first, paired where both rest on the same samples, with an interval "
    "that holds for all that is compared here at once: of {leading} differences of main metrics, "
    "and of {others} of other metrics, the chance that any interval misses its difference is at "
    "most 5 % (Bonferroni). Two differ where this interval leaves out 0; they are alike where it "
    "lies within 2 % of the value (or 0.01, for ratios, shares and cosines); else they are not "
    "shown to differ. d: effect size, in standard deviations of one sample's contribution; p: "
    "two-sided, corrected for the same number. Exact values have no interval: they differ where "
    "their printed digits do, by more than rounding (0.1 % of numbers that are not whole)."
)


ALL_EXACT = (
    "Difference: second minus first. No value here has an interval: exact ones differ where "
    "their printed digits do, by more than rounding (0.1 % of numbers that are not whole), the "
    "others are not shown to differ."
)


IN_MATRIX = (
    "In the table of all models, \u00b1 is the 95 % interval of the value itself. Models that have "
    "a letter in common are not shown to differ; a row without letters has no difference that is "
    "shown."
)


def comparison_to_text(
    comparison: ComparisonResult, *, width: int, every: bool, pairs: Sequence[Pair] | None = None
) -> str:
    """All models side by side, then sections for each pair, folded to `width` columns."""
    sections = [*_side_by_side(comparison, width)]
    for pair in _chosen(comparison, pairs):
        blocks: list[Block] = [*verdict(pair, comparison.headlines), *notes_of(pair)]
        rows = shown_rows(pair, comparison.headlines, every=every)
        if rows:
            shown = {row.column for row in rows}
            hidden = [row for row in pair.rows if row.column not in shown]
            caption = f"Metrics (not listed are {counts_of(hidden)})" if hidden else "Metrics"
            blocks.append(Table(caption, HEADS, [row_cells(row) for row in rows]))
        blocks += node_blocks(pair, every=every)
        sections.append(Section(pair_heading(pair, width), blocks))
    sections.append(Section("How to read this", [*explanation(comparison)]))
    return lay_out(sections, width)


def _chosen(comparison: ComparisonResult, pairs: Sequence[Pair] | None) -> Sequence[Pair]:
    """The pairs to show: those asked for, else the one of two models, or all of several runs."""
    if pairs is not None:
        return pairs
    return comparison.pairs if len(comparison.groups) != 1 or len(comparison.pairs) == 1 else ()


def _side_by_side(comparison: ComparisonResult, width: int) -> list[Section]:
    """What the comparison decides, and the table of all models; an overview of several runs."""
    if one_matrix(comparison) is None:
        rows = overview(comparison)
        return [Section("All pairs", [Table("", OVERVIEW, rows)])] if rows else []
    matrix = matrix_of(comparison, comparison.groups[0])
    sentences: list[Block] = [str(one) for one in decision(comparison, matrix)]
    rest = [] if len(comparison.pairs) == 1 else [PAIRS]
    title = f"{join_with_and([s.name for s in matrix.sides], 12)} side by side"
    return [Section(title, [*sentences, *_tables(matrix, width), *rest])]


PAIRS = "The metrics of one pair: --pair A B; of all pairs: --pairs."


def one_matrix(comparison: ComparisonResult) -> Matrix | None:
    """The table of all models; None of several runs, and of too many models for one table."""
    if len(comparison.groups) != 1 or len(comparison.groups[0]) > MOST_COLUMNS:
        return None
    return matrix_of(comparison, comparison.groups[0])


MOST_COLUMNS = 12


def _tables(matrix: Matrix, width: int) -> list[Block]:
    """The table of all models, in as many parts as the width asks for; no column is cut off."""
    rows = matrix.rows
    wide = [max(len(row.shown[k]) for row in rows) for k in range(len(matrix.sides))]
    names = [clean(side.name) for side in matrix.sides]
    legend = sum(map(len, names)) > sum(map(max, zip(wide, (12,) * len(wide), strict=True)))
    heads = [f"({k})" for k in range(1, len(names) + 1)] if legend else names
    room = min(width, WIDTH) - 4 - max(len(row.name) for row in rows) - 2
    parts: list[list[int]] = [[]]
    for k, head in enumerate(heads):
        taken = sum(max(wide[i], len(heads[i])) + 2 for i in parts[-1])
        if parts[-1] and taken + max(wide[k], len(head)) > room:
            parts.append([])
        parts[-1].append(k)
    texts: list[Block] = []
    if legend:
        texts.append("Columns: " + "; ".join(f"{h} {n}" for h, n in zip(heads, names, strict=True)))
    for part in parts:
        cells = [(row.name, *(row.shown[k] for k in part)) for row in rows]
        texts.append(Table("", ("", *(heads[k] for k in part)), cells))
    return texts


OVERVIEW = ("metrics of", "differ", "alike", "open", "not compared")
"""Heads of the numbers of metrics by verdict."""


def overview(comparison: ComparisonResult) -> list[tuple[str, ...]]:
    """The number of metrics by verdict, a row for each pair."""
    if len(comparison.pairs) == 1:
        return []
    return [
        (pair_heading(pair, 46), *(str(len(pair.of(verdict))) for verdict in RowVerdict))
        for pair in comparison.pairs
    ]


def pair_heading(pair: Pair, width: int) -> str:
    """The names of both, shortened where they do not fit on one line."""
    names = [clean(side.name) for side in (pair.second, pair.first)]
    room = min(width, WIDTH) - len(AGAINST)
    if sum(map(len, names)) > room:
        names = [clean(name, room // 2) for name in names]
    return AGAINST.join(names)


def comparison_to_markdown(
    comparison: ComparisonResult, *, every: bool, pairs: Sequence[Pair] | None = None
) -> str:
    """The same as Markdown; names are code, so nothing in them is markup."""
    parts = _markdown_side_by_side(comparison)
    for pair in _chosen(comparison, pairs):
        parts.append(f"## {code(pair.second.name)} against {code(pair.first.name)}")
        lines = [*verdict(pair, comparison.headlines), *notes_of(pair)]
        parts.append("\n".join(f"- {_markdown(text)}" for text in lines))
        rows = [row_cells(row) for row in shown_rows(pair, comparison.headlines, every=every)]
        parts += [_markdown_table(HEADS, rows)] if rows else []
        parts += [
            _markdown_table(block.heads, block.rows)
            if isinstance(block, Table)
            else _markdown(str(block))
            for block in node_blocks(pair, every=every)
        ]
    return "\n\n".join([*parts, *explanation(comparison)]) + "\n"


def _markdown_side_by_side(comparison: ComparisonResult) -> list[str]:
    matrix = one_matrix(comparison)
    if matrix is None:
        rows = overview(comparison)
        return [_markdown_table(OVERVIEW, rows)] if rows else []
    lines = [f"- **{one.topic}**: {_markdown(one.text)}" for one in decision(comparison, matrix)]
    heads = ("", *(code(side.name) for side in matrix.sides))
    rows = [(row.name, *row.shown) for row in matrix.rows]
    return ["# Side by side", "\n".join(lines), _markdown_table(heads, rows)]


def _markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    cells = [[code(row[0]), *map(_markdown, row[1:])] for row in rows]
    return tabulated(heads, cells, "pipe")


def explanation(comparison: ComparisonResult) -> list[str]:
    """What the columns mean, and how many differences are compared together."""
    leading, others = comparison.tests
    texts = [IN_MATRIX] if one_matrix(comparison) is not None else []
    if not leading + others:
        return [*texts, ALL_EXACT]
    return [*texts, EXPLANATION.format(leading=leading, others=others)]


def notes_of(pair: Pair) -> list[str]:
    """Sentences about the limits of the comparison."""
    forced = [
        f"The comparison was forced although the records differ: {text}." for text in pair.forced
    ]
    sides = [(s.name, next(iter(s.records.values()))) for s in (pair.first, pair.second)]
    guesses = fed_differently(sides, ("normalisation",))
    return [*forced, *guesses, *(f"Not compared: {text.rstrip('.')}." for text in pair.gaps)]


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
    verdict = "not shown" if row.verdict is RowVerdict.unknown else row.verdict.value
    if found is None:
        why = clean(row.reason or "", 60)
        return (row.column, first, second, why, verdict, "", "")
    effect = "" if found.effect is None else f"{found.effect:+.2f}"
    return (row.column, first, second, _change(found), verdict, _p(row), effect)


def _change(found: Evidence) -> str:
    """A difference with its sign and half its simultaneous interval."""
    value = found.difference.value
    sign = "+" if value > 0 else ""
    if not found.is_test or (not value and not found.half):
        return f"{sign}{format_number(value)}"
    half = (found.half or 0.0) + found.rounding
    return f"{sign}{format_number(value)} \u00b1 {format_number(half, 2)}"


def _p(row: ComparisonRow) -> str:
    found = row.evidence
    if found is None or found.adjusted is None:
        exact = found is not None and found.difference.method == "exact"
        return "exact" if exact else ""
    return f"< {SMALLEST_P:.4f}" if found.adjusted < SMALLEST_P else f"{found.adjusted:.4f}"


def _markdown(text: str) -> str:
    """A sentence in which names between backquotes are code, and nothing else is markup."""
    return escape_markdown(text, "\\*_[]<>|#")
