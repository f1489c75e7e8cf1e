"""A record as HTML, for notebooks: what it is of, maps, metrics, and why some are missing."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any, Protocol

from ..output.damaged import BROKEN
from ..output.numbers import Interval, with_interval_text
from ..output.text import clean
from .data_uri import ends, image_tag
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
    error: Any

    @property
    def status(self) -> str:
        """`ok`, `skipped` or `failed`."""

    @property
    def reason(self) -> str | None:
        """Why it was skipped."""

    @property
    def notes(self) -> Sequence[str]:
        """Remarks, in sentences."""

    @property
    def metrics(self) -> Mapping[str, Shown]:
        """Values by name."""


SIDE = 224
"""About how many pixels a map's longer side takes."""


def record_html(record: RecordSource) -> str:
    """A heading and a table; everything that came from a model or a file is escaped."""
    heading = f"<b>{_safe(record.label)}</b>: {_safe(_status(record))}"
    rows = "".join(_row(name, held) for name, held in record.metrics.items())
    table = f"<table><tr><th>metric</th><th>value</th></tr>{rows}</table>" if rows else ""
    notes = "".join(f"<li>{_safe(note)}</li>" for note in record.notes)
    return f"<div>{heading}{_maps(record)}{table}{f'<ul>{notes}</ul>' if notes else ''}</div>"


def _status(record: RecordSource) -> str:
    """The status, with the reason of what was not measured."""
    if record.status == "ok":
        images = record.images
        return f"{images.count} x {images.name}" if images else "exact"
    why = record.error.message if record.error else record.reason
    return f"{record.status}: {why or 'no reason was kept'}"


def _maps(record: RecordSource) -> str:
    """The maps side by side, each with what its colours mean."""
    try:
        drawn = drawings(record)
    except BROKEN:
        return "<p>Its maps cannot be read.</p>"
    figures = "".join(
        f'<figure style="margin:0">{image_tag(scale, f"{name} of {record.label}", SIDE)}'
        f"<figcaption><small>{_safe(name)}: {_safe(ends(scale))}</small></figcaption></figure>"
        for name, (scale, _) in drawn.items()
    )
    style = "display:flex;flex-wrap:wrap;gap:16px;margin:8px 0"
    return f'<div style="{style}">{figures}</div>' if figures else ""


def _row(name: str, held: Shown) -> str:
    value = held.reason or "n/a" if held.value is None else with_interval_text(held)
    return f"<tr><td>{_safe(name)}</td><td>{_safe(value)}</td></tr>"


def _safe(text: str) -> str:
    return html.escape(clean(text))
