"""Image sets: a folder, or a built-in seeded set that needs no data.

`dead-leaves` (Lee, Mumford & Huang 2001): opaque discs of random colour, radii r with density
proportional to r^-3, drawn over each other until the canvas is full; scale-invariant, with the
statistics of natural images. A fine texture (standard deviation 0.02) is added: on exactly flat
areas rounding would decide which pixel a max-pool selects. `noise`: standard normal in the model's
normalised space.

The same name, seed and size give the same pixels, bit for bit; the content of an image does not
depend on the number of images.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..adapters.errors import InputError, NotApplicableError, UnknownNameError
from .pictures import SUFFIXES, check_pictures, picture_files, read_picture

if TYPE_CHECKING:
    from torch import Tensor

    from ..adapters.input_spec import InputSpec

BUILT_IN = ("dead-leaves", "noise")

MIN_RADIUS = 2.0

TEXTURE = 0.02

MAX_DISCS = 20_000


@dataclass(frozen=True)
class ImageSet:
    """`count` images that can be loaded at the input size of any model."""

    name: str
    count: int
    seed: int
    files: tuple[Path, ...] = ()
    _cache: dict[str, Tensor] = field(default_factory=dict, repr=False, compare=False)

    def load(self, spec: InputSpec) -> Tensor:
        """The images as (count, 3, height, width) float32, in [0, 1] except for `noise`.

        Raises `NotApplicableError` for models with neither 1 nor 3 channels.
        """
        if spec.channels not in (1, 3):
            raise NotApplicableError(
                f"the model takes {spec.channels} channels; images have 3, or 1 if grey"
            )
        key = spec.digest()
        if key not in self._cache:
            self._cache.clear()
            self._cache[key] = self._make(spec)
        return self._cache[key]

    def digest(self, spec: InputSpec) -> str:
        """SHA-256 of `spec` and of the file contents, or of generator, count and seed."""
        what = "folder" if self.files else f"{self.name}:{self.count}:{self.seed}"
        digest = hashlib.sha256(f"{what}:{spec.digest()}".encode())
        for path in self.files:
            with path.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
        return digest.hexdigest()

    def first(self, count: int) -> ImageSet:
        """The first `count` images of the set, or all if there are fewer."""
        count = min(count, self.count)
        return ImageSet(self.name, count, self.seed, self.files[:count])

    def shuffled(self) -> ImageSet:
        """The same files in a seeded random order, so that the first ones are a fair sample."""
        order = np.random.default_rng([self.seed, len(self.files)]).permutation(len(self.files))
        return ImageSet(self.name, self.count, self.seed, tuple(self.files[i] for i in order))

    def check(self) -> ImageSet:
        """The set itself. Raises `InputError` for the first file that cannot be used."""
        check_pictures(self.files)
        return self

    def _make(self, spec: InputSpec) -> Tensor:
        if self.files:
            return torch.stack([_photograph(path, spec) for path in self.files])
        if self.name == "noise":
            return torch.stack([_noise(spec, self.seed, i) for i in range(self.count)])
        leaves = [_dead_leaves(spec.height, spec.width, self.seed, i) for i in range(self.count)]
        return torch.stack(leaves)


def open_images(name: str, count: int = 16, seed: int = 0) -> ImageSet:
    """Open `dead-leaves`, `noise`, or the folder called `name`.

    A folder with more than `count` images gives a seeded sample, in name order. Raises `InputError`
    for an empty folder or a count below one, `UnknownNameError` for an unknown name.
    """
    if count < 1:
        raise InputError(f"{count} images were requested; expected at least 1")
    if name in BUILT_IN:
        return ImageSet(name, count, seed)
    folder = Path(name)
    if not folder.is_dir():
        raise UnknownNameError(
            f"images {name!r} are neither a folder nor built in; expected a folder, "
            f"{' or '.join(BUILT_IN)}"
        )
    files = picture_files(folder)
    if not files:
        below = " (its subfolders are not searched: name one of them)"
        raise InputError(
            f"folder {name!r} contains no images; expected {', '.join(sorted(SUFFIXES))}"
            + (below if any(p.is_dir() for p in folder.iterdir()) else "")
        )
    if len(files) > count:
        picked = np.random.default_rng(seed).choice(len(files), count, replace=False)
        files = [files[i] for i in sorted(picked)]
    return ImageSet(folder.resolve().name, len(files), seed, tuple(files))


def _generator(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng([seed, index])


@lru_cache(maxsize=256)
def _dead_leaves(height: int, width: int, seed: int, index: int) -> Tensor:
    """One dead-leaves image (3, height, width), front to back until no pixel is bare."""
    rng = _generator(seed, index)
    side = max(height, width)
    image = np.full((height, width, 3), 0.5, dtype=np.float32)
    bare = np.ones((height, width), dtype=bool)
    largest = max(side / 2, MIN_RADIUS + 1)
    for _ in range(MAX_DISCS // 100):
        shrink = 1 - rng.random(100) * (1 - (MIN_RADIUS / largest) ** 2)
        discs = zip(
            rng.random(100) * height,
            rng.random(100) * width,
            MIN_RADIUS / np.sqrt(shrink),
            rng.random((100, 3), dtype=np.float32),
            strict=True,
        )
        for disc in discs:
            _paint_disc(image, bare, *disc)
        if not bare.any():
            break
    image += rng.normal(0.0, TEXTURE, image.shape).astype(np.float32)
    return torch.from_numpy(image.clip(0, 1)).permute(2, 0, 1).contiguous()


def _paint_disc(
    image: np.ndarray,
    bare: np.ndarray,
    row: float,
    column: float,
    radius: float,
    colour: np.ndarray,
) -> None:
    """Colour the bare pixels of one disc."""
    top, left = max(int(row - radius), 0), max(int(column - radius), 0)
    rows = slice(top, int(row + radius) + 2)
    columns = slice(left, int(column + radius) + 2)
    window = bare[rows, columns]
    if not window.any():
        return
    y = np.arange(top, top + window.shape[0])[:, None] - row
    x = np.arange(left, left + window.shape[1])[None] - column
    disc = window & (y * y + x * x <= radius * radius)
    image[rows, columns][disc] = colour
    window[disc] = False


def _noise(spec: InputSpec, seed: int, index: int) -> Tensor:
    """An image (3, height, width) that `spec` normalises to standard normal noise."""
    z = _generator(seed, index).standard_normal(spec.shape)
    x = torch.from_numpy(z.astype(np.float32))
    image = (x * spec.channel_std(x)[0] + spec.channel_mean(x)[0]) / spec.value_range
    if spec.channels == 1:
        return image.expand(3, -1, -1)
    return image.flip(0) if spec.channel_order == "BGR" else image


def _photograph(path: Path, spec: InputSpec) -> Tensor:
    """One file, resized so that `spec.crop_pct` of its shorter side is cropped from the centre."""
    from PIL import Image, ImageOps

    picture = read_picture(path)
    method = getattr(Image.Resampling, spec.interpolation.upper(), Image.Resampling.BICUBIC)
    canvas = (round(spec.width / spec.crop_pct), round(spec.height / spec.crop_pct))
    picture = ImageOps.fit(picture, canvas, method)
    left, top = (canvas[0] - spec.width) // 2, (canvas[1] - spec.height) // 2
    picture = picture.crop((left, top, left + spec.width, top + spec.height))
    return torch.from_numpy(np.asarray(picture, dtype=np.float32) / 255).permute(2, 0, 1)
