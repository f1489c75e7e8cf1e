"""Write the colour photographs that four public packages carry into a folder.

    python results/trained/photographs.py FOLDER

31 photographs, no two of one scene: the 20 that foolbox carries with ImageNet classes in their
names, 8 more of everyday things, 3 of science (cells, galaxies, a retina). Left out are drawings,
grey photographs and textures.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from PIL import Image

CLASSES = (
    *(243, 559, 438, 990, 949, 853, 609, 609, 915, 455),
    *(541, 630, 741, 471, 129, 99, 251, 22, 317, 305),
)
"""ImageNet classes of foolbox's photographs, in their order."""
OTHERS = {
    "astronaut": "skimage/data/astronaut.png",
    "cat": "skimage/data/chelsea.png",
    "coffee": "skimage/data/coffee.png",
    "motorcycle": "skimage/data/motorcycle_left.png",
    "rocket": "skimage/data/rocket.jpg",
    "temple": "sklearn/datasets/images/china.jpg",
    "flower": "sklearn/datasets/images/flower.jpg",
    "officer": "matplotlib/mpl-data/sample_data/grace_hopper.jpg",
    "cells": "skimage/data/ihc.png",
    "galaxies": "skimage/data/hubble_deep_field.jpg",
    "retina": "skimage/data/retina.jpg",
}


def places() -> dict[str, str]:
    """PACKAGE/FILE of every photograph by the name it gets, in the order of names."""
    found = {
        f"{number:02}-class{one}.png": f"foolbox/data/imagenet_{number:02}_{one}.jpg"
        for number, one in enumerate(CLASSES)
    }
    numbered = enumerate(OTHERS.items(), start=len(found))
    return {**found, **{f"{number}-{name}.png": place for number, (name, place) in numbered}}


def write_photographs(folder: Path) -> list[Path]:
    """Write all as PNG into `folder`; their paths in name order.

    Raises `FileNotFoundError` when one of the packages is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, place in places().items():
        with Image.open(packaged(place)) as file:
            file.convert("RGB").save(folder / name)
    return [folder / name for name in places()]


def packaged(place: str) -> Path:
    """The path of PACKAGE/FILE in the installed PACKAGE, which is not imported."""
    package, _, file = place.partition("/")
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"the package {package!r} is not installed; see requirements.txt")
    return Path(found.submodule_search_locations[0]) / file


if __name__ == "__main__":
    write_photographs(Path(sys.argv[1]))
