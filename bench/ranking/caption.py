"""The lines below a board: what is ranked and how, what ranks and intervals mean, what it is of."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from ...suites.base import ANSWER_IS, MAPS_OF, MEASURED_AT
from ...suites.deadpixel.suite import NOT_ALWAYS_BETTER
from ..output.numbers import join_with_and
from ..output.text import clean
from ..records.fed import fed_differently
from ..records.selection import older_versions
from ..statistics.difference import ENOUGH_SAMPLES, is_exact, more_samples, sample_count
from .row import SIZES, row_facts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ..records.record import Record
    from .board import Board
    from .row import BoardRow


DEFECTS_NOTE = (
    "Defects are certain, and the rank does not count them: the rest of a model with a dead region "
    "may be even."
)


def caption(
    board: Board, rows: Sequence[BoardRow] | None = None, *, intervals: bool = True
) -> list[str]:
    """The lines below a board that explain its order, its intervals and where it comes from.

    They are about the `rows` that are shown, or all.
    """
    rows = board.rows if rows is None else rows
    lines = []
    metric = board.metric(board.sort or "")
    if board.sort in SIZES:
        lines.append(
            f"Ranked by {board.sort}, smallest first; MACs are for one image. "
            f"{_what_is_ranked(board)}".rstrip()
        )
    if metric is not None:
        best = {"lower": ", lowest first", "higher": ", highest first", "neither": ""}
        lines.append(
            f"Ranked by {board.sort} ({metric.definition}){best[metric.better]}. "
            f"{_what_is_ranked(board)}{_ties(board, rows, intervals)}"
        )
        lines += few_samples(row.find(board.sort or "") for row in rows)
    lines += fed_differently((row.model, _record_of(row)) for row in rows)
    if any(column.startswith("deadpixel") for column in board.columns):
        lines.append(NOT_ALWAYS_BETTER)
    if any(board.defects(row) for row in rows):
        lines.append(DEFECTS_NOTE)
    return [*lines, *_measured(rows), *_made_with(board, rows)]


def _record_of(row: BoardRow) -> Record:
    """The record that says most of a row's input: one with images if there is one."""
    records = list(row.records.values())
    return max(records, key=lambda r: (bool(r.model.spec), r.images is not None))


MOST_REASONS = 3


NAMING = (MEASURED_AT, MAPS_OF, ANSWER_IS)


def _measured(rows: Sequence[BoardRow]) -> list[str]:
    """Which tensors were measured: the reasons of the rows' targets, the most frequent first."""
    reasons = [str(reason) for row in rows if (reason := row_facts(row)["reason"])]
    counts = Counter(re.sub(r" \(.*? units\)", "", reason) for reason in reasons)
    said = [f"{clean(why, 200)} ({n} of {len(rows)} rows)" for why, n in counts.most_common()]
    more = f"; and {len(said) - MOST_REASONS} other reasons" if len(said) > MOST_REASONS else ""
    lines = [f"Measured: {'; '.join(said[:MOST_REASONS])}{more}."] if said else []
    records = (record for row in rows for record in row.records.values())
    own = {record.suite for record in records if _is_at_output(record)}
    return [*lines, f"At the output, not there: {', '.join(sorted(own))}."] if own else lines


def _is_at_output(record: Record) -> bool:
    """Whether a note names a measured map that is not the target."""
    target = f"{(record.model.target or {}).get('name', '')!a}"
    return any(
        note.startswith(prefix) and not note.startswith(f"{prefix}{target},")
        for note in record.notes
        for prefix in NAMING
    )


def few_samples(found: Iterable[tuple[Record | None, str]]) -> list[str]:
    """A warning that ranks mean little, where an estimate of a record rests on few samples."""
    estimated = [
        record
        for record, name in found
        if record is not None and name in record.metrics and not is_exact(record, name)
    ]
    scarce = min(estimated, key=sample_count, default=None)
    if scarce is None or sample_count(scarce) >= ENOUGH_SAMPLES:
        return []
    return [
        f"Fewer than {ENOUGH_SAMPLES} samples ({sample_count(scarce)}): intervals are wide and "
        f"ranks mean little; {more_samples(scarce)}."
    ]


def _what_is_ranked(board: Board) -> str:
    """Models or variants, where there are several variants of a model."""
    if all(row.fill == board.base for row in board.rows):
        return ""
    if board.rank == "variants":
        return "Every variant is ranked. "
    return "Models are ranked as they are; rows with kernel padding follow their model. "


def _ties(board: Board, rows: Sequence[BoardRow], intervals: bool) -> str:
    """When rows share a rank, and how intervals are written if they are."""
    values = (row.find(board.sort or "") for row in rows)
    estimates = [r.metrics[m] for r, m in values if r is not None and m in r.metrics]
    if all(one.low is None for one in estimates if one.value is not None):
        return (
            "Rows whose printed digits agree share a rank, and so do estimates without an interval."
        )
    return (
        "A rank such as 2 to 5 means that the samples do not show more: over the whole board, the "
        "chance that two equal rows get different ranks is at most 5 %. Rows of one rank are "
        "ordered by name."
        f"{' ± gives half a 95 % interval, brackets give both ends.' if intervals else ''}"
    )


def _image_sets(records: Iterable[Record]) -> list[str]:
    """Each image set with the numbers of images that the records were made from."""
    counts: dict[tuple[str, int], set[int]] = {}
    for record in records:
        if record.images:
            counts.setdefault((record.images.name, record.seed), set()).add(record.images.count)
    found = []
    for (name, seed), numbers in sorted(counts.items()):
        ends = f"{min(numbers)} to {max(numbers)}"
        many = ends if len(numbers) > 2 else join_with_and(list(map(str, sorted(numbers))))
        found.append(f"{many} x {name}, seed {seed}")
    return found


def _made_with(board: Board, rows: Sequence[BoardRow]) -> list[str]:
    """Protocols and images behind the numbers."""
    records = [record for row in rows for record in row.records.values()]
    protocols = {f"{r.suite}:{r.protocol} (version {r.version})" for r in records}
    images = _image_sets(records)
    fitted = {f"{r.fit_images.count} x {r.fit_images.name}" for r in records if r.fit_images}
    lines = [f"Protocols: {', '.join(sorted(protocols))}."] if protocols else []
    lines += older_versions(records, board.suites)
    if images:
        lines.append(f"Images: {clean('; '.join(images))}.")
    if fitted:
        lines.append(
            f"Kernel padding fit was fitted on {clean(', '.join(sorted(fitted)))}, none of which "
            "are among these images."
        )
    return lines
