"""The sides of a comparison: one model variant each, with its records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError
from ..records.selection import check_unmixed, newest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ...adapters.treatment import Fill
    from ..records.record import Record


DEFAULT_FILL: Fill = "none"


@dataclass(frozen=True)
class Side:
    """One of what is compared: a model variant, its records by (suite, protocol), and its name.

    `thing` is what opens the model again: its reference, or what was given in Python. `folder` is
    where its records are stored, empty for others.
    """

    name: str
    reference: str
    fill: str
    records: Mapping[tuple[str, str], Record]
    thing: Any = None
    folder: str = ""


def side_of(records: Iterable[Record], name: str | None = None) -> Side:
    """The side that records of one model variant make, the newest of each suite and protocol.

    Raises `InputError` when they are of several variants, or none.
    """
    latest = newest(records)
    variants = {(r.model.reference, r.fill) for r in latest}
    if len(variants) != 1:
        raise InputError(
            f"records of {len(variants)} model variants were given as one side; expected one model "
            "with one kernel padding"
        )
    check_unmixed(latest)
    reference, fill = next(iter(variants))
    return Side(
        name or variant_name(reference, fill),
        reference,
        fill,
        {(r.suite, r.protocol): r for r in latest},
        reference,
    )


def why_not_measured(side: Side) -> str | None:
    """Why nothing of a model could be measured; None if something was."""
    records = list(side.records.values())
    if any(record.status == "ok" for record in records):
        return None
    return next((r.error.message for r in records if r.error), records[0].reason) or "unknown"


def variant_name(reference: str, fill: str) -> str:
    """`REF`, or `REF+FILL` of a model with kernel padding."""
    return reference if fill == DEFAULT_FILL else f"{reference}+{fill}"


def error_text(record: Record) -> str:
    """What a record says of its failure."""
    return record.error.message if record.error else "no reason was recorded"
