"""Is the faint border on photographs the network's or the photographs'? Writes rolled.csv here.

    python results/trained/rolled.py WORKING_FOLDER

Every photograph is rolled by half its height and width, so that what stood in the middle lies at
the corners. What padding does to the border stays where it is; what the photographs do moves.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from checkpoints import ARCHITECTURES

from perimetry.adapters.load import load
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import require
from perimetry.suites.padding.blind_spots import channel_mean
from perimetry.suites.padding.spatial_bias import border_ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from perimetry.adapters.model import Model

HERE = Path(__file__).parent
COUNT = 31
BATCH = 8


def ratio(model: Model, x: Tensor) -> float:
    """Border over centre of the mean map over `x` (images, channels, height, width)."""
    targets = (require(model.run(part).target, "target") for part in x.split(BATCH))
    maps = np.concatenate([channel_mean(target) for target in targets])
    return float(border_ratio(maps.mean(0)))


def rows(folder: Path) -> Iterator[tuple[str, str, str, str]]:
    """Architecture, state, border over centre as is, and rolled; untrained from one seed."""
    for name, file in ARCHITECTURES.items():
        for state in ("init", str(folder / file)):
            members = 1 if state == "init" else None
            model = load(f"timm:{name}@{state}", device="cpu", members=members)
            images = open_images(str(folder / "photographs"), COUNT, 0).load(model.spec)
            x = model.spec.prepare(images)
            model.select(0, x)
            half = (model.spec.height // 2, model.spec.width // 2)
            found = (ratio(model, one) for one in (x, x.roll(half, (2, 3))))
            yield name, "untrained" if state == "init" else "trained", *(f"{r:.3f}" for r in found)


if __name__ == "__main__":
    found = list(rows(Path(sys.argv[1])))
    with (HERE / "rolled.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("architecture", "state", "as it is", "rolled"))
        writer.writerows(found)
