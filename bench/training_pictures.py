"""Pictures of trained twins: accuracy by epoch, dead pixels and ERF along training, phase maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .canvas import DPI
from .pictures import draw_record
from .store import write_atomically

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from .record import Record

COLOURS = {"none": "#444444", "zero": "#0072b2", "fresh": "#d55e00", "box": "#009e73"}
"""Wong's colours, told apart by colour-blind readers too."""
MARKS = {"none": "o", "zero": "s", "fresh": "^", "box": "D"}
ALONG = {
    "imbalance": "dead pixels: imbalance",
    "weakest": "dead pixels: weakest phase",
    "luo_size": "ERF: Luo size (pixels)",
}
CHANCE = {"micro_object": 0.5}


def draw_training(records: Sequence[Record], folder: Path) -> list[Path]:
    """Draw curves of each task and the maps of each twin into `folder`; give the files' paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for task in sorted({record.protocol for record in records}):
        own = [record for record in records if record.protocol == task]
        paths.append(_curves(own, task, folder / f"{task}.curves.png"))
    for record in records:
        paths += draw_record(record, folder)
    return paths


def _curves(records: Sequence[Record], task: str, path: Path) -> Path:
    """Accuracy by epoch beside what dead pixels and ERF do, one line a twin."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 7), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
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
    title = (
        f"{first.model.reference}, {task} on {first.images.name if first.images else ''}: mean of "
        f"{first.model.members} seeds, 95 % interval"
    )
    figure.suptitle(title, fontsize=11, parse_math=False)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=DPI))
    return path


def _lines(axes: Axes, records: Sequence[Record], table: str, name: str, label: str) -> None:
    """One number by epoch for each twin, with its interval as a band."""
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
    axes.set_ylabel(label, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
