"""What is said of dead regions where no suite names one: what was looked for, and what can hide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapters.errors import CONSTANT, NOT_FINITE
from ..output.numbers import join_with_and
from ..output.text import clean
from ..records.selection import prefix_of, said_first
from .reported import reported

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...suites.base import Suite
    from ..records.record import Record

NO_PIXEL = "all pixels are dead: none changes the output"
"""What is said of a model that gives every image the same output."""

WHY = {
    "failed": ("failed", "failed"),
    "skipped": ("does not apply", "do not apply"),
}
"""What is said of one suite, and of several, without a result."""


def dead_region_line(
    dead: Sequence[str], records: Sequence[Record], suites: Mapping[str, Suite]
) -> str:
    """The clauses `dead` on dead regions with what can hide beside them, or why there are none."""
    if not dead:
        return no_dead_region(records, suites)
    return "; ".join([*dead, *can_hide(records, suites)])


def no_dead_region(records: Sequence[Record], suites: Mapping[str, Suite]) -> str:
    """Which suites looked for dead regions, or why none did, in a clause."""
    if void := void_search(records):
        return void
    found = reported(records, suites)
    looked = ", ".join(one.column for one in found if one.looked)
    if looked:
        return f"none found ({'; '.join([looked, *can_hide(records, suites)])})"
    if unmeasured := _without_result(records, suites):
        other = (
            "" if _ran(records, "padding") else "; the suite padding finds them without gradients"
        )
        return f"not known: {unmeasured}, for reasons under Not measured{other}"
    if any(one.column == "padding" for one in found):  # it looks in models without gradients
        return "not looked for; the suite deadpixel finds them in models with gradients"
    return "not looked for; the suites deadpixel and padding find them"


def void_search(records: Sequence[Record]) -> str:
    """Why a search that finds nothing says nothing: outputs that are constant, or not finite."""
    notes = said_first(records)
    if any(note.startswith(CONSTANT) for note in notes):
        return NO_PIXEL
    return next((f"not known: {clean(n, 200)}" for n in notes if n.startswith(NOT_FINITE)), "")


def can_hide(records: Sequence[Record], suites: Mapping[str, Suite]) -> tuple[str, ...]:
    """What the suites that looked for dead regions do not count or cannot see, in clauses."""
    found = reported(records, suites)
    return tuple(dict.fromkeys(one.unseen for one in found if one.looked and one.unseen))


def _ran(records: Sequence[Record], suite: str) -> bool:
    """Whether there is any record of `suite`, be it without a result."""
    return any(record.suite == suite for record in records)


def _without_result(records: Sequence[Record], suites: Mapping[str, Suite]) -> str:
    """Which suites that find dead regions failed or do not apply; empty if none did."""
    by_status: dict[str, list[str]] = {}
    for record in records:
        suite = suites.get(record.suite)
        if getattr(suite, "defect_tables", None) and record.status in WHY:
            name = clean(prefix_of(record.suite, record.protocol, suites), 60)
            by_status.setdefault(record.status, []).append(name)
    return " and ".join(
        f"{join_with_and(names)} {WHY[status][len(names) > 1]}"
        for status, names in by_status.items()
    )
