"""The layout of a report: sections of sentences and small tables, folded to a width.

Every text passes through this module, which removes control characters, line breaks and changes of
writing direction that the texts of models and records may contain.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .text import clean

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence


WIDTH = 96
"""The width without a terminal, and the largest width."""

NARROWEST = 40

UNBROKEN = "\u00a0"
"""A non-breaking space, which is shown as a plain space."""

LONGEST = 4000


@dataclass(frozen=True)
class Table:
    """A small table with a line above it; cells are text that is safe to show."""

    caption: str
    heads: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Literal:
    """A line that must stay whole, such as a command."""

    text: str


Block = str | Table | Literal


@dataclass
class Section:
    """A heading and the blocks below it; a text is one sentence or paragraph."""

    title: str
    blocks: list[Block] = field(default_factory=list)


def lay_out(
    sections: Sequence[Section], width: int = WIDTH, heading: Callable[[str], str] = str
) -> str:
    """The sections that are not empty, as text of at most `width` columns if possible."""
    width = max(NARROWEST, min(width, WIDTH))
    parts = [
        "\n".join(
            [
                heading(clean(section.title, width)),
                *(_block(block, width) for block in section.blocks),
            ]
        )
        for section in sections
        if section.blocks
    ]
    return "\n\n".join(parts) + "\n"


def safe(text: str) -> str:
    """`text` made safe to show; non-breaking spaces are kept."""
    return UNBROKEN.join(clean(part, LONGEST) for part in text.split(UNBROKEN))


def _block(block: Block, width: int) -> str:
    if isinstance(block, Literal):
        return f"    {clean(block.text, LONGEST)}"
    if isinstance(block, Table):
        return _table(block, width)
    text = textwrap.fill(
        safe(block),
        width,
        initial_indent="  - ",
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return text.replace(UNBROKEN, " ")


def _table(table: Table, width: int) -> str:
    """The table under its caption, which names the columns on the right that have no room."""
    heads, rows = list(table.heads), [list(row) for row in table.rows]
    left_out: list[str] = []
    text = _tabulated(heads, rows)
    while len(text[0]) > width and len(heads) > 2:
        left_out.insert(0, heads.pop())
        rows = [row[: len(heads)] for row in rows]
        text = _tabulated(heads, rows)
    if len(text[0]) > width and rows:
        room = max(map(len, (row[0] for row in rows))) - (len(text[0]) - width)
        text = _tabulated(heads, [[clean(row[0], max(room, 8)), *row[1:]] for row in rows])
    caption = table.caption + (f" (no room for {', '.join(left_out)})" if left_out else "")
    return "\n".join([*([_block(caption.strip(), width)] if caption else []), *text])


def _tabulated(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    align = ["left"] + ["right"] * (len(heads) - 1)
    text = tabulated(heads, [[clean(cell) for cell in row] for row in rows], align=align)
    return [f"    {line}" for line in text.split("\n")]


def tabulated(
    heads: Sequence[str],
    rows: Iterable[Sequence[object]],
    form: str = "simple",
    align: Sequence[str] | None = None,
) -> str:
    """`rows` under `heads` in one of tabulate's forms; cells are shown as they are given."""
    from tabulate import tabulate

    text: str = tabulate(list(rows), heads, form, disable_numparse=True, colalign=align)
    return text
