"""Take photographs out of GCompris's resource files: `python photographs.py GCOMPRIS FIT TEST`.

GCOMPRIS is the unpacked Debian package gcompris-qt-data 3.1-2 (`apt-get download gcompris-qt-data`,
`dpkg -x FILE GCOMPRIS`). Into the folder FIT go 91 photographs of tools, wind mills, household
things, fish, farm and world animals; into TEST 50 of monuments, scenes and musicians. No subject is
in both. `results/trained/photographs.py` puts 31 more, of other packages, into TEST.
"""

from __future__ import annotations

import io
import re
import struct
import sys
from pathlib import Path

from PIL import Image

START = re.compile(b"RIFF....WEBPVP8 |\xff\xd8\xff[\xe0\xe1\xdb]", re.DOTALL)
SMALLEST = 160
GROUPS = {
    "categorization": "fit",
    "explore_world_animals": "fit",
    "explore_farm_animals": "fit",
    "details": "test",
    "explore_monuments": "test",
    "explore_world_music": "test",
}
PAINTINGS = {f"details-{number:03}" for number in (3, 5, 8, 9, 11, 15, 19)}


def pictures(file: Path) -> list[Image.Image]:
    """The JPEG and lossy WebP pictures in a Qt resource file that are not small, in its order."""
    content = file.read_bytes()
    found = []
    for match in START.finditer(content):
        begin = match.start()
        if content[begin : begin + 4] == b"RIFF":
            end = begin + 8 + struct.unpack("<I", content[begin + 4 : begin + 8])[0]
        else:  # a resource's length stands before it
            end = begin + struct.unpack(">I", content[begin - 4 : begin])[0]
        try:
            picture = Image.open(io.BytesIO(content[begin:end])).convert("RGB")
        except OSError:
            continue
        if min(picture.size) >= SMALLEST:
            found.append(picture)
    return found


def main(gcompris: Path, folders: dict[str, Path]) -> None:
    """Write the photographs as PNG."""
    for name, group in GROUPS.items():
        for file in sorted(gcompris.rglob(f"{name}.rcc")):
            for number, picture in enumerate(pictures(file), 1):
                label = f"{name}-{number:03}"
                if label not in PAINTINGS:
                    folders[group].mkdir(parents=True, exist_ok=True)
                    picture.save(folders[group] / f"gcompris-{label}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), {"fit": Path(sys.argv[2]), "test": Path(sys.argv[3])})
