"""Placing one model among a published set: its rank there, and its neighbours.

The model is measured by the suite, protocol and settings of the set, unless its records are stored.
It then ranks among the rows of the set that have its kernel padding, by the rules of the board
(see `statistics.ranks`). Records of other protocol versions or settings are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from ...adapters.errors import InputError, NotMeasuredError
from ..execution.keywords import read_keywords
from ..execution.rerun import RerunOptions
from ..output.layout import Section, lay_out, tabulated
from ..output.numbers import column_texts
from ..output.text import clean
from ..ranking.board import Board
from ..ranking.cells import bounded
from ..records.selection import (
    MixedRecordsError,
    check_unmixed,
    choose,
    differences,
    read_folder,
    why_missing,
)
from .audited import MissingAudit
from .sources import one_side

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..execution.rerun import RerunFields
    from ..ranking.row import BoardRow
    from ..records.record import Record
    from ..statistics.ranks import Rank

NEIGHBOURS = 3
"""Rows that are shown on either side."""


@dataclass(frozen=True)
class Placement:
    """Where a model stands: its row, and the board that has it.

    `rows` are all rows with a value, best first, that of the model among them; `problems` say
    which files of the set could not be read and are left out.
    """

    board: Board
    column: str
    row: BoardRow
    rows: tuple[BoardRow, ...]
    problems: tuple[str, ...] = ()

    @property
    def rank(self) -> Rank:
        """The best and the worst rank that the model may have."""
        found = self.row.rank
        assert found is not None  # noqa: S101 - a row with a value has a rank
        return found

    @property
    def neighbours(self) -> tuple[list[BoardRow], list[BoardRow]]:
        """The next better rows, nearest last, and the next worse ones, nearest first."""
        place = self.rows.index(self.row)
        above, below = self.rows[:place], self.rows[place + 1 :]
        return list(above[-NEIGHBOURS:]), list(below[:NEIGHBOURS])


def place(
    model: Any, within: Path | str, *, sort: str | None = None, **options: Unpack[RerunFields]
) -> Placement:
    """Rank `model` among the records in `within`, a folder or a packed file.

    `model` is what one side of `compare` may be: a reference, `DIR:MODEL`, `...+box`, records, a
    module. `sort` is a column of the board, by default the one that the board ranks by; `options`
    are the fields of `execution.rerun.RerunOptions`. Raises `InputError` and `MixedRecordsError`
    for records that do not compare with those of the set, `NotMeasuredError` with the reason for a
    model without this number.
    """
    chosen = read_keywords(place, RerunOptions, options)
    records, problems = read_folder(Path(within))
    whole = Board(choose(records, chosen.where), sort=sort)
    column = whole.sort
    if column is None or column.startswith("model."):
        raise InputError(f"{str(within)!r} has no metric to rank by; expected records of a suite")
    prefix, _, metric = column.partition(".")
    peers = [r for r in whole.records if whole.prefix(r.suite, r.protocol) == prefix]
    side = one_side(model, peers, MissingAudit(options=chosen))
    own = _own(list(side.records.values()), side.name, peers[0])
    others = [r for r in peers if r.fill == own.fill and r.model.reference != own.model.reference]
    if not others:
        raise InputError(
            f"{str(within)!r} has no other model with kernel padding {own.fill}; expected a set to "
            "rank in"
        )
    board = Board([*others, own], sort=column)
    row = next(row for row in board.rows if row.model == own.model.reference)
    if row.value(column) is None:
        raise NotMeasuredError(f"{side.name!r} has no {column}: {why_missing(own, metric)}")
    valued = [one for one in board.rows if one.value(column) is not None]
    valued.sort(key=lambda one: (board.sort_key(one, column), one.model))
    return Placement(board, column, row, tuple(valued), tuple(problems))


def _own(records: Sequence[Record], name: str, peer: Record) -> Record:
    """The model's record of the suite and protocol of `peer`, measured in the same way."""
    own = [r for r in records if (r.suite, r.protocol) == (peer.suite, peer.protocol)]
    if not own:
        raise InputError(
            f"{name!r} has no record of {peer.suite}:{peer.protocol}, by which the set ranks; "
            "measure it with this suite, or name a model that is not stored"
        )
    try:
        check_unmixed([peer, own[0]])
    except MixedRecordsError as error:
        unlike = "; ".join(differences(own[0], peer)) or str(error)
        raise MixedRecordsError(
            f"{name!r} was measured differently from the set: {unlike}. Measure it with the set's "
            "settings, or name its reference: it is measured with them then"
        ) from error
    return own[0]


def placement_to_text(found: Placement, width: int = 96) -> str:
    """Rank, value, how many are shown to be better and worse, and the neighbours."""
    metric, total = found.board.metric(found.column), len(found.rows)
    better, worse = found.rank.low - 1, total - found.rank.high
    alike = total - 1 - better - worse
    above, below = found.neighbours
    rows = [*above, found.row, *below]
    values = [bounded(row, found.column) for row in rows]
    numbers = column_texts(values, counts=found.board.counts(found.column))
    definition = f" ({metric.definition})" if metric else ""
    defects = [found.board.defects(row) for row in rows]
    own = defects[len(above)]
    section = Section(
        f"{clean(found.row.model)}: rank {found.rank} of {total}",
        [
            *([f"Defects, which the rank does not count: {'; '.join(own)}."] if own else []),
            f"{found.column}{definition}: {numbers[len(above)]}.",
            f"Shown to be better: {better}; to be worse: {worse}; not shown to differ: {alike}.",
        ],
    )
    cells: list[tuple[str, ...]] = [
        (("> " if row is found.row else "  ") + clean(row.model), str(row.rank), number)
        for row, number in zip(rows, numbers, strict=True)
    ]
    heads: tuple[str, ...] = ("  model", "rank", found.column)
    if any(defects):
        kinds = (", ".join(dict.fromkeys(c.partition(":")[0] for c in one)) for one in defects)
        cells = [(*cell, kind) for cell, kind in zip(cells, kinds, strict=True)]
        heads = (*heads, "defects")
    table = tabulated(heads, cells)
    return f"{lay_out([section], width)}\n{table}\n"


def placement_to_json(found: Placement) -> dict[str, Any]:
    """The same as plain values."""
    return {
        "model": found.row.model,
        "fill": found.row.fill,
        "column": found.column,
        "rank": [found.rank.low, found.rank.high],
        "of": len(found.rows),
        "defects": found.board.defects(found.row),
        "rows": [
            {
                "model": row.model,
                "rank": [row.rank.low, row.rank.high] if row.rank else None,
                "value": row.value(found.column),
            }
            for row in found.rows
        ],
    }
