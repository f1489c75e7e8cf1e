"""A comparison as one HTML page, `perimetry compare ... --html OUT`, in the dress of the board.

Each pair: the verdict in words, maps of both with their difference, where twins part stage by
stage, and every metric with its difference drawn. A difference is drawn in units of half its own
interval, so that in every row alike the whisker reaches 0 or does not. The page has no script and
fetches nothing; everything that came from a model or a record is escaped.
"""

from __future__ import annotations

import html
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING

import numpy as np

from ..figures.data_uri import ends, image_tag
from ..figures.maps import LOOKS, Look, over_mean, scaled, tiled
from ..output.damaged import BROKEN
from ..output.files import write_text
from ..output.templates import asset, fill_in
from ..output.text import clean
from .text import HEADS, explanation, notes_of, row_cells, shown_rows, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ..figures.canvas import Scale
    from ..records.record import Record
    from .fingerprint import StageDifference
    from .result import ComparisonResult, ComparisonRow, Pair


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


REACH = 5.0
"""Differences are drawn up to so many half intervals."""


ROW = "display:flex;flex-wrap:wrap;gap:14px 22px"


FIRST_MAPS = ("sensitivity", "phase_profile", "erf")
"""Maps whose difference is shown; the others are for `--maps`."""


def write_comparison(
    comparison: ComparisonResult, path: Path, *, created: datetime | None = None
) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, comparison_page(comparison, created=created))


def comparison_page(comparison: ComparisonResult, *, created: datetime | None = None) -> str:
    """The page as text."""
    when = created or datetime.now(UTC)
    return fill_in(
        asset("page_comparison.html"),
        policy=POLICY,
        title=_safe(_title(comparison)),
        styles="\n".join(asset(name) for name in ("page.css", "page_comparison.css")),
        made=f"perimetry {metadata.version('perimetry')}, {when:%Y-%m-%d}",
        pairs="\n".join(_pair(pair, comparison) for pair in comparison.pairs),
        explanation=_safe(explanation(comparison)),
    )


def _title(comparison: ComparisonResult) -> str:
    first = comparison.pairs[0]
    if len(comparison.pairs) == 1:
        return f"{first.second.name} against {first.first.name}"
    return f"{len(comparison.pairs)} comparisons"


def _pair(pair: Pair, comparison: ComparisonResult) -> str:
    lead, *told = verdict(pair, comparison.headlines)
    notes = "".join(f"<li>{_safe(text)}</li>" for text in [*told, *notes_of(pair)])
    head = _safe(f"{pair.second.name} against {pair.first.name}")
    alone = len(comparison.pairs) == 1
    parts = [
        f'<section class="pair">{"" if alone else f"<h2>{head}</h2>"}',
        f'<p class="lead">{_safe(lead)}</p>',
        f"<ul>{notes}</ul>" if notes else "",
        pair_maps(pair),
        _stages(pair.stages),
        _metrics(pair),
        "</section>",
    ]
    return "\n".join(part for part in parts if part)


def pair_maps(pair: Pair) -> str:
    """Both maps and their difference, for each map that both have in one shape."""
    found = []
    for cell, first in pair.first.records.items():
        second = pair.second.records.get(cell)
        for name in FIRST_MAPS:
            figures = _triple(pair, first, second, name) if second is not None else ""
            if figures:
                what = LOOKS.get(name, Look()).what or name
                head = _safe(f"{first.suite}:{first.protocol}, {what}")
                found.append(f'<h3>{head}</h3><div style="{ROW}">{figures}</div>')
    return "\n".join(found)


def _triple(pair: Pair, first: Record, second: Record, name: str) -> str:
    """First and second on one scale, and second less first; each map over its own mean."""
    maps = [_map(record, name) for record in (first, second)]
    before, after = maps
    if before is None or after is None or before.shape != after.shape:
        return ""
    look = LOOKS.get(name, Look())
    scales = [scaled(values, look.scale, "") for values in (before, after)]
    low, high = min(s.low for s in scales), max(s.high for s in scales)
    change = scaled(over_mean(after) - over_mean(before), "signed", "in means of either map")
    names = [pair.first.name, pair.second.name, "difference"]
    shown = [*(replace(scale, low=low, high=high) for scale in scales), change]
    return "".join(_figure(scale, words) for scale, words in zip(shown, names, strict=True))


def _map(record: Record, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]] | None:
    try:
        values = record.maps.get(name)
    except BROKEN:
        return None
    return None if values is None else tiled(np.asarray(values))


def _figure(scale: Scale, words: str) -> str:
    told = _safe(f"{clean(words, 80)}: {ends(scale)}")
    return f"<figure>{image_tag(scale, words)}<figcaption>{told}</figcaption></figure>"


def _stages(stages: tuple[StageDifference, ...] | str) -> str:
    """How far features differ, stage by stage."""
    if isinstance(stages, str) or not stages:
        return ""
    most = max(stage.difference for stage in stages) or 1.0
    lines = "".join(
        f'<tr><th scope="row">{_safe(stage.first)}</th>'
        f"<td>{' x '.join(map(str, stage.shape))}</td>"
        f'<td class="number">{100 * stage.difference:.3g} %</td>'
        f'<td><span class="track"><i style="width:{100 * stage.difference / most:.1f}%"></i></span>'
        "</td></tr>"
        for stage in stages
    )
    heads = "".join(f'<th scope="col">{h}</th>' for h in ("stage", "features", "differ by", ""))
    return f'<h3>Stage by stage</h3><table class="plain"><tr>{heads}</tr>{lines}</table>'


def _metrics(pair: Pair) -> str:
    heads = "".join(
        f'<th scope="col" class="{"number" if n else ""}">{head}</th>'
        for n, head in enumerate(HEADS)
    )
    lines = "".join(map(_line, pair.rows))
    return (
        f'<h3>Every metric</h3><div class="wide"><table class="plain"><thead><tr>{heads}'
        f'<th scope="col">drawn</th></tr></thead><tbody>{lines}</tbody></table></div>'
    )


def _line(row: ComparisonRow) -> str:
    name, *cells = row_cells(row)
    tds = "".join(f'<td class="number">{_safe(cell)}</td>' for cell in cells)
    return (
        f'<tr class="{"shown" if row.shown else ""}"><th scope="row">{_safe(name)}</th>{tds}'
        f'<td class="drawn">{_drawn(row)}</td></tr>'
    )


def _drawn(row: ComparisonRow) -> str:
    """The difference with its interval, 0 in the middle, in units of half the interval."""
    gap = row.evidence.difference if row.evidence else None
    if gap is None or gap.low is None or gap.high is None or gap.high <= gap.low:
        return ""
    half = (gap.high - gap.low) / 2

    def at(value: float) -> str:
        return f"{50 + 48 * max(-REACH, min(REACH, value / half)) / REACH:.1f}%"

    return (
        '<svg aria-hidden="true"><line class="zero" x1="50%" x2="50%" y1="0" y2="18"/>'
        f'<line class="whisker" x1="{at(gap.low)}" x2="{at(gap.high)}" y1="9" y2="9"/>'
        f'<circle class="dot" cx="{at(gap.value)}" cy="9" r="3.5"/></svg>'
    )


def _safe(text: str) -> str:
    return html.escape(clean(text, 2000), quote=True)


def to_html(comparison: ComparisonResult) -> str:
    """A fragment for notebooks, with the maps of both and their difference; all text is escaped."""
    parts = []
    for pair in comparison.pairs:
        told = [*verdict(pair, comparison.headlines), *notes_of(pair)]
        rows = [row_cells(row) for row in shown_rows(pair, comparison.headlines, every=True)]
        head = f"{clean(pair.second.name)} against {clean(pair.first.name)}"
        parts += [f"<h4>{html.escape(head)}</h4>", _list(told), pair_maps(pair), _table(rows)]
    return "\n".join([*parts, f"<p><small>{html.escape(explanation(comparison))}</small></p>"])


def _list(items: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(clean(i, 2000))}</li>" for i in items) + "</ul>"


def _table(rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(clean(c))}</{tag}>" for c in cells) + "</tr>"

    body: Callable[[Sequence[str]], str] = lambda cells: line(cells, "td")  # noqa: E731
    return f"<table>{line(HEADS, 'th')}{''.join(map(body, rows))}</table>"
