"""A map as an `<img>` for HTML that has no scripts: notebooks and the page of a comparison.

The picture has one pixel for each value and is enlarged by the browser to whole multiples, without
smoothing; its colours are those of `canvas`.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..output.matplotlib_files import keep_matplotlib_out_of_home
from ..output.templates import trusted
from ..output.text import clean

if TYPE_CHECKING:
    from markupsafe import Markup

    from .canvas import Scale


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

    share = (scale.shown - scale.low) / ((scale.high - scale.low) or 1.0)
    picture = Image.fromarray(np.round(np.clip(share, 0, 1) * 255).astype(np.uint8), mode="P")
    picture.putpalette(colormaps[scale.colours](range(256), bytes=True)[:, :3].tobytes())
    stream = io.BytesIO()
    picture.save(stream, format="png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"


def ends(scale: Scale) -> str:
    """The values of the darkest and the brightest colour, and their unit."""
    return f"{scale.low:.3g} to {scale.high:.3g}, {scale.label}"
