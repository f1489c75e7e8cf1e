"""Is recalibration more than fitting the photographs it is judged on? Writes held-out.csv here.

    python results/trained/held_out.py WORKING_FOLDER

`fidelity` of the set "recalibrated" matches the norms on the very photographs on which it then
reads agreement. Here they are matched on other images: seeded dead leaves, and each half of the
photographs for the other half. `right` counts the classes named right of foolbox's twenty.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from checkpoints import ARCHITECTURES
from photographs import CLASSES

from perimetry.adapters.load import load
from perimetry.adapters.treatment import PaddingOptions
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import require

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from perimetry.adapters.model import Model

HERE = Path(__file__).parent
COUNT = 31


def classes(model: Model, seen: Tensor, shown: Tensor) -> Tensor:
    """Top classes (images,) of `shown`, after `seen` has set what the model takes from images."""
    model.select(0, seen)
    return require(model.run(shown, target=False, logits=True).logits, "logits").argmax(1)


def rows(folder: Path) -> Iterator[tuple[str, str, int, str]]:
    """Architecture, variant, classes right of twenty, share of the original's classes."""
    labels = torch.tensor(CLASSES)
    for name, file in ARCHITECTURES.items():
        model = load(f"timm:{name}@{folder / file}", device="cpu")
        photographs, leaves = (
            model.spec.prepare(open_images(source, COUNT, 0).load(model.spec))
            for source in (str(folder / "photographs"), "dead-leaves")
        )
        matched = model.padded("box", PaddingOptions(recalibrate=True))
        original = classes(model, photographs, photographs)
        halves = torch.empty_like(original)
        for own in (slice(0, None, 2), slice(1, None, 2)):
            other = slice(1 - own.start, None, 2)
            halves[own] = classes(matched, photographs[other], photographs[own])
        found = {
            "as it is": original,
            "box": classes(model.padded("box"), photographs, photographs),
            "box, matched on the same photographs": classes(matched, photographs, photographs),
            "box, matched on the other half": halves,
            "box, matched on dead leaves": classes(matched, leaves, photographs),
        }
        for variant, one in found.items():
            right = int((one[: len(labels)] == labels).sum())
            yield name, variant, right, f"{float((one == original).float().mean()):.3f}"


if __name__ == "__main__":
    with (HERE / "held-out.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("architecture", "variant", "right", "agreement"))
        writer.writerows(rows(Path(sys.argv[1])))
