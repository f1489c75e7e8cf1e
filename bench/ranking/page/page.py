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
from typing import TYPE_CHECKING, Any

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


MEGABYTE = 1_000_000


LARGEST = 8 * MEGABYTE
"""The default limit for the size of a page, in bytes."""


TABLES_ROOM = 0.2
"""Records keep their tables if these take at most this share of the page."""


FULL, DETAILED = 4_000, 600
"""A page of more than the first number of records has details of models of the second."""


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
    models = [whole(variants) for variants in every[: _detailed(board, every)]]
    tables = tables_fit(models, TABLES_ROOM * room)
    raw = raw_records(models, tables=tables)
    small, shapes = _thumbs(models)
    numbers = packed_json(content(board, joined, lean=len(board.records) > FULL, view=view))
    room -= raw.size + len(small) + len(numbers)
    level = choose_level([records for variants in models for records in variants.values()], room)
    words, maps = panels(models, board.suites, level)
    groups = {"words": words, "maps": maps, "records": raw}
    details = {
        "thumbs": shapes + [{}] * (len(every) - len(models)),
        "places": {
            name: [*group.places, *[None] * (len(every) - len(models))]
            for name, group in groups.items()
        },
        "left_out": _left_out(board, len(models)) if len(models) < len(every) else "",
        "tables": tables,
        "level": level,
        "colours": _colours(),
        "made": f"perimetry {metadata.version('perimetry')}, {when:%Y-%m-%d}",
    }
    blocks = {"data": numbers, "details": packed_json(details), "thumbs": small}
    for name, group in groups.items():
        blocks |= {f"{name}-{number}": block for number, block in enumerate(group.blocks)}
    return blocks


def _detailed(board: Board, models: Sequence[Variants]) -> int:
    """The number of models, from the first, whose maps, texts and records are in the page."""
    if len(board.records) <= FULL:
        return len(models)
    counts = accumulate(sum(map(len, variants.values())) for variants in models)
    return sum(count <= DETAILED for count in counts)


def _left_out(board: Board, detailed: int) -> str:
    return (
        f"This page is of {len(board.records):,} records: ranks and differences that rest on "
        f"samples are those of {board.sort}, and the first {detailed:,} models have maps, a report "
        "and their records. Rank by another metric with --sort, choose models with --where; "
        "perimetry show has every model."
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
