"""Picture files, opened without trusting them.

A file is what its content says, whatever its name: BMP, GIF, JPEG, PNG, PPM, TIFF or WebP, for
which Pillow has decoders that only compute. (An EPS file is a program, which Pillow would give to
Ghostscript.) The size is read before the pixels. `check_pictures` decodes in a process of its own,
so that a decoder that crashes, or does not end, ends neither the command nor the run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from ..adapters.errors import InputError
from ..adapters.own_process import run_in_own_process

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL.Image import Image as PilImage

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm"}

FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""Pillow's names of the formats that are opened."""

MAX_PIXELS = 2**26
"""Pixels of one picture: 8192 x 8192."""

MAX_BYTES = 2**30
"""Bytes of one file."""

SIXTEEN_BITS = ("PNG", "PPM")
"""Formats with 16 bits, which Pillow reports as 32-bit integers."""

CHECK_SECONDS = 60.0
"""How long decoding all pictures of a set may take, on top of `SECONDS_EACH` for each of them."""

SECONDS_EACH = 5.0


def picture_files(folder: Path) -> list[Path]:
    """The files in `folder` with the suffix of an image, in name order, without hidden files."""
    # macOS writes a hidden `._NAME.jpg` next to each picture on disks of other systems
    named = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES)
    return sorted(p for p in named if p.is_file() and not p.name.startswith("."))


def read_picture(path: Path) -> PilImage:
    """Read one file as 8-bit RGB, rotated according to EXIF, without transparency (as timm does).

    16-bit greys keep their upper byte. Raises `InputError` for a file that is not an image of one
    of `FORMATS` or is too large, and for floats and 32-bit integers, whose range is unknown.
    """
    kind, picture = _decode(path)
    if picture.mode == "F" or (picture.mode == "I" and kind not in SIXTEEN_BITS):
        kinds = "floats" if picture.mode == "F" else "32-bit integers"
        raise InputError(
            f"{path} contains {kinds}, whose range is unknown; expected 8 or 16 bits per "
            "channel: convert it first"
        )
    if picture.mode.startswith("I"):  # `convert` would clip all above 255 to white
        return _upper_byte(picture)
    return picture.convert("RGB")


def read_cutout(path: Path) -> PilImage:
    """Read one file as 8-bit RGBA, opaque where it has no transparency.

    Raises `InputError` as `read_picture` does.
    """
    picture = _decode(path)[1]
    if picture.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in picture.info:
        return picture.convert("RGBA")
    return read_picture(path).convert("RGBA")


def _decode(path: Path) -> tuple[str | None, PilImage]:
    """The format of a file and its first picture. Raises `InputError`."""
    from PIL import Image, ImageOps

    try:
        _check_file(path)
        with Image.open(path, formats=FORMATS) as file:
            _check_size(file.width, file.height)
            kind, picture = file.format, ImageOps.exif_transpose(file)
            picture.load()
    except Exception as error:  # decoders of damaged files raise errors of every kind
        raise InputError(
            f"{path} cannot be read as an image: {error}; expected one of {', '.join(FORMATS)} of "
            f"at most {MAX_PIXELS} pixels: convert the file, or remove it"
        ) from error
    return kind, picture


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise InputError("it is not a regular file")
    if path.stat().st_size > MAX_BYTES:
        raise InputError(f"it has more than {MAX_BYTES} bytes")


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"it has {width} x {height} pixels")


def _upper_byte(picture: PilImage) -> PilImage:
    """Greys of 16 bits as RGB of 8."""
    import numpy as np
    from PIL import Image

    grey = np.asarray(picture).astype(np.int64) >> 8
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB")


def check_pictures(paths: Sequence[Path]) -> None:
    """Raise `InputError` for the first of `paths` that cannot be read as a picture, or not in time.

    The decoding is done, and bounded, in a process of its own.
    """
    stamps = tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths)
    fault = _first_fault(stamps)
    if fault is not None:
        raise InputError(fault)


@lru_cache(maxsize=16)
def _first_fault(stamps: tuple[tuple[str, int, int], ...]) -> str | None:
    """What is wrong with the first file that is; sizes and times make a changed file another."""
    names = [name for name, _, _ in stamps]
    limit_s = CHECK_SECONDS + SECONDS_EACH * len(names)
    try:
        done = run_in_own_process(report_faults, names, limit_s=limit_s)
    except subprocess.TimeoutExpired as error:
        return _stopped(names, error.stdout or b"", f"decoding took longer than {limit_s:g} s")
    lines = done.stdout.splitlines()
    if done.returncode == 0 and lines:
        found: str | None = json.loads(lines[-1])
        return found
    return _stopped(names, done.stdout, f"the decoder ended with exit code {done.returncode}")


def report_faults(names: Sequence[str]) -> None:
    """Decode files and print the number of each that is sound, then the first fault or `null`."""
    from pathlib import Path

    fault = None
    for number, name in enumerate(names):
        try:
            read_picture(Path(name))
        except InputError as error:
            fault = str(error)
            break
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
    sys.stdout.write(json.dumps(fault) + "\n")


def _stopped(names: Sequence[str], output: bytes, why: str) -> str:
    """The message about the file that was being decoded when the process ended."""
    sound = sum(line.isdigit() for line in output.splitlines())
    return f"{names[min(sound, len(names) - 1)]} cannot be read as an image: {why}; remove the file"
