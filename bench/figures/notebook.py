"""A record as HTML for notebooks, and a map as an `<img>` for HTML that has no scripts.

The picture has one pixel for each value and is enlarged by the browser to whole multiples, without
smoothing; its colours are those of `canvas`.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..output.numbers import with_interval_text
from ..output.templates import render, trusted
from ..output.text import clean
from .canvas import keep_matplotlib_out_of_home, quantised
from .maps import MapSource, drawings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from markupsafe import Markup

    from .canvas import Scale


class RecordSource(MapSource, Protocol):
    """A record as HTML, as notebooks show it."""

    images: Any
    metrics: Any

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


SIDE = 224
"""About how many pixels a map's longer side takes."""


def record_html(record: RecordSource) -> str:
    """The status, maps, metrics and notes of a record as a fragment of HTML."""
    rows = [
        (
            name,
            one.reason or "n/a"
            if one.value is None
            else with_interval_text(one.value, one.low, one.high),
        )
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


LARGEST = 320
"""About how many CSS pixels the longer side takes; larger maps keep their own size."""


@dataclass(frozen=True)
class Picture:
    """A map for the template of a page: address, size in CSS pixels, alternative text, caption."""

    address: Markup
    width: int
    height: int
    words: str
    caption: str


def picture(scale: Scale, words: str, name: str, side: int = LARGEST) -> Picture:
    """The map drawn with `words` as its alternative text, and `name` and its scale as caption."""
    rows, columns = scale.shown.shape
    dot = max(1, side // max(rows, columns))
    caption = f"{clean(name, 80)}: {ends(scale)}"
    return Picture(trusted(data_address(scale)), columns * dot, rows * dot, words, caption)


def data_address(scale: Scale) -> str:
    """The map as a PNG in a `data:` address."""
    keep_matplotlib_out_of_home()
    from matplotlib import colormaps
    from PIL import Image

    picture = Image.fromarray(quantised(scale.shown, scale.low, scale.high), mode="P")
    picture.putpalette(colormaps[scale.colours](range(256), bytes=True)[:, :3].tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def ends(scale: Scale) -> str:
    """The values of the darkest and the brightest colour, and their unit."""
    return f"{scale.low:.3g} to {scale.high:.3g}, {scale.label}"
