"""One map on one canvas: the picture of an array, with colour bar, ticks, stride grid and title.

Every value is a square of whole screen pixels, so that a pattern of period 2 in a map is a pattern
of period 2 in the picture, never moiré. Nothing here has a window or global state, and titles are
plain text: nothing in a model's name is read as a formula.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import math
import os
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.scratch import scratch_folder
from ..output.files import write_atomically
from ..output.text import ascii_only

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

    Array = np.ndarray[Any, np.dtype[np.float64]]
    Pair = tuple[int, int]
    Span = tuple[float, float]


COLOURS = "cividis"

SIGNED_COLOURS = "RdBu_r"

DPI = 110

FORMATS = ("png", "svg", "pdf")
"""What pictures are written as."""

SIDE = 448
"""The approximate length of a map's longer side in screen pixels; larger maps are not reduced."""

LEFT, RIGHT, TOP, BOTTOM = 74, 118, 64, 52
"""Margins around the map in screen pixels, for ticks, colour bar, title and axis label."""

ACROSS = 3

BAR, GAP = 16, 14
"""Width of the colour bar and its distance from the map, in screen pixels."""

NUMBERED = 8
"""Maps of at most this many values per side have their numbers written into them."""

FEW = 10
"""Scales that end below this value have two decimals."""

TICKS = 9
"""The largest number of ticks along an axis; they are at multiples of a power of 2."""


@dataclass(frozen=True)
class Scale:
    """The values of a map that are drawn, the ends of their scale, and the colour bar's label."""

    shown: Array
    low: float
    high: float
    label: str
    colours: str = COLOURS

    @property
    def beyond(self) -> str:
        """Which ends of the scale values exceed, in matplotlib's words."""
        above, below = self.shown.max() > self.high, self.shown.min() < self.low
        return {(1, 1): "both", (1, 0): "max", (0, 1): "min"}.get((above, below), "neither")


@dataclass(frozen=True)
class Frame:
    """The frame of a map: title lines, axis names, steps of the grid, and its size in pixels.

    `grid` are the rows and columns between two light lines; `bar` says what they enclose, if its
    size is to stand above the map; `spans` are the pixels that rows and columns reach over, where a
    value is not one pixel.
    """

    title: str
    axes: tuple[str, str] = ("row (pixel)", "column (pixel)")
    grid: Pair | None = None
    bar: str = ""
    spans: tuple[Span, Span] | None = None


def quantised(values: Array, low: float, high: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """`values` as bytes: 0 at `low` and below, 255 at `high` and above."""
    share = (values - low) / ((high - low) or 1.0)
    return np.round(np.clip(share, 0, 1) * 255).astype(np.uint8)


def draw_scale(scale: Scale, path: Path, frame: Frame, dpi: int = DPI) -> None:
    """Lay out map, colour bar and text in whole screen pixels, and write the picture.

    The suffix of `path` is one of `FORMATS`. A PNG has at least `dpi` dots an inch: a multiple of
    `DPI`, so that values stay squares of whole pixels. Equal maps give equal bytes.
    """
    keep_matplotlib_out_of_home()
    from matplotlib import rc_context

    figure = sheet([(scale, frame)])
    form = path.suffix.removeprefix(".")
    dots = DPI * math.ceil(dpi / DPI) if form == "png" else DPI
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(form)
    with rc_context({"svg.hashsalt": "perimetry", "pdf.fonttype": 42}):
        write_atomically(
            path, lambda stream: figure.savefig(stream, format=form, metadata=dated, dpi=dots)
        )


def sheet(panels: Sequence[tuple[Scale, Frame]]) -> Figure:
    """Maps side by side, at most `ACROSS` in a row, as one figure; it shows itself in notebooks."""
    keep_matplotlib_out_of_home()
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    sizes = [_size(scale) for scale, _ in panels]
    lines = [range(n, min(n + ACROSS, len(panels))) for n in range(0, len(panels), ACROSS)]
    width = max(sum(sizes[n][0] for n in line) for line in lines)
    heights = [max(sizes[n][1] for n in line) for line in lines]
    whole = (width, sum(heights))
    figure = _shown_figure()(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    top = whole[1]
    for line, height in zip(lines, heights, strict=True):
        left = 0
        for n in line:
            _panel(figure, whole, (left, top - sizes[n][1]), *panels[n])
            left += sizes[n][0]
        top -= height
    return figure


@cache
def _shown_figure() -> type[Figure]:
    """A figure that a notebook shows as a picture, whether or not pyplot was set up there."""
    keep_matplotlib_out_of_home()
    from matplotlib.figure import Figure

    class Shown(Figure):
        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=DPI)
            return stream.getvalue()

    return Shown


def _dot(scale: Scale) -> int:
    return max(1, round(SIDE / int(max(scale.shown.shape))))


def _size(scale: Scale) -> Pair:
    """Width and height of a panel in screen pixels."""
    rows, columns = scale.shown.shape
    dot = _dot(scale)
    return LEFT + max(columns * dot, SIDE // 2) + RIGHT, TOP + rows * dot + BOTTOM


def _panel(figure: Figure, whole: Pair, corner: Pair, scale: Scale, frame: Frame) -> None:
    """One map with its bar and words, its lower left corner at `corner` in screen pixels."""
    rows, columns = scale.shown.shape
    dot = _dot(scale)
    height, width = rows * dot, columns * dot
    (x0, y0), panel = corner, _size(scale)
    axes, bar = (
        figure.add_axes(
            (
                (x0 + x) / whole[0],
                (y0 + BOTTOM) / whole[1],
                wide / whole[0],
                height / whole[1],
            )
        )
        for x, wide in ((LEFT, width), (LEFT + width + GAP, BAR))
    )
    image = _image(axes, scale, frame)
    figure.colorbar(image, cax=bar, extend=scale.beyond).set_label(
        ascii_only(scale.label), fontsize=9
    )
    bar.tick_params(labelsize=8)
    _around(axes, scale.shown.shape, frame)
    text = "\n".join(ascii_only(line, 64) for line in frame.title.split("\n"))
    place = (x0 + LEFT) / whole[0], (y0 + panel[1] - 10) / whole[1]
    figure.text(*place, text, fontsize=9, va="top", parse_math=False)
    if max(rows, columns) <= NUMBERED:
        _numbers(axes, scale, image)


def _image(axes: Axes, scale: Scale, frame: Frame) -> AxesImage:
    extent = None
    if frame.spans is not None:
        (top, bottom), (left, right) = frame.spans
        extent = (left, right, bottom, top)
    return axes.imshow(
        scale.shown,
        cmap=scale.colours,
        vmin=scale.low,
        vmax=scale.high,
        interpolation="nearest",
        aspect="auto",
        extent=extent,
    )


def _around(axes: Axes, shape: tuple[int, ...], frame: Frame) -> None:
    """Axis names, ticks at multiples of the stride, and the light lines between cells."""
    spans = frame.spans or ((0, shape[0]), (0, shape[1]))
    steps = frame.grid if frame.bar and frame.grid else (1, 1)
    for name, axis, (_, end), step in zip(
        frame.axes, (axes.yaxis, axes.xaxis), spans, steps, strict=True
    ):
        axis.set_label_text(name, fontsize=9)
        while end / step > TICKS:
            step *= 2
        axis.set_ticks(np.arange(0, end, step))
    axes.tick_params(labelsize=8)
    if frame.grid is None:
        return
    for draw, side, step in zip((axes.axhline, axes.axvline), shape, frame.grid, strict=True):
        for at in range(step, side, step):
            draw(at - 0.5, color="white", linewidth=0.5, alpha=0.45)
    if frame.bar:
        _scale_bar(axes, frame.grid, frame.bar)


def _scale_bar(axes: Axes, cell: Pair, what: str) -> None:
    """A scale bar above the map's right end: one cell's width, its name and its size in pixels."""
    right = axes.get_xlim()[1]
    axes.plot(
        [right - cell[1], right],
        [1.02, 1.02],
        transform=axes.get_xaxis_transform(),
        color="black",
        linewidth=2,
        solid_capstyle="butt",
        clip_on=False,
    )
    text = f"{what}, {cell[0]} x {cell[1]} pixels"
    axes.annotate(
        text,
        (right - cell[1], 1.02),
        (-4, 0),
        xycoords=axes.get_xaxis_transform(),
        textcoords="offset points",
        ha="right",
        va="center",
        fontsize=8,
        annotation_clip=False,
    )


def _numbers(axes: Axes, scale: Scale, image: AxesImage) -> None:
    """Write each value into its square, dark on bright and bright on dark."""
    left, right, bottom, top = image.get_extent()
    decimals = 2 if max(abs(scale.low), abs(scale.high)) < FEW else 1
    rows, columns = scale.shown.shape
    colours = image.to_rgba(scale.shown)
    for (i, j), value in np.ndenumerate(scale.shown):
        red, green, blue, _ = colours[i, j]
        dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
        axes.text(
            left + (j + 0.5) * (right - left) / columns,
            top + (i + 0.5) * (bottom - top) / rows,
            f"{value:.{decimals}f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if dark else "black",
        )


@cache
def keep_matplotlib_out_of_home() -> None:
    """Give matplotlib a temporary folder for its files, where the user has none for it yet.

    It would otherwise make folders in the user's home when it is first imported. Must be called
    before every first import of matplotlib.
    """
    if "matplotlib" in sys.modules or "MPLCONFIGDIR" in os.environ or _has_own_folder():
        return
    kept = contextlib.ExitStack()
    os.environ["MPLCONFIGDIR"] = str(kept.enter_context(scratch_folder()))
    atexit.register(kept.close)


def _has_own_folder() -> bool:
    """Whether matplotlib has been used by this user before."""
    places = (("XDG_CACHE_HOME", "~/.cache"), ("XDG_CONFIG_HOME", "~/.config"))
    roots = (os.environ.get(name) or Path(default).expanduser() for name, default in places)
    return any((Path(root) / "matplotlib").is_dir() for root in roots)
