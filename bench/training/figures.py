"""Figures of training: accuracy by epoch, dead pixels and ERF during training, phase maps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...suites.measuring.bootstrap import MIN_SAMPLES
from ..figures.canvas import COLOURS as COLOURS_OF_MAPS
from ..figures.canvas import DPI, keep_matplotlib_out_of_home
from ..figures.maps import LOG_DECADES, Pictures, draw_variants, over_mean
from ..output.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..records.record import Record


COLOURS = {
    "none": "#444444",
    "zero": "#0072b2",
    "fresh": "#d55e00",
    "box": "#009e73",
    "kim2023": "#cc79a7",
}
"""Wong's colours, which colour-blind readers can distinguish."""

MARKS = {"none": "o", "zero": "s", "fresh": "^", "box": "D", "kim2023": "v"}

ALONG = {
    "imbalance": "dead pixels: imbalance",
    "weakest": "dead pixels: weakest phase",
    "luo_size": "ERF: Luo size (pixels)",
}

CHANCE = {"micro_object": 0.5}


def draw_training(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw the curves of each task and the maps of each record into `folder`; the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task in sorted({record.protocol for record in records}):
        own = [record for record in records if record.protocol == task]
        paths.append(draw_curves(own, task, folder / f"{task}.curves.png"))
        paths.append(draw_panel(own, folder / f"{task}.maps.png"))
    return [*paths, *draw_variants(records, Pictures(folder))]


def draw_curves(records: Sequence[Record], task: str, path: Path) -> Path:
    """Draw accuracy, dead pixels and ERF by epoch, one line per kernel padding."""
    figure = _figure(11, 7)
    axes = figure.subplots(2, 2)
    _lines(axes[0, 0], records, "curve", "accuracy", "test accuracy")
    for place, (name, label) in zip(axes.flat[1:], ALONG.items(), strict=True):
        _lines(place, records, "along", name, label)
    axes[0, 0].set_ylim(top=1.01)
    if task == "micro_object":
        for level in (CHANCE[task], 0.9):
            axes[0, 0].axhline(level, color="black", linewidth=0.7, linestyle=":")
    axes[0, 0].legend(title="kernel padding", fontsize=8)
    first = records[0]
    seeds = first.model.members or 1
    means = f"mean of {seeds} seeds" if seeds > 1 else "one seed"
    interval = ", 95 % interval" if seeds >= MIN_SAMPLES else ""
    title = (
        f"{first.model.reference}, {task} on {first.images.name if first.images else ''}: "
        f"{means}{interval}"
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI))
    return path


def _figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches."""
    keep_matplotlib_out_of_home()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _lines(axes: Axes, records: Sequence[Record], table: str, name: str, label: str) -> None:
    """One number by epoch for each record, with its interval as a band."""
    for record in records:
        rows = [row for row in record.tables.get(table, []) if row.get(name) is not None]
        if not rows:
            continue
        epochs = [row["epoch"] for row in rows]
        colour = COLOURS.get(record.fill, "black")
        line = [row[name] for row in rows]
        axes.plot(
            epochs,
            line,
            color=colour,
            marker=MARKS.get(record.fill, "x"),
            markersize=3.5,
            linewidth=1.4,
            label=record.fill,
        )
        ends = [(row[f"{name}.low"], row[f"{name}.high"]) for row in rows]
        if all(None not in pair for pair in ends):
            low, high = zip(*ends, strict=True)
            axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_xlabel("epoch", fontsize=9)
    axes.locator_params(axis="x", integer=True, min_n_ticks=1)
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)


PANEL = {
    "phase_profile_start": "dead pixels, untrained",
    "phase_profile_end": "dead pixels, trained",
    "phase_contrast": "response to the box, trained",
    "phase_accuracy": "accuracy, mean over epochs",
    "erf_start": "ERF, untrained",
    "erf_end": "ERF, trained",
}
"""Columns of a panel: map and heading."""


def draw_panel(records: Sequence[Record], path: Path) -> Path:
    """Draw the maps of one task side by side: a row per kernel padding, one scale per column.

    Phase maps are divided by their mean, ERF maps by their peak, in logarithms.
    """
    names = [name for name in PANEL if all(name in record.maps for record in records)]
    figure = _figure(2.1 * len(names) + 0.6, 2.1 * len(records) + 1.4)
    axes = figure.subplots(len(records), len(names), squeeze=False)
    for column, name in enumerate(names):
        shown = [_panel_map(record.maps[name], name) for record in records]
        low, high = _panel_ends(shown, name)
        for row, (record, values) in enumerate(zip(records, shown, strict=True)):
            place = axes[row, column]
            image = place.imshow(values, cmap=COLOURS_OF_MAPS, vmin=low, vmax=high)
            place.set_xticks([])
            place.set_yticks([])
            if column == 0:
                place.set_ylabel(record.fill, fontsize=10)
        axes[0, column].set_title(PANEL[name], fontsize=8)
        bar = figure.colorbar(image, ax=list(axes[:, column]), location="bottom", fraction=0.06)
        bar.ax.tick_params(labelsize=7)
        bar.set_label("log10 of value / peak" if "erf" in name else "times the mean", fontsize=7)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI))
    return path


def _panel_map(values: Any, name: str) -> Any:
    values = np.asarray(values, dtype=np.float64)
    if name.startswith("erf"):
        return np.log10(np.maximum(values / values.max(), 10.0**-LOG_DECADES))
    return over_mean(values)


def _panel_ends(shown: Sequence[Any], name: str) -> tuple[float, float]:
    """The limits of the scale of a column; that of accuracies does not start at 0."""
    if name.startswith("erf"):
        return -LOG_DECADES, 0.0
    high = max(float(values.max()) for values in shown)
    low = min(float(values.min()) for values in shown)
    return (low if name == "phase_accuracy" else min(low, 0.0)), high
