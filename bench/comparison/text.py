"""A comparison as text, Markdown or data: a verdict in words, then a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..output.layout import WIDTH, Section, Table, lay_out
from ..output.numbers import format_number
from ..output.text import clean, code
from ..records.fed import fed_differently
from ..statistics.significance import ROUNDING
from .verdict import verdict

if TYPE_CHECKING:
    from ..output.layout import Block
    from ..statistics.difference import Difference
    from .result import ComparisonResult, ComparisonRow, Pair


HEADS = ("metric", "first", "second", "difference", "p (Holm)", "d", "shown")


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


def notes_of(pair: Pair) -> list[str]:
    """Sentences about the limits of the comparison."""
    forced = [
        f"The comparison was forced although the records differ: {text}." for text in pair.forced
    ]
    return [*forced, *_guesses(pair), *(f"Not compared: {text}." for text in pair.gaps)]


def _guesses(pair: Pair) -> list[str]:
    """A warning if the normalisation of one side is a guess, and that of the other is not."""
    sides = [(s.name, next(iter(s.records.values()))) for s in (pair.first, pair.second)]
    return fed_differently(sides, ("normalisation",))


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
