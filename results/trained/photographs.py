"""Write the colour photographs that scikit-image, scikit-learn and matplotlib carry into a folder.

    python results/trained/photographs.py FOLDER

Eleven distinct photographs are in the three wheels, eight of everyday things and three of science
(cells, galaxies, a retina). Each of the eight also gives two tiles that do not overlap, the
upper-left and the lower-right one, each with half the longer side: 27 images. Left out are
drawings, grey photographs, and the right half of the stereo pair, which is the left one again.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

EVERYDAY = {
    "astronaut": "skimage/data/astronaut.png",
    "cat": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "rocket": "skimage/data/rocket.jpg",
    "temple": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "officer": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
}
SCIENCE = {
    "cells": "skimage/data/ihc.png",
    "galaxies": "skimage/data/hubble_deep_field.jpg",
    "retina": "skimage/data/retina.jpg",
}


def write_photographs(folder: Path) -> list[Path]:
    """Write all 27 images as PNG into `folder`; their paths in name order.

    Numbers in the names keep whole photographs first: the first four calibrate `@init` models.
    Raises `FileNotFoundError` when one of the three packages is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    images = {name: _open(place) for name, place in {**EVERYDAY, **SCIENCE}.items()}
    for name in EVERYDAY:
        images |= {f"{name}-{part}": tile for part, tile in _tiles(images[name]).items()}
    paths = [folder / f"{number:02}-{name}.png" for number, name in enumerate(images)]
    for path, image in zip(paths, images.values(), strict=True):
        image.save(path)
    return paths


def packaged(place: str) -> Path:
    """The path of PACKAGE/FILE in the installed PACKAGE, which is not imported."""
    package, _, file = place.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"the package {package!r} is not installed; README.md names all")
    return Path(found.submodule_search_locations[0]) / file


def _open(place: str) -> Image.Image:
    with Image.open(packaged(place)) as file:
        return file.convert("RGB")


def _tiles(image: Image.Image) -> dict[str, Image.Image]:
    """Squares of half the longer side, or of the shorter one where that is less."""
    width, height = image.size
    side = min(max(width, height) // 2, width, height)
    return {
        "upper-left": image.crop((0, 0, side, side)),
        "lower-right": image.crop((width - side, height - side, width, height)),
    }


if __name__ == "__main__":
    write_photographs(Path(sys.argv[1]))
