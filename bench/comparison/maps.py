"""Difference maps of a comparison as PNG: second less first, each over its own mean."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ..figures.canvas import Frame, draw_scale
from ..figures.maps import over_mean, scaled, tiled

if TYPE_CHECKING:
    from pathlib import Path

    from ..records.record import Record
    from .result import ComparisonResult as Comparison
    from .result import Pair


LONGEST = 80


def draw_differences(comparison: Comparison, folder: Path) -> list[Path]:
    """Draw every map that both sides of a pair have in one shape; give the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for place, pair in enumerate(comparison.pairs, start=1):
        for cell, first in pair.first.records.items():
            second = pair.second.records.get(cell)
            if second is not None:
                paths += _draw(pair, first, second, folder, place)
    return paths


def _draw(pair: Pair, first: Record, second: Record, folder: Path, place: int) -> list[Path]:
    paths = []
    for name in sorted(first.maps.keys() & second.maps.keys()):
        before, after = (tiled(np.asarray(record.maps[name])) for record in (first, second))
        if before is None or after is None or before.shape != after.shape:
            continue
        path = folder / f"{place:02}-{_file_name(pair)}.{first.suite}-{first.protocol}.{name}.png"
        title = (
            f"{pair.second.name}\nless {pair.first.name}; {first.suite}:{first.protocol}, {name}"
        )
        change = over_mean(after) - over_mean(before)
        draw_scale(
            scaled(change, "signed", "difference, in means of either map"), path, Frame(title)
        )
        paths.append(path)
    return paths


def _file_name(pair: Pair) -> str:
    words = f"{pair.second.name}-less-{pair.first.name}"
    return re.sub(r"[^A-Za-z0-9_-]+", "-", words).strip("-")[:LONGEST]
