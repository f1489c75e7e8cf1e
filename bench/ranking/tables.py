"""The board for people and programs: terminal table, Markdown, LaTeX, CSV, JSON.

The table, Markdown and LaTeX show the columns of a `View` (see `cells`), with `n/a [1]` or
`failed [1]` and the reason in a footnote where a number is missing. CSV and JSON hold all columns,
or those of the view with their intervals; there, what is missing is empty or null, with its reason
beside it.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

from ..output.layout import tabulated
from ..output.numbers import join_with_and
from ..output.text import clean, code, spreadsheet
from ..records.selection import said_first
from .caption import caption
from .cells import DROPPED_FIRST, Footnotes, table_cells
from .row import FACTS
from .view import View, shown_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .board import Board
    from .row import BoardRow


FORMATS = ("table", "md", "csv", "json", "tex")


def render_board(
    board: Board, form: str, *, width: int | None = None, view: View | None = None
) -> str:
    """The board as `form`, one of `FORMATS`; a table drops columns until it fits `width`.

    Raises `UnknownNameError` for a column of `view` that the board does not have.
    """
    view = view or View()
    groups = shown_groups(board, view)
    if form == "csv":
        return to_csv(board, groups, view)
    if form == "json":
        return to_json(board, groups, view)
    if form == "md":
        return _to_markdown(board, groups, view)
    if form == "tex":
        return _to_latex(board, groups, view)
    return _to_table(board, groups, view, width)


def to_csv(board: Board, groups: Groups | None = None, view: View | None = None) -> str:
    """All columns; text that a spreadsheet could read as a formula is quoted."""
    from .view import board_frame

    frame = board_frame(board, view or View(), groups)
    for name in frame.columns:
        values = frame[name]
        if values.map(lambda v: isinstance(v, str)).any():
            frame[name] = values.map(lambda v: spreadsheet(v) if isinstance(v, str) else v)
    text: str = frame.to_csv(index=False, lineterminator="\n")
    return text


def to_json(board: Board, groups: Groups | None = None, view: View | None = None) -> str:
    """All columns, rows in rank order, with the caption."""
    from .view import frame_rows

    view = view or View()
    content = {
        "sort": board.sort,
        "ranked": board.rank,
        "caption": _caption(board, groups or shown_groups(board, view), view),
        "rows": list(frame_rows(board, view, groups)),
    }
    return json.dumps(content, indent=1, allow_nan=False) + "\n"


Groups = list[list["BoardRow"]]

MOST_NAMED = 3
"""Models of one warning that are named one by one."""


def _rows(groups: Groups) -> list[BoardRow]:
    """The rows of all groups."""
    return [row for rows in groups for row in rows]


def _caption(board: Board, groups: Groups, view: View) -> list[str]:
    """The caption of the rows that are shown."""
    return caption(board, _rows(groups), intervals=view.intervals)


def _warnings(groups: Groups) -> list[str]:
    """A line for each note that changes what all numbers of a model mean, with the models."""
    found: dict[str, dict[str, None]] = {}
    for row in _rows(groups):
        for note in said_first(row.records.values()):
            found.setdefault(note, {})[row.model] = None
    return [f"{_some(list(models))}: {note}." for note, models in found.items()]


def _some(models: list[str]) -> str:
    """The names of models, or how many they are and the first of them."""
    if len(models) <= MOST_NAMED:
        return join_with_and(models)
    return f"{len(models)} models ({models[0]} and others)"


def _to_markdown(board: Board, groups: Groups, view: View) -> str:
    notes = Footnotes()
    names = [board.names[rows[0].model] for rows in groups]
    heads, rows = table_cells(board, groups, view, notes, [code(name) for name in names])
    parts = [
        tabulated(heads, rows, "pipe", _sides(heads)),
        *map(code, _warnings(groups)),
        *_caption(board, groups, view),
    ]
    parts += [f"[{n}] {code(text)}" for text, n in notes.numbers.items()]
    return "\n\n".join(parts) + "\n"


def _to_latex(board: Board, groups: Groups, view: View) -> str:
    """A `tabular` for the booktabs package with its footnotes; the caption is a comment above."""
    notes = Footnotes()
    names = [clean(name, 10_000) for name in [board.names[rows[0].model] for rows in groups]]
    heads, rows = table_cells(board, groups, view, notes, names)
    table = _booktabs(heads, rows)
    above = [
        *map(clean, _warnings(groups)),
        *_caption(board, groups, view),
        r"\usepackage{booktabs}",
    ]
    below = [rf" [{n}] {_tex(clean(text))}\par" for text, n in notes.numbers.items()]
    foot = [r"\par\smallskip\footnotesize", *below] if below else []
    return "\n".join([*(f"% {line}" for line in above), r"\begingroup", table, *foot]) + (
        "\n\\endgroup\n"
    )


def _booktabs(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A `tabular` with the rules of booktabs."""
    lines = [" " + " & ".join(map(_tex, cells)) + r" \\" for cells in (heads, *rows)]
    columns = "".join(side[0] for side in _sides(heads))
    parts = [rf"\begin{{tabular}}{{{columns}}}", r"\toprule", lines[0], r"\midrule", *lines[1:]]
    return "\n".join([*parts, r"\bottomrule", r"\end{tabular}"])


TEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "<": r"$<$",
    ">": r"$>$",
    "²": r"$^2$",
}


def _tex(text: str) -> str:
    """`text` for LaTeX; a bracket or star at its start is not read as an option."""
    shown = "".join(TEX.get(char, char) for char in text)
    return f"{{}}{shown}" if shown.startswith(("[", "*")) else shown


def _to_table(board: Board, groups: Groups, view: View, width: int | None) -> str:
    notes = Footnotes()
    names = cut_names([board.names[rows[0].model] for rows in groups])
    heads, rows = table_cells(board, groups, view, notes, names)
    text, hidden = _fitted(heads, rows, width if view.columns is None else None)
    lines = [
        text,
        "",
        *map(clean, _warnings(groups)),
        *_caption(board, groups, view),
    ]
    if hidden:
        lines.append(f"Hidden to fit the terminal: {', '.join(hidden)}.")
    lines += [f"[{n}] {clean(text)}" for text, n in notes.numbers.items()]
    return "\n".join(lines) + "\n"


def _fitted(heads: list[str], rows: list[list[str]], width: int | None) -> tuple[str, list[str]]:
    """The table without the columns that do not fit `width`, and these columns."""
    hidden: list[str] = []
    candidates = [head for head in DROPPED_FIRST if head in heads]
    while True:
        kept = [i for i, head in enumerate(heads) if head not in hidden]
        shown = [heads[i] for i in kept]
        text = tabulated(shown, [[r[i] for i in kept] for r in rows], align=_sides(shown))
        if width is None or not candidates or len(text.split("\n", 1)[0]) <= width:
            return text, hidden
        hidden.append(candidates.pop(0))


WORDS = ("model", "padding", "defects", *FACTS)
"""Columns that are aligned at the left."""


def _sides(heads: Sequence[str]) -> list[str]:
    return ["left" if head in WORDS else "right" for head in heads]


NAME_WIDTH = 32
"""Characters of a name in a terminal, if that tells it from the others."""


def cut_names(names: Sequence[str]) -> list[str]:
    """`names` without the middle of longer ones; where two would be alike, more of them is left."""
    left, width = list(dict.fromkeys(names)), NAME_WIDTH
    found: dict[str, str] = {}
    while left:
        cut = {name: clean(name, width) for name in left}
        times = Counter([*cut.values(), *found.values()])
        found |= {name: cut[name] for name in left if times[cut[name]] == 1 or len(name) <= width}
        left = [name for name in left if name not in found]
        width += 8
    return [found[name] for name in names]
