"""A comparison as one HTML page, `perimetry compare ... --html OUT`, in the style of the board.

It starts with what the comparison decides and the table of all models. For each pair it shows the
verdict in words, the maps of both models with their difference, the differences stage by stage, and
every metric with its difference drawn. A difference is drawn in units of half its own interval, so
that whiskers of all rows can be compared with 0 in the same way. The page has no script and fetches
nothing; the templates escape every text. `draw_differences` draws the maps as PNG.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from ..figures.canvas import Frame, draw_scale
from ..figures.maps import MAP_STYLES, MapStyle, map_change, on_one_scale, scaled, tiled
from ..figures.notebook import Picture, picture
from ..output.files import write_text
from ..output.templates import asset, render, trusted
from ..records.record import expect_maps
from .decision import decision
from .matrix import share
from .node_report import node_rows, node_sentences
from .text import (
    HEADS,
    OVERVIEW,
    explanation,
    notes_of,
    one_matrix,
    overview,
    row_cells,
    shown_rows,
)
from .verdict import verdict

if TYPE_CHECKING:
    from pathlib import Path

    from ..records.record import Record
    from .divergence import StageDifference
    from .result import ComparisonResult, ComparisonRow, Pair


POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'"


REACH = 5.0
"""Differences beyond this many half intervals are drawn at the end of the axis."""


FIRST_MAPS = ("sensitivity", "phase_profile", "erf")
"""Maps that the page shows; `--maps` draws the others."""


def write_comparison(comparison: ComparisonResult, path: Path) -> None:
    """Write the page to `path`, whole or not at all."""
    write_text(path, comparison_page(comparison))


def comparison_page(comparison: ComparisonResult, *, created: datetime | None = None) -> str:
    """The page as text."""
    when = created or datetime.now(UTC)
    styles = "\n".join(asset(name) for name in ("page.css", "page_comparison.css"))
    return render(
        "page_comparison.html",
        policy=trusted(POLICY),
        title=_title(comparison),
        styles=trusted(styles),
        made=f"perimetry {metadata.version('perimetry')}, {when:%Y-%m-%d}",
        **_content(comparison),
    )


def to_html(comparison: ComparisonResult) -> str:
    """A fragment for notebooks: verdicts, the maps of both with their difference, and metrics."""
    return render("notebook_comparison.html", **_content(comparison))


def _content(comparison: ComparisonResult) -> dict[str, Any]:
    """What both templates show."""
    pairs = [_pair(pair, comparison) for pair in comparison.pairs]
    return {
        "overall": _overall(comparison),
        "pairs": pairs,
        "heads": HEADS,
        "explanation": explanation(comparison),
    }


def _overall(comparison: ComparisonResult) -> dict[str, Any]:
    """What the comparison decides and the table of all models; of several runs, the overview."""
    matrix = one_matrix(comparison)
    if matrix is None:
        return {"findings": [], "heads": OVERVIEW, "rows": overview(comparison)}
    return {
        "findings": decision(comparison, matrix),
        "heads": ["", *(side.name for side in matrix.sides)],
        "rows": [(row.name, *row.shown) for row in matrix.rows],
    }


def _title(comparison: ComparisonResult) -> str:
    first = comparison.pairs[0]
    if len(comparison.pairs) == 1:
        return f"{first.second.name} against {first.first.name}"
    if len(comparison.groups) == 1:
        return f"{len(comparison.groups[0])} models side by side"
    return f"{len(comparison.pairs)} comparisons"


def _pair(pair: Pair, comparison: ComparisonResult) -> dict[str, Any]:
    lead, *further = verdict(pair, comparison.headlines)
    shown = shown_rows(pair, comparison.headlines, every=True)
    return {
        "title": f"{pair.second.name} against {pair.first.name}",
        "verdict": lead,
        "notes": [*further, *notes_of(pair)],
        "maps": _maps(pair),
        "stages": _stages(pair.stages),
        "nodes": _nodes(pair),
        "rows": [
            {"cells": row_cells(row), "shown": row.shown, "drawn": _drawn(row)} for row in pair.rows
        ],
        "shown": [row_cells(row) for row in shown],
    }


def _maps(pair: Pair) -> list[tuple[str, list[Picture]]]:
    """Both maps and their difference under a heading, for each map that both have in one shape."""
    found = []
    for cell, first in pair.first.records.items():
        second = pair.second.records.get(cell)
        for name in FIRST_MAPS:
            pictures = _triple(pair, first, second, name) if second is not None else []
            if pictures:
                what = MAP_STYLES.get(name, MapStyle()).what or name
                found.append((f"{first.suite}:{first.protocol}, {what}", pictures))
    return found


def _triple(pair: Pair, first: Record, second: Record, name: str) -> list[Picture]:
    """First and second on one scale, and second less first; each map over its own mean."""
    change = map_change(second, first, name, "")
    if change is None:
        return []
    look = MAP_STYLES.get(name, MapStyle())
    maps = [tiled(np.asarray(record.maps[name])) for record in (first, second)]
    scales = [scaled(values, look.scale, "") for values in maps if values is not None]
    shown = [*(on_one_scale(scale, scales) for scale in scales), change]
    names = [pair.first.name, pair.second.name, "difference"]
    return [picture(scale, words, words) for scale, words in zip(shown, names, strict=True)]


def _nodes(pair: Pair) -> dict[str, Any] | None:
    """Sentences, heads and rows of the nodes, the largest own difference first."""
    if pair.nodes is None:
        return None
    if isinstance(pair.nodes, str):
        words = f"Not compared node by node: {pair.nodes}."
        return {"sentences": [words], "heads": (), "rows": []}
    heads, rows = node_rows(pair.nodes, pair.nodes.worst)
    return {"sentences": node_sentences(pair.nodes), "heads": heads, "rows": rows}


def _stages(stages: tuple[StageDifference, ...] | str) -> list[dict[str, str]]:
    """How far features differ, stage by stage; bars in proportion to the largest difference.

    What differs beyond all measure, such as a shape, has a whole bar.
    """
    if isinstance(stages, str):
        return []
    known = [stage.difference for stage in stages if math.isfinite(stage.difference)]
    most = max(known, default=0.0) or 1.0
    return [
        {
            "name": stage.key,
            "shape": " x ".join(map(str, stage.shape)),
            "difference": _percent(stage.difference),
            "width": f"{100 * min(stage.difference / most, 1):.1f}%",
        }
        for stage in stages
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %" if math.isfinite(value) else share(value)


def _drawn(row: ComparisonRow) -> dict[str, str] | None:
    """Where the difference and its ends lie, 0 in the middle, in units of half the interval."""
    gap = row.evidence
    if gap is None or gap.low is None or gap.high is None or gap.high <= gap.low:
        return None
    half = (gap.high - gap.low) / 2
    ends = {"low": gap.low, "value": gap.difference.value, "high": gap.high}
    shares = {name: max(-REACH, min(REACH, v / half)) / REACH for name, v in ends.items()}
    return {name: f"{50 + 48 * share:.1f}%" for name, share in shares.items()}


LONGEST = 80


def draw_differences(comparison: ComparisonResult, folder: Path) -> list[Path]:
    """Draw second less first of every map that a pair has in one shape; give the files' paths.

    Raises `InputError` when none of the records has a map, as those of packed files.
    """
    sides = [side for pair in comparison.pairs for side in (pair.first, pair.second)]
    records = [record for side in sides for record in side.records.values()]
    expect_maps(records)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, pair in enumerate(comparison.pairs, start=1):
        for cell, first in pair.first.records.items():
            second = pair.second.records.get(cell)
            for name in sorted(first.maps):
                change = map_change(second, first, name, "difference") if second else None
                if change is not None:
                    kind = f"{first.suite}-{first.protocol}.{name}"
                    paths.append(folder / f"{place:02}-{_file_name(pair)}.{kind}.png")
                    title = (
                        f"{pair.second.name}\nless {pair.first.name}; "
                        f"{first.suite}:{first.protocol}, {name}"
                    )
                    draw_scale(change, paths[-1], Frame(title))
    return paths


def _file_name(pair: Pair) -> str:
    words = f"{pair.second.name}-less-{pair.first.name}"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-")[:LONGEST]
