"""A map as an `<img>` for HTML that has no scripts: notebooks and the page of a comparison.

The picture has one pixel for each value and is enlarged by the browser to whole multiples, without
smoothing; its colours are those of `canvas`.
"""

from __future__ import annotations

import base64
import html
import io
from typing import TYPE_CHECKING

import numpy as np

from ..output.matplotlib_files import keep_matplotlib_out_of_home
from ..output.text import clean

if TYPE_CHECKING:
    from .canvas import Scale


LARGEST = 320
"""About how many CSS pixels the longer side takes; larger maps keep their own size."""


def image_tag(scale: Scale, words: str, side: int = LARGEST) -> str:
    """The picture with `words` for those who do not see it; they are escaped."""
    rows, columns = scale.shown.shape
    dot = max(1, side // max(rows, columns))
    size = f'width="{columns * dot}" height="{rows * dot}"'
    style = 'style="image-rendering:pixelated"'
    told = html.escape(clean(words), quote=True)
    return f'<img src="{data_address(scale)}" {size} {style} alt="{told}">'


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
    """What the darkest and the brightest colour stand for."""
    return f"{scale.low:.3g} to {scale.high:.3g}, {scale.label}"
