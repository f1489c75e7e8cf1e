"""Labelled cut-outs: pictures with transparency, and the class of a model that each one shows.

The label of a cut-out is its file's name without the ending, with spaces for punctuation and
without a number at the end, in lower case: `sea_lion-2.png` is a sea lion. A cut-out is cropped to
what is visible of it.
"""

from __future__ import annotations

import csv
import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.class_names import imagenet_classes
from ...adapters.errors import InputError, NotApplicableError
from ..pictures import SUFFIXES, read_cutout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL.Image import Image
    from torch import Tensor

    from .layout import Layout


IMAGENET = 1000
"""Scores of a model whose classes are taken for those of ImageNet, in their usual order."""


@dataclass(frozen=True)
class Cutout:
    """A picture file with transparency, its label and its class."""

    path: Path
    label: str
    index: int


def digest_of(folder: str, classes: str | None) -> str:
    """SHA-256 of names and contents of a folder's pictures, and of the file of classes.

    Raises `InputError` where there are none.
    """
    root = Path(folder)
    files = _pictures(root)
    if not files:
        raise InputError(
            f"objects.cutouts = {folder!r} contains no pictures; expected a folder of files with "
            f"transparency ({', '.join(sorted(SUFFIXES))}), subfolders included"
        )
    if classes is not None and not Path(classes).is_file():
        raise InputError(f"objects.classes = {classes!r} is not a file; expected lines LABEL,CLASS")
    digest = hashlib.sha256()
    for path in [*files, *([Path(classes)] if classes is not None else [])]:
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        stamp = path.stat()
        digest.update(f"{name}:{_content(path, stamp.st_size, stamp.st_mtime_ns)};".encode())
    return digest.hexdigest()


@lru_cache(maxsize=4096)
def _content(path: Path, _size: int, _time: int) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _pictures(root: Path) -> list[Path]:
    found = (p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
    return sorted(p for p in found if p.is_file() and not p.name.startswith("."))


def label_of(path: Path) -> str:
    """The label that a file's name states."""
    return normalised(re.sub(r"[\W_]*\d+$", "", path.stem))


def normalised(text: str) -> str:
    """Lower case, with single spaces for all that is neither letter nor digit."""
    return re.sub(r"[\W_]+", " ", text.lower()).strip()


def find_cutouts(
    folder: str, classes: str | None, scores: int, most: int, seed: int
) -> list[Cutout]:
    """The cut-outs of classes of a model of `scores` logits, or a seeded sample of `most`.

    Labels are those of the file `classes`, else the names of ImageNet's classes. Raises
    `NotApplicableError` where no label is that of a class.
    """
    known = named_classes(classes, scores)
    files = _pictures(Path(folder))
    found = [Cutout(p, label_of(p), known[label_of(p)]) for p in files if label_of(p) in known]
    found = [one for one in found if _is_cut_out(one.path)]
    if not found:
        raise NotApplicableError(
            f"no cut-out of {len(files)} pictures has the label of one of the {scores} classes; "
            "expected files with transparency that are named by their class, or lines LABEL,CLASS "
            "in a file (objects.classes)"
        )
    if len(found) > most:
        picked = np.random.default_rng([seed, len(found)]).choice(len(found), most, replace=False)
        found = [found[k] for k in sorted(picked)]
    return found


def named_classes(classes: str | None, scores: int) -> Mapping[str, int]:
    """Index of the class by label. Raises `InputError` for lines that cannot be read."""
    imagenet = _imagenet() if scores == IMAGENET else {}
    if classes is None:
        return imagenet
    with Path(classes).open(encoding="utf-8", newline="") as stream:
        rows = [row for row in csv.reader(stream) if row and not row[0].startswith("#")]
    return {normalised(row[0]): _index(row, imagenet, scores, classes) for row in rows}


def _index(row: Sequence[str], imagenet: Mapping[str, int], scores: int, file: str) -> int:
    last = row[-1].strip()
    index = int(last) if last.isdigit() else imagenet.get(normalised(last), -1)
    if len(row) != 2 or not 0 <= index < scores:
        raise InputError(
            f"{file} has the line {','.join(row)!r}; expected LABEL,CLASS with a number from 0 to "
            f"{scores - 1}, or the name of one of ImageNet's classes for a model of {IMAGENET}"
        )
    return index


@lru_cache(maxsize=1)
def _imagenet() -> Mapping[str, int]:
    """Names that only one class of ImageNet has."""
    found: dict[str, set[int]] = {}
    for index, names in enumerate(imagenet_classes()):
        for name in names:
            found.setdefault(normalised(name), set()).add(index)
    return {name: indices.pop() for name, indices in found.items() if len(indices) == 1}


def _is_cut_out(path: Path) -> bool:
    """Whether a part of the picture is transparent and another is not."""
    opacity = np.asarray(read_cutout(path).getchannel("A"))
    return bool(opacity.min() < 255 and opacity.max() > 0)


def with_cutout(image: Tensor, cutout: Cutout, layout: Layout) -> list[Tensor]:
    """`image` (3, height, width) as it is, then with the cut-out at every size and phase.

    The longer side of what is visible has the size in pixels; it lies in the middle of a square.
    """
    picture = read_cutout(cutout.path)
    picture = picture.crop(picture.getchannel("A").getbbox())
    scaled = {size: _scaled(picture, size) for size in layout.sizes}
    found = [image]
    for size, (row, column) in layout.corners():
        colour, alpha = (part.to(image.dtype) for part in scaled[size])
        one = image.clone()
        place = one[:, row : row + size, column : column + size]
        place.mul_(1 - alpha).add_(colour)
        found.append(one)
    return found


def _scaled(picture: Image, size: int) -> tuple[Tensor, Tensor]:
    """Colours times opacity (3, size, size), and opacity (1, size, size), both in [0, 1]."""
    import torch
    from PIL import Image as Pillow

    scale = size / max(picture.size)
    width, height = (max(1, round(n * scale)) for n in picture.size)
    small = picture.convert("RGBa").resize((width, height), Pillow.Resampling.BICUBIC)
    whole = Pillow.new("RGBa", (size, size))
    whole.paste(small, ((size - width) // 2, (size - height) // 2))
    values = torch.from_numpy(np.asarray(whole, dtype=np.float32) / 255).permute(2, 0, 1)
    return values[:3].minimum(values[3:]), values[3:]
