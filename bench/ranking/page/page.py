"""The leaderboard as one HTML page that opens from disk: `perimetry board DIR --html OUT`.

The file has everything: numbers, maps, records, the page's own code and the libraries it uses
(Tabulator, D3, Observable Plot, deflated; `vendor_licences.txt`). Its content security policy lets
the browser run only the scripts whose hash it names and fetch nothing. Names and texts of models
and records are data in packed blocks (see `model_panel`), which scripts put into the page as text.
"""

from __future__ import annotations

import base64
import hashlib
import html
from datetime import UTC, datetime
from importlib import metadata
from itertools import accumulate
from typing import TYPE_CHECKING, Any, TypeVar

from ...figures.canvas import COLOURS, SIGNED_COLOURS, keep_matplotlib_out_of_home
from ...output.files import write_text
from ...output.templates import asset, render, trusted
from ...output.text import clean
from .maps import choose_level, thumbs
from .model_panel import packed, packed_json, panels, raw_records, tables_fit, whole
from .numbers import content, variants

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ..board import Board
    from ..view import View
    from .join import Joined
    from .model_panel import Variants


T = TypeVar("T")

MEGABYTE = 1_000_000


LARGEST = 8 * MEGABYTE
"""The default limit for the size of a page, in bytes."""


TABLES_ROOM = 0.2
"""Records keep their tables if these take at most this share of the page."""


FULL, DETAILED = 4_000, 600
"""A page of more than the first number of records has details of models of the second, those of the
first and of the last ranks."""


LIBRARIES = ("vendor_tabulator.js", "vendor_d3.js", "vendor_plot.js")


OWN_SCRIPTS = tuple(
    f"page_{name}.js"
    for name in ("core", "maps", "rows", "cells", "table", "field", "model", "plots", "main")
)


STYLES = (
    "vendor_tabulator.css",
    *("page.css", "page_board.css", "page_table.css", "page_model.css", "page_narrow.css"),
)


LICENCES = "vendor_licences.txt"


TEMPLATES = ("page_base.html", "page.html")


def write_page(
    board: Board,
    path: Path,
    *,
    title: str,
    joined: Joined | None = None,
    largest: int = LARGEST,
    view: View | None = None,
) -> int:
    """Write the page of `board` to `path`, whole or not at all; its size in bytes.

    Maps are made coarser until the page is at most about `largest` bytes.
    """
    text = page(board, title=title, joined=joined, largest=largest, view=view)
    write_text(path, text)
    return len(text.encode())


def page(
    board: Board,
    *,
    title: str,
    joined: Joined | None = None,
    largest: int = LARGEST,
    created: datetime | None = None,
    view: View | None = None,
) -> str:
    """The page of `board` as text, with the further columns of `view`, best or worst first."""
    when = created or datetime.now(UTC)
    libraries = [asset(name) for name in LIBRARIES]
    fixed = {f"library-{n}": packed(text.encode()) for n, text in enumerate(libraries)}
    parts = (*OWN_SCRIPTS, *STYLES, LICENCES, *TEMPLATES)
    room = largest - sum(len(asset(name).encode()) for name in parts)
    room -= sum(map(len, fixed.values()))
    blocks = {**fixed, **_blocks(board, joined, room, when, view)}
    script = own_script()
    return render(
        "page.html",
        title=clean(title),
        policy=trusted(policy([*libraries, script])),
        styles=trusted("\n".join(asset(name) for name in STYLES)),
        licences=trusted(html.escape(asset(LICENCES))),
        blocks={name: trusted(block) for name, block in blocks.items()},
        script=trusted(script),
    )


def policy(scripts: Sequence[str]) -> str:
    """A content security policy that runs just `scripts` and fetches nothing."""
    digests = (hashlib.sha256(script.encode()).digest() for script in scripts)
    hashes = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def own_script() -> str:
    """The page's own code, in one scope."""
    own = "\n".join(asset(name) for name in OWN_SCRIPTS)
    return f'"use strict";\n(() => {{\n{own}\n}})();'


def _blocks(
    board: Board, joined: Joined | None, room: int, when: datetime, view: View | None
) -> dict[str, str]:
    """Every block of the page by name: numbers, facts of the details, thumbnails, details."""
    every = variants(board)
    shown = _detailed(board, every)
    models = [whole(every[place]) for place in shown]
    tables = tables_fit(models, TABLES_ROOM * room)
    raw = raw_records(models, tables=tables)
    small, shapes = _thumbs(models)
    numbers = packed_json(content(board, joined, lean=len(board.records) > FULL, view=view))
    room -= raw.size + len(small) + len(numbers)
    level = choose_level([records for variants in models for records in variants.values()], room)
    words, maps = panels(models, board.suites, level)
    groups = {"words": words, "maps": maps, "records": raw}
    details = {
        "thumbs": _at(shown, shapes, len(every), {}),
        "places": {n: _at(shown, group.places, len(every), None) for n, group in groups.items()},
        "left_out": _left_out(board, shown) if len(shown) < len(every) else "",
        "tables": tables,
        "level": level,
        "colours": _colours(),
        "made": f"perimetry {metadata.version('perimetry')}, {when:%Y-%m-%d}",
    }
    blocks = {"data": numbers, "details": packed_json(details), "thumbs": small}
    for name, group in groups.items():
        blocks |= {f"{name}-{number}": block for number, block in enumerate(group.blocks)}
    return blocks


def _detailed(board: Board, models: Sequence[Variants]) -> list[int]:
    """Places of the models whose maps, texts and records are in the page: of both ends."""
    inwards = sorted(range(len(models)), key=lambda i: (min(i, len(models) - 1 - i), i))
    counts = accumulate(sum(map(len, models[i].values())) for i in inwards)
    if len(board.records) > FULL:
        inwards = [i for i, count in zip(inwards, counts, strict=True) if count <= DETAILED]
    return sorted(inwards)


def _at(places: Sequence[int], values: Sequence[T], count: int, other: T) -> list[T]:
    """A list of `count`, with `values` at `places` and `other` elsewhere."""
    found = dict(zip(places, values, strict=True))
    return [found.get(place, other) for place in range(count)]


def _left_out(board: Board, shown: Sequence[int]) -> str:
    """What a page that shows the details of the models at the places `shown` leaves out."""
    first = -(-len(shown) // 2)
    return (
        f"This page is of {len(board.records):,} records: ranks and differences that rest on "
        f"samples are those of {board.sort}, and the first {first:,} and the last "
        f"{len(shown) - first:,} models have maps, a report and their records. Rank by another "
        "metric with --sort, choose models with --where; perimetry show has every model."
    )


def _thumbs(models: Sequence[Variants]) -> tuple[str, list[dict[str, list[Any]]]]:
    """All thumbnails in a block; by model and fill their kind, rows, columns, top, offset."""
    data = bytearray()
    shapes = []
    for fills in models:
        shown: dict[str, list[Any]] = {}
        for fill, records in fills.items():
            shown[fill] = []
            for pixels, facts in thumbs(records):
                shown[fill].append([*facts, len(data)])
                data += pixels
        shapes.append(shown)
    return packed(bytes(data)), shapes


def _colours() -> dict[str, str]:
    """Red, green and blue (256, 3) of both colour maps, in base64."""
    keep_matplotlib_out_of_home()
    from matplotlib import colormaps

    names = {"magnitude": COLOURS, "signed": SIGNED_COLOURS}
    tables = {k: colormaps[n](range(256), bytes=True)[:, :3].tobytes() for k, n in names.items()}
    return {k: base64.b64encode(table).decode() for k, table in tables.items()}
