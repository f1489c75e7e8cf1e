"""Maps as PNG, drawn without any window or global state.

Magnitudes use cividis, whose lightness rises evenly from dark to bright, also for colour-blind
readers and in grey print. Differences and signed leans use a blue-to-red scale with symmetric
limits, white at 0. Every value is drawn as a square of whole screen pixels, so that a pattern of
period 2 in a map is a pattern of period 2 in the picture, never moiré. Light lines mark the stride
cells over maps whose phases are measured. Titles are plain text: nothing in a model's name is read
as a formula.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .store import file_stem, write_atomically
from .text import ascii_only

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

    from .record import Record

    Array = np.ndarray[Any, np.dtype[np.float64]]

COLOURS = "cividis"
SIGNED_COLOURS = "RdBu_r"
DPI = 110
SIDE = 448
"""About how many screen pixels a map's longer side takes; larger maps keep their own size."""
LEFT, RIGHT, TOP, BOTTOM = 74, 118, 64, 52
"""Room in screen pixels round the map, for ticks, colour bar, title and axis label."""
BAR, GAP = 16, 14
"""Width of the colour bar and its distance from the map, in screen pixels."""
LOG_DECADES = 3.0
"""How far below its peak a map is shown on a logarithmic scale."""
CLIPPED, MUCH = 99.5, 1.25
"""Percentile at which a scale ends where the largest value is so many times larger: a few border
pixels must not take all colours."""
NUMBERED = 8
"""Maps of up to so many values a side have their numbers written in."""
FEW = 10
"""Scales that end below have two decimals."""
MEAN_ONE = 1e-3
"""A mean so near to 1 needs no telling."""
TICKS = 9
"""At most so many along an axis, at multiples of a power of 2, as strides are."""


@dataclass(frozen=True)
class Look:
    """How one kind of map is drawn.

    `scale` is `mean` (times the mean), `log` (decades below the peak), `lean` (departure from the
    mean, in % of it) or `signed` (as it is, about 0). `axes` names what rows and columns count.
    `cells` lays the stride grid over it, `phases` a finer one; `whole` spreads the values over the
    image's pixels.
    """

    scale: str = "mean"
    axes: tuple[str, str] = ("row (pixel)", "column (pixel)")
    cells: bool = False
    phases: bool = False
    whole: bool = False
    what: str = ""


_PHASES = Look(axes=("row mod {rows} (pixel)", "column mod {columns} (pixel)"), phases=True)
_UNITS = Look(axes=("row (unit)", "column (unit)"))
_PLACES = Look(axes=("row of the stimulus (pixel)", "column of the stimulus (pixel)"), whole=True)
LOOKS: Mapping[str, Look] = {
    "sensitivity": Look(cells=True, what="sensitivity"),
    "sensitivity_sum": Look(cells=True, what="sensitivity, summed over images"),
    "path_count": Look(cells=True, what="paths to the target"),
    "phase_profile": replace(_PHASES, what="sensitivity of each phase"),
    "comb_profile": replace(_PHASES, what="response of each phase"),
    "gradient_profile": replace(_PHASES, what="gradient energy of each phase"),
    "structure_profile": replace(_PHASES, what="expected energy of each phase"),
    "erf": Look("log", what="effective receptive field"),
    "units": Look("log", what="fields of a grid of units"),
    "mean_feature_map": replace(_UNITS, what="mean magnitude of a unit, images"),
    "constant_feature_map": replace(_UNITS, scale="lean", what="lean of a unit, plain image"),
    "blind_spots": replace(_PLACES, what="response of the target"),
    "blind_spots_logit": replace(_PLACES, what="response of the top logit"),
    "positions": Look(axes=("row of the block", "column of the block"), what="output change"),
}
"""By the map's name; others are drawn as magnitudes over pixels."""


@dataclass(frozen=True)
class Scale:
    """What is drawn of a map, between which ends, and what the colour bar says of it."""

    shown: Array
    low: float
    high: float
    label: str
    colours: str = COLOURS

    @property
    def beyond(self) -> str:
        """At which ends values lie beyond the scale, as matplotlib calls it."""
        above, below = self.shown.max() > self.high, self.shown.min() < self.low
        return {(1, 1): "both", (1, 0): "max", (0, 1): "min"}.get((above, below), "neither")


@dataclass(frozen=True)
class Frame:
    """What lies round a map: title lines, axis names, steps of the grid, and its size in pixels.

    `grid` are the rows and columns between two light lines; `bar` says that these are stride cells,
    whose size is then written above the map; `size` spreads the values over so many pixels.
    """

    title: str
    axes: tuple[str, str] = ("row (pixel)", "column (pixel)")
    grid: tuple[int, int] | None = None
    bar: bool = False
    size: tuple[int, int] | None = None


def draw_record(record: Record, folder: Path) -> list[Path]:
    """Draw every map of `record` into `folder`; give the files' paths."""
    paths = []
    for name, values in record.maps.items():
        look = LOOKS.get(name, Look())
        flat = tiled(np.asarray(values))
        if flat is None:
            continue
        path = folder / f"{_file_name(record)}.{name}.png"
        variant = "as it is" if record.fill == "none" else f"kernel padding {record.fill}"
        frame = _frame(record, name, look, flat.shape, variant)
        _draw(scaled(flat, look.scale, look.what), path, frame)
        paths.append(path)
    return paths


def draw_change(treated: Record, untreated: Record, folder: Path) -> list[Path]:
    """Draw each map of `treated` less that of `untreated`, both over their means; give the paths.

    Maps that only one of them has, or of unlike shapes, are left out.
    """
    paths = []
    for name, values in treated.maps.items():
        twin = untreated.maps.get(name)
        after = tiled(np.asarray(values))
        before = None if twin is None else tiled(np.asarray(twin))
        if after is None or before is None or after.shape != before.shape:
            continue
        look = LOOKS.get(name, Look())
        path = folder / f"{_file_name(treated)}.{name}.change.png"
        frame = _frame(treated, name, look, after.shape, f"{treated.fill} less {untreated.fill}")
        change = per_mean(after) - per_mean(before)
        _draw(scaled(change, "signed", "change, in means of either map"), path, frame)
        paths.append(path)
    return paths


def draw_map(
    values: Any, path: Path, *, title: str, log: bool = False, signed: bool = False
) -> None:
    """Draw `values` (rows, columns) with a colour bar as the PNG `path`.

    Magnitudes (>= 0) are shown over their mean, with `log` as the decimal logarithm of their share
    of the peak; `signed` values as they are, with limits symmetric about 0.
    """
    scale = "signed" if signed else "log" if log else "mean"
    _draw(scaled(np.asarray(values, dtype=np.float64), scale, ""), path, Frame(title))


def tiled(values: np.ndarray[Any, Any]) -> Array | None:
    """`values` (rows, columns), or (n, m, rows, columns) laid out as one; None for other axes."""
    if values.ndim == 4:
        values = values.transpose(0, 2, 1, 3).reshape(
            values.shape[0] * values.shape[2], values.shape[1] * values.shape[3]
        )
    if values.ndim != 2 or min(values.shape) < 2 or not np.isfinite(values).all():
        return None
    return np.asarray(values, dtype=np.float64)


def per_mean(values: Array) -> Array:
    """`values` over the magnitude of their mean; a map of mean 0 as it is."""
    mean = abs(float(values.mean()))
    return values / mean if mean else values


def scaled(values: Array, scale: str, what: str) -> Scale:
    """What is drawn of `values`, with the ends of its scale and what the colour bar says."""
    if scale == "log":
        peak = float(values.max()) or 1.0
        shown = np.log10(np.maximum(values, peak * 10**-LOG_DECADES) / peak)
        return Scale(shown, -LOG_DECADES, 0.0, _label(what, "log10 of the peak's share"))
    if scale == "lean":
        return _signed(100 * (per_mean(values) - 1), _label(what, "% of the mean"))
    if scale == "signed" or values.min() < 0:
        return _signed(values, what)
    mean = float(values.mean()) or 1.0
    shown = values / mean
    top = max(_end(shown), 1e-12)
    unit = "times the mean" + ("" if abs(mean - 1) < MEAN_ONE else f" ({mean:.3g})")
    return Scale(shown, 0.0, top, _label(what, unit))


def _end(values: Array) -> float:
    """The largest of `values`, or a percentile where a few are much larger than the rest."""
    most, largest = float(np.percentile(values, CLIPPED)), float(values.max())
    return largest if largest <= MUCH * most or most == 0 else most


def _signed(values: Array, label: str) -> Scale:
    end = _end(np.abs(values)) or 1.0
    return Scale(values, -end, end, label, SIGNED_COLOURS)


def _label(what: str, unit: str) -> str:
    return f"{what}, {unit}" if what else unit


def _frame(record: Record, name: str, look: Look, shape: tuple[int, ...], variant: str) -> Frame:
    """Title, axes, grid and extent of one map of `record`."""
    title = "\n".join(
        (record.model.reference, f"{variant}; {record.suite}:{record.protocol}, {name}")
    )
    rows, columns = (a.format(rows=shape[0], columns=shape[1]) for a in look.axes)
    grid = _cell(record) if look.cells else None
    if look.phases:
        grid = (max(1, shape[0] // NUMBERED), max(1, shape[1] // NUMBERED))
    size = _pixels(record) if look.whole else None
    return Frame(title, (rows, columns), grid, look.cells, size)


def _cell(record: Record) -> tuple[int, int] | None:
    """The stride cell of the record's sensitivity, where it has phases."""
    profile = record.maps.get("phase_profile")
    if profile is None or np.ndim(profile) != 2:
        return None
    return int(profile.shape[0]), int(profile.shape[1])


def _pixels(record: Record) -> tuple[int, int] | None:
    """The input's height and width, where the record has them."""
    spec = record.model.spec
    return (int(spec["height"]), int(spec["width"])) if spec else None


def _draw(scale: Scale, path: Path, frame: Frame) -> None:
    """Lay map, colour bar and words out in whole screen pixels, and write the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = scale.shown.shape
    dot = max(1, SIDE // max(rows, columns))
    height, width = rows * dot, columns * dot
    whole = (LEFT + max(width, SIDE // 2) + RIGHT, TOP + height + BOTTOM)
    figure = Figure(figsize=(whole[0] / DPI, whole[1] / DPI), dpi=DPI)
    FigureCanvasAgg(figure)
    axes, bar = (
        figure.add_axes((x / whole[0], BOTTOM / whole[1], wide / whole[0], height / whole[1]))
        for x, wide in ((LEFT, width), (LEFT + width + GAP, BAR))
    )
    image = _image(axes, scale, frame)
    figure.colorbar(image, cax=bar, extend=scale.beyond).set_label(
        ascii_only(scale.label), fontsize=9
    )
    bar.tick_params(labelsize=8)
    _around(axes, scale.shown.shape, frame)
    text = "\n".join(ascii_only(line, 64) for line in frame.title.split("\n"))
    figure.text(LEFT / whole[0], 1 - 10 / whole[1], text, fontsize=9, va="top", parse_math=False)
    if max(rows, columns) <= NUMBERED:
        _numbers(axes, scale, image)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI))


def _image(axes: Axes, scale: Scale, frame: Frame) -> AxesImage:
    return axes.imshow(
        scale.shown,
        cmap=scale.colours,
        vmin=scale.low,
        vmax=scale.high,
        interpolation="nearest",
        aspect="auto",
        extent=None if frame.size is None else (0, frame.size[1], frame.size[0], 0),
    )


def _around(axes: Axes, shape: tuple[int, ...], frame: Frame) -> None:
    """Axis names, ticks at multiples of the stride, and the light lines between cells."""
    sides = frame.size or shape
    steps = frame.grid if frame.bar and frame.grid else (1, 1)
    for name, axis, side, step in zip(
        frame.axes, (axes.yaxis, axes.xaxis), sides, steps, strict=True
    ):
        axis.set_label_text(name, fontsize=9)
        while side / step > TICKS:
            step *= 2
        axis.set_ticks(np.arange(0, side, step))
    axes.tick_params(labelsize=8)
    if frame.grid is None:
        return
    for draw, side, step in zip((axes.axhline, axes.axvline), shape, frame.grid, strict=True):
        for at in range(step, side, step):
            draw(at - 0.5, color="white", linewidth=0.5, alpha=0.45)
    if frame.bar:
        _scale_bar(axes, frame.grid)


def _scale_bar(axes: Axes, cell: tuple[int, int]) -> None:
    """One stride cell's width above the map's right end, with its size in pixels."""
    right = axes.get_xlim()[1]
    style = {"transform": axes.get_xaxis_transform(), "color": "black", "clip_on": False}
    axes.plot([right - cell[1], right], [1.02, 1.02], linewidth=2, solid_capstyle="butt", **style)
    text = f"stride cell, {cell[0]} x {cell[1]} pixels"
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
    for (i, j), value in np.ndenumerate(scale.shown):
        red, green, blue, _ = image.to_rgba(value)
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


def _file_name(record: Record) -> str:
    return file_stem(record).rpartition(".")[0]
