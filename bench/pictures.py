"""Maps as PNG, drawn without any window or global state.

Magnitudes use cividis, whose lightness rises evenly from dark to bright, also for colour-blind
readers and in grey print. Titles are plain text: nothing in a model's name is read as a formula.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .store import write_atomically
from .text import ascii_only

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from .record import Record

COLOURS = "cividis"
DPI = 110
LOG_DECADES = 3.0
"""How far below its peak a map is shown on a logarithmic scale."""
LOG_MAPS = ("erf",)
"""Suites whose maps fall off over decades."""


def draw_record(record: Record, folder: Path) -> list[Path]:
    """Draw every two-dimensional map of `record` into `folder`; give the files' paths."""
    paths = []
    for name, values in record.maps.items():
        if np.ndim(values) != 2 or min(values.shape) < 2:
            continue
        path = folder / f"{_file_name(record)}.{name}.png"
        title = f"{record.model.reference}\n{record.fill}, {record.suite}:{record.protocol}, {name}"
        draw_map(values, path, title=title, log=record.suite in LOG_MAPS)
        paths.append(path)
    return paths


def draw_map(values: Any, path: Path, *, title: str, log: bool = False) -> None:
    """Draw `values` (rows, columns) >= 0 over their mean, with a colour bar, as the PNG `path`.

    With `log` the scale is the decimal logarithm of the share of the peak.
    """
    figure, axes = _canvas(title)
    shown, label, limits = _scaled(np.asarray(values, dtype=np.float64), log=log)
    low, high = limits
    image = axes.imshow(shown, cmap=COLOURS, vmin=low, vmax=high, interpolation="nearest")
    axes.set_xlabel(_axis("column", shown.shape[1]))
    axes.set_ylabel(_axis("row", shown.shape[0]))
    figure.colorbar(image, ax=axes, shrink=0.85).set_label(label)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI))


def _canvas(title: str) -> tuple[Figure, Axes]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    text = "\n".join(ascii_only(line, 56) for line in title.split("\n"))
    axes.set_title(text, fontsize=9, parse_math=False)
    return figure, axes


def _scaled(
    values: np.ndarray[Any, np.dtype[np.float64]], *, log: bool
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], str, tuple[float, float]]:
    """What is drawn, what the colour bar says, and the ends of its scale."""
    if log:
        peak = values.max() or 1.0
        floor = peak * 10**-LOG_DECADES
        return (
            np.log10(np.maximum(values, floor) / peak),
            "log10 of the peak's share",
            (
                -LOG_DECADES,
                0.0,
            ),
        )
    mean = values.mean() or 1.0
    scaled = values / mean
    top = max(float(np.percentile(scaled, 99.5)), 1e-12)
    return scaled, f"times the mean ({mean:.3g})", (0.0, top)


def _axis(name: str, size: int) -> str:
    return f"{name} (of {size})"


def _file_name(record: Record) -> str:
    from .store import file_stem

    return file_stem(record).rpartition(".")[0]
