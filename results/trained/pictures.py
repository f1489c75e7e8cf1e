"""Draw phases.png and plain.png: untrained, trained and treated side by side on one scale.

python results/trained/pictures.py WORKING_FOLDER
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from checkpoints import ARCHITECTURES
from matplotlib.figure import Figure

from perimetry.bench.records.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
SHOWN = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
COLUMNS = {
    "untrained, mean of 8": ("as-is", "init", "none"),
    "trained": ("as-is", "", "none"),
    "box": ("as-is", "", "box"),
    "box, recalibrated": ("recalibrated", "", "box"),
}
FINEST = 1 / 8
"""What a unit of the plain image's map has at least on the scale, over the mean."""
TICKS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def maps(folder: Path, suite: str, name: str) -> dict[tuple[str, str], np.ndarray]:
    """The map `name`, over its mean, by architecture and column."""
    found: dict[tuple[str, str, str], Record] = {}
    for place in ("as-is", "recalibrated"):
        for record in Store(folder / place).records():
            if record.suite == suite:
                found[place, record.model.reference, record.fill] = record
    values = {}
    for one in SHOWN:
        for column, (place, state, fill) in COLUMNS.items():
            reference = f"timm:{one}@{state or ARCHITECTURES[one]}"
            values[one, column] = np.asarray(found[place, reference, fill].maps[name], float)
    return {key: value / value.mean() for key, value in values.items()}


def draw(values: Mapping[tuple[str, str], np.ndarray], path: Path, label: str, **how: Any) -> None:
    """A row an architecture, a column a state, one colour bar; written to `path`."""
    figure = Figure(figsize=(10, 2.6 * len(SHOWN)), layout="constrained")
    axes = figure.subplots(len(SHOWN), len(COLUMNS), squeeze=False)
    image = None
    for row, name in enumerate(SHOWN):
        for column, head in enumerate(COLUMNS):
            ax = axes[row, column]
            image = ax.imshow(values[name, head], interpolation="nearest", **how)
            ax.set_title(head if row == 0 else "", fontsize=9)
            ax.set_ylabel(name if column == 0 else "", fontsize=9)
            ax.tick_params(labelsize=7)
    bar = figure.colorbar(image, ax=axes, label=label, shrink=0.8, extend="both")
    ticks = TICKS if isinstance(how.get("norm"), mpl.colors.LogNorm) else None
    if ticks:
        bar.set_ticks([float(Fraction(t)) for t in ticks], labels=ticks, minor=False)
        bar.minorticks_off()
    figure.savefig(path, dpi=80)


def main(folder: Path) -> None:
    """Write both pictures."""
    phases = maps(folder, "deadpixel", "phase_profile")
    label = "sensitivity of a phase, over the mean"
    draw(phases, HERE / "phases.png", label, cmap="cividis", vmin=0.0, vmax=2.0)
    plain = maps(folder, "padding", "constant_feature_map")
    scale = mpl.colors.LogNorm(FINEST, 1 / FINEST)
    clipped = {key: np.clip(value, FINEST, 1 / FINEST) for key, value in plain.items()}
    draw(
        clipped, HERE / "plain.png", "magnitude of a unit, over the mean", cmap="RdBu_r", norm=scale
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
