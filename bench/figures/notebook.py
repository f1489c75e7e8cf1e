"""A record as HTML for notebooks: status, maps, metrics, and why some are missing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from ..output.numbers import Interval, with_interval_text
from ..output.templates import render
from .data_uri import Picture, picture
from .maps import MapSource, drawings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Shown(Interval, Protocol):
    """A metric's value, or the reason why there is none."""

    @property
    def reason(self) -> str | None:
        """Why there is no value."""


class RecordSource(MapSource, Protocol):
    """What a notebook shows of a record."""

    images: Any

    @property
    def status(self) -> str:
        """`ok`, `skipped` or `failed`."""

    @property
    def damage(self) -> str | None:
        """What is wrong with the file of its arrays."""

    @property
    def why(self) -> str:
        """Why it was skipped, or failed."""

    @property
    def notes(self) -> Sequence[str]:
        """Remarks, in sentences."""

    @property
    def metrics(self) -> Mapping[str, Shown]:
        """Values by name."""


SIDE = 224
"""About how many pixels a map's longer side takes."""


def record_html(record: RecordSource) -> str:
    """The status, maps, metrics and notes of a record as a fragment of HTML."""
    rows = [
        (name, one.reason or "n/a" if one.value is None else with_interval_text(one))
        for name, one in record.metrics.items()
    ]
    parts = {"status": _status(record), "maps": _maps(record), "rows": rows}
    return render("notebook_record.html", record=record, **parts)


def _status(record: RecordSource) -> str:
    """The images, or why there is no measurement."""
    if record.status == "ok":
        images = record.images
        return f"{images.count} x {images.name}" if images else "exact"
    return f"{record.status}: {record.why}"


def _maps(record: RecordSource) -> list[Picture] | None:
    """The maps; None if they cannot be read."""
    found = [
        picture(scale, f"{name} of {record.label}", name, SIDE)
        for name, (scale, _) in drawings(record).items()
    ]
    return found if record.damage is None else None
