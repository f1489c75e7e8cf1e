"""Reading IDX files, the format of MNIST and of sets like it."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

IDX_BYTES = 0x08
"""IDX's type code of unsigned bytes."""


def idx_files(folder: Path) -> dict[str, Path]:
    """The four files by part, such as `train-images`; empty if there is none of them.

    Raises `InputError` if only some are missing.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        stem = path.name.replace("t10k", "test").replace(".", "-")
        for part in ("train-images", "train-labels", "test-images", "test-labels"):
            if stem.startswith(part) and "ubyte" in stem:
                found.setdefault(part, path)
    if found and len(found) < 4:
        raise InputError(
            f"{folder} has IDX files for {', '.join(found)} only; expected train-images, "
            "train-labels, t10k-images and t10k-labels, each as -idx3-ubyte or -idx1-ubyte, "
            "gzipped or not"
        )
    return found


def read_idx(path: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read an IDX file of bytes, gzipped or not. Raises `InputError` if it is invalid or cut."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if len(data) < 4 or data[:2] != b"\0\0" or data[2] != IDX_BYTES or not 1 <= data[3] <= 4:
        raise InputError(
            f"{path} is not an IDX file of bytes: it begins with {data[:4].hex()!r}, expected "
            "'00000801' to '00000804'; name a folder with files in that format"
        )
    axes = data[3]
    head = 4 + 4 * axes
    shape = struct.unpack(f">{axes}I", data[4:head].ljust(4 * axes, b"\0"))
    if len(data) - head != math.prod(shape) or 0 in shape:
        raise InputError(
            f"{path} should contain {' x '.join(map(str, shape))} bytes and contains "
            f"{max(0, len(data) - head)}; it is cut or damaged"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=head).reshape(shape).copy()
