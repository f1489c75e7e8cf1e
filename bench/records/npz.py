"""Reading the arrays of an `.npz` file without trusting it.

Type, shape and size of each array are read from its header, and compared with the size that the
archive states and with a limit, before memory is taken. Only numbers are read: an array of objects
would have to be unpickled.
"""

from __future__ import annotations

import math
import zipfile
from functools import lru_cache
from io import BytesIO
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

NUMBERS = "biuf"
"""Kinds of types that are read: truth values, integers, floats."""

COMPRESSIONS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

HEADER_BYTES = 4096
"""The largest header of an array: far more than a type and a shape take."""

MOST_AXES = 16


def load_members(
    stream: IO[bytes], limit: int, prefix: str = ""
) -> dict[str, np.ndarray[Any, Any]]:
    """The arrays of an archive whose names begin with `prefix`, of at most `limit` bytes together.

    Raises `ValueError` for what no archive of plain arrays has, and what `zipfile` and `zlib` raise
    for damaged bytes.
    """
    with zipfile.ZipFile(stream) as archive:
        members = archive.infolist()
        size = sum(info.file_size for info in members)
        if size > limit:
            raise ValueError(f"its arrays have {size} bytes, more than {limit}")
        names = [info.filename.removesuffix(".npy") for info in members]
        if len(set(names)) < len(names):
            raise ValueError("two of its arrays have one name")
        both = zip(names, members, strict=True)
        return {name: _read(archive, info) for name, info in both if name.startswith(prefix)}


def load_array(stream: IO[bytes], limit: int) -> np.ndarray[Any, Any]:
    """The array of numbers in an `.npy` file of at most `limit` bytes. Raises `ValueError`.

    The limit is checked before memory is taken, and that the file ends where its header says;
    reading to the end also checks the checksum of a member of an archive.
    """
    dtype, shape, by_columns = _header(stream)
    if dtype.kind not in NUMBERS or len(shape) > MOST_AXES or any(n < 0 for n in shape):
        raise ValueError(f"it has type {dtype} and shape {shape}")
    size = math.prod(shape) * dtype.itemsize
    if size > limit:
        raise ValueError(f"it has {size} bytes, more than {limit}")
    data = stream.read(size)
    if len(data) < size or stream.read(1):
        raise ValueError(f"it has other bytes than its header says for shape {shape}")
    values = np.frombuffer(data, dtype).reshape(shape, order="F" if by_columns else "C")
    return values.copy()


def _read(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """One array, whose bytes must be as many as its header and the archive say."""
    if not info.filename.endswith(".npy") or info.compress_type not in COMPRESSIONS:
        raise ValueError(f"{info.filename!r} is not an array")
    try:
        with archive.open(info) as stream:
            values = load_array(stream, info.file_size)
    except ValueError as error:
        raise ValueError(f"{info.filename!r}: {error}") from error
    if info.file_size - values.nbytes > HEADER_BYTES:
        raise ValueError(f"{info.filename!r} has {info.file_size} bytes for shape {values.shape}")
    return values


def _header(stream: IO[bytes]) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and order of the array that begins here."""
    version = npy.read_magic(stream)
    if version not in LENGTHS:
        raise ValueError(f"an array has format {version}")
    length = stream.read(LENGTHS[version])
    size = min(int.from_bytes(length, "little"), HEADER_BYTES + 1)
    return _parsed(version, length + stream.read(size))


LENGTHS = {(1, 0): 2, (2, 0): 4}
"""Bytes of the length of a header, by the version of the format."""


@lru_cache(maxsize=1024)
def _parsed(version: tuple[int, int], header: bytes) -> tuple[np.dtype[Any], tuple[int, ...], bool]:
    """Type, shape and order in a header; the arrays of a folder have few different ones."""
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, by_columns, dtype = read(BytesIO(header), max_header_size=HEADER_BYTES)
    return dtype, shape, by_columns
