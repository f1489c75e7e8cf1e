"""Labelled pictures to train on: a folder, IDX files, scikit-learn's digits, or dead leaves.

Names of training sets:

`dead-leaves`
    the seeded images of `images`, without labels: for the micro-object task.
`digits`
    the 1,797 handwritten digits that come with scikit-learn (8 x 8 pixels), enlarged to 4/5 of the
    side and set in the middle of black.
a folder with IDX files (LeCun's format, gzipped or not; MNIST, Fashion-MNIST and their kin)
    `train-images*`, `train-labels*`, `t10k-images*` (or `test-images*`) and their labels. Smaller
    pictures are set in the middle of black.
any other folder
    subfolders named by class; or subfolders `train` and `test` of such. Pictures of one size, or
    scaled and cropped to `size`.

If a source has no test set, a seeded fifth of each class is used for testing. All pictures are kept
in memory, one byte per value.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...adapters.errors import InputError, UnknownNameError
from ...adapters.input_spec import InputSpec
from ..images import open_images
from ..pictures import picture_files, read_picture
from .idx import idx_files, read_idx

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..measuring.phases import Pair

BUILT_IN = ("dead-leaves", "digits")

KEPT_FOR_TEST = 0.2

MAX_BYTES = 16 * 2**30
"""Largest total size of the pictures in bytes."""

DIGITS_SHARE = 0.8

DEFAULT_SIZE = 40

DEAD_LEAVES_COUNTS = (2048, 512)
"""Default numbers of dead-leaves images for training and for testing."""


@dataclass(frozen=True)
class LabelledPictures:
    """Bytes (n, 1 or 3, height, width) and labels (n,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def images(self, which: Any = slice(None)) -> Tensor:
        """Pictures `which` (indices or a slice) as (n, 3, height, width) float32 in [0, 1]."""
        chosen = torch.from_numpy(which) if isinstance(which, np.ndarray) else which
        return (self.pixels[chosen].float() / 255).expand(-1, 3, -1, -1)

    def first(self, count: int | None) -> LabelledPictures:
        """The first `count` pictures, or all."""
        return LabelledPictures(self.pixels[:count], self.labels[:count])


@dataclass(frozen=True)
class TrainingSet:
    """Training and test pictures, the names of their classes, and the name of the source."""

    name: str
    train: LabelledPictures
    test: LabelledPictures
    classes: tuple[str, ...]

    @property
    def size(self) -> Pair:
        """Height and width in pixels."""
        return int(self.train.pixels.shape[2]), int(self.train.pixels.shape[3])

    def digest(self) -> str:
        """Sha256 over all bytes and labels."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256(repr((self.classes, self.train.pixels.shape)).encode())
        for part in (self.train, self.test):
            digest.update(part.pixels.contiguous().numpy().tobytes())
            digest.update(part.labels.contiguous().numpy().tobytes())
        return digest.hexdigest()


def open_training_set(
    name: str,
    *,
    size: Pair | None = None,
    train: int | None = None,
    test: int | None = None,
    seed: int = 0,
) -> TrainingSet:
    """Open the set called `name` (see the module's docstring) with pictures of `size` pixels.

    `train` and `test` limit the number of pictures, taken in a seeded order. Raises
    `UnknownNameError` for an unknown name, `InputError` for data that cannot be used.
    """
    if name == "dead-leaves":
        return _leaves(size or (DEFAULT_SIZE, DEFAULT_SIZE), train, test, seed)
    if name == "digits":
        found = _digits(size or (DEFAULT_SIZE, DEFAULT_SIZE), seed)
    else:
        folder = Path(name)
        if not folder.is_dir():
            raise UnknownNameError(
                f"data {name!r} is neither a folder nor built in; expected a folder of classes, a "
                f"folder with IDX files, or {' or '.join(BUILT_IN)}"
            )
        idx = idx_files(folder)
        found = _idx(folder, idx, size) if idx else _folder(folder, size, seed)
    return _shuffled(found, train, test, seed)


def _shuffled(found: TrainingSet, train: int | None, test: int | None, seed: int) -> TrainingSet:
    """The first pictures of a seeded order: sources are often sorted by class."""
    parts = []
    for stream, (part, count) in enumerate(((found.train, train), (found.test, test))):
        if count is not None and count < 1:
            raise InputError(f"{count} pictures were requested; expected at least 1")
        order = torch.from_numpy(np.random.default_rng([seed, stream]).permutation(len(part)))
        order = order[:count]
        parts.append(LabelledPictures(part.pixels[order].contiguous(), part.labels[order]))
    return TrainingSet(found.name, parts[0], parts[1], found.classes)


def _leaves(size: Pair, train: int | None, test: int | None, seed: int) -> TrainingSet:
    counts = (train or DEAD_LEAVES_COUNTS[0], test or DEAD_LEAVES_COUNTS[1])
    _check_room((sum(counts), 3, *size))
    images = open_images("dead-leaves", sum(counts), seed).load(InputSpec(*size))
    octets = (images * 255).round().to(torch.uint8)
    parts = [
        LabelledPictures(o, torch.zeros(len(o), dtype=torch.long))
        for o in octets.split(list(counts))
    ]
    return TrainingSet("dead-leaves", parts[0], parts[1], ("dead leaves",))


def _digits(size: Pair, seed: int) -> TrainingSet:
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError as error:
        raise InputError(
            f"the data `digits` come with scikit-learn, which cannot be imported ({error}); "
            "pip install 'perimetry[train]', or name a folder"
        ) from error
    found = load_digits()
    grey = torch.from_numpy(found.images).float()[:, None] / 16
    side = round(DIGITS_SHARE * min(size))
    grey = torch.nn.functional.interpolate(grey, (side, side), mode="bilinear")
    octets = _framed((grey * 255).round().to(torch.uint8), size)
    labels = torch.from_numpy(found.target).long()
    names = tuple(str(name) for name in found.target_names)
    return _split("digits", LabelledPictures(octets, labels), names, seed)


def _framed(octets: Tensor, size: Pair | None) -> Tensor:
    """Centre (n, c, h, w) on a black canvas of `size`. Raises `InputError` if that is smaller.

    Without a size it is the next multiple of 8, so that strides divide it.
    """
    own = octets.shape[2:]
    rows, columns = size or (-(-own[0] // 8) * 8, -(-own[1] // 8) * 8)
    down, right = rows - own[0], columns - own[1]
    if min(down, right) < 0:
        raise InputError(
            f"pictures of {own[0]} x {own[1]} pixels do not fit into {rows} x {columns}; "
            "expected a size at least as large"
        )
    sides = (right // 2, right - right // 2, down // 2, down - down // 2)
    return torch.nn.functional.pad(octets, sides)


def _split(name: str, whole: LabelledPictures, classes: tuple[str, ...], seed: int) -> TrainingSet:
    """Use a seeded fifth of each class, at least one picture, for testing."""
    rng = np.random.default_rng([seed, len(whole)])
    kept = np.zeros(len(whole), dtype=bool)
    for label in range(len(classes)):
        own = rng.permutation(np.flatnonzero(whole.labels.numpy() == label))
        if len(own) < 2:
            raise InputError(
                f"class {classes[label]!r} of {name} has {len(own)} pictures; expected at least 2, "
                "one of them to test on"
            )
        kept[own[: max(1, round(KEPT_FOR_TEST * len(own)))]] = True
    train, test = (
        LabelledPictures(whole.pixels[mask], whole.labels[mask])
        for mask in (torch.from_numpy(~kept), torch.from_numpy(kept))
    )
    return TrainingSet(name, train, test, classes)


def _check_room(shape: Sequence[int]) -> None:
    if math.prod(shape) > MAX_BYTES:
        raise InputError(
            f"{shape[0]} pictures of {shape[2]} x {shape[3]} pixels take "
            f"{math.prod(shape) / 2**30:.1f} GiB of memory; expected at most "
            f"{MAX_BYTES / 2**30:.0f} GiB: use fewer pictures, or a smaller size"
        )


def _idx(folder: Path, files: dict[str, Path], size: Pair | None) -> TrainingSet:
    parts = []
    for part in ("train", "test"):
        images, labels = (read_idx(files[f"{part}-{what}"]) for what in ("images", "labels"))
        if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
            raise InputError(
                f"{folder}: {part} images have shape {images.shape} and labels {labels.shape}; "
                "expected (n, height, width) and (n,)"
            )
        _check_room((len(images), 1, *images.shape[1:]))
        octets = _framed(torch.from_numpy(images)[:, None], size)
        parts.append(LabelledPictures(octets, torch.from_numpy(labels).long()))
    count = int(max(part.labels.max() for part in parts)) + 1
    return TrainingSet(folder.name, parts[0], parts[1], tuple(map(str, range(count))))


def _folder(folder: Path, size: Pair | None, seed: int) -> TrainingSet:
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        classes = _classes(folder / "train")
        if (other := _classes(folder / "test")) != classes:
            raise InputError(
                f"{folder}: classes of train ({', '.join(classes)}) and test ({', '.join(other)}) "
                "differ; expected the same subfolders in both"
            )
        train = _read_classes(folder / "train", classes, size)
        test = _read_classes(folder / "test", classes, size or _size_of(train))
        if _size_of(train) != _size_of(test):
            raise InputError(f"{folder}: pictures of train and test differ in size; name a size")
        return TrainingSet(folder.name, train, test, classes)
    classes = _classes(folder)
    return _split(folder.name, _read_classes(folder, classes, size), classes, seed)


def _size_of(pictures: LabelledPictures) -> Pair:
    return int(pictures.pixels.shape[2]), int(pictures.pixels.shape[3])


def _classes(folder: Path) -> tuple[str, ...]:
    """Names of the subfolders with pictures. Raises `InputError` if there is none."""
    names = [p.name for p in sorted(folder.iterdir()) if p.is_dir() and picture_files(p)]
    if not names:
        raise InputError(
            f"{folder} contains neither IDX files nor subfolders of pictures; expected a subfolder "
            "for each class"
        )
    return tuple(names)


def _read_classes(folder: Path, classes: tuple[str, ...], size: Pair | None) -> LabelledPictures:
    paths = [
        (path, label) for label, name in enumerate(classes) for path in picture_files(folder / name)
    ]
    decode = _decoder(size)
    first = decode(paths[0][0])
    shape = (len(paths), 3, *first.shape[:2])
    _check_room(shape)
    octets = torch.empty(shape, dtype=torch.uint8)
    for place, (path, _) in enumerate(paths):
        pixels = decode(path)
        if pixels.shape != first.shape:
            raise InputError(
                f"{path} has {pixels.shape[0]} x {pixels.shape[1]} pixels, {paths[0][0].name} "
                f"{first.shape[0]} x {first.shape[1]} (height x width); expected one size for "
                "all: set a size, to which they are then scaled and cropped"
            )
        octets[place] = torch.from_numpy(pixels).permute(2, 0, 1)
    return LabelledPictures(octets, torch.tensor([label for _, label in paths]))


def _decoder(size: Pair | None) -> Callable[[Path], Any]:
    from PIL import Image, ImageOps

    def decode(path: Path) -> Any:
        """Pixels (height, width, 3)."""
        picture = read_picture(path)
        if size is not None and picture.size != (size[1], size[0]):
            picture = ImageOps.fit(picture, (size[1], size[0]), Image.Resampling.BICUBIC)
        return np.array(picture, dtype=np.uint8)

    return decode
