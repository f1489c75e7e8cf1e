"""Maps and draws as one compressed `.npz`: maps small, draws exact.

A map is divided by a power of two so that its peak lies just under float16's largest number, then
rounded to float16: 11 bits of relative precision over the nine decades below the peak (a further
three decades lose precision step by step, what is smaller becomes 0). Draws stay float64, because
differences of nearly equal draws are what decides a rank. Members of the archive are `map.NAME`,
`exponent.NAME` (map = stored * 2**exponent) and `draws.NAME`. Nothing in it is pickled.

The archive is not trusted: type, shape and size of each array are read from its header, and
compared with the size that the archive states and with a limit, before memory is taken.

In JSON and in memory draws are kept to 16 bits, the same in memory, folder and pack: they are
rounded to 65,536 steps between their smallest and their largest when a record gets them, so that a
board of records in memory, of their folder and of their packed file is the same to the last digit.
Rounding what is rounded changes nothing.
"""

from __future__ import annotations

import base64
import math
import zipfile
from functools import lru_cache
from io import BytesIO
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from ...adapters.errors import InputError
from ...suites.base import Array
from ..output.files import StoreError, open_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


Arrays = tuple[dict[str, np.ndarray[Any, Any]], dict[str, Array]]
"""Maps by name, and draws by metric."""

MAX_BYTES = 2**29
"""Bytes of the arrays of one record, and of their file."""

MAX_EXPONENT = 1100
"""Beyond any exponent of float64."""

PEAK_EXPONENT = 15
"""Scaled peaks lie in [2**15, 2**16); float16 ends at 65504, so a peak rounds to at most that."""

DRAWS = "draws."
"""What the names of draws begin with in an archive."""

FLOAT16_MAX = float(np.finfo(np.float16).max)


def write_arrays(stream: IO[bytes], arrays: Arrays) -> None:
    """Write maps and draws to `stream` as an archive; equal arrays give equal bytes."""
    maps, draws = arrays
    members: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in maps.items():
        members[f"map.{name}"], exponent = to_float16(np.asarray(values))
        if exponent is not None:
            members[f"exponent.{name}"] = np.array(exponent, dtype=np.int32)
    for name, values in draws.items():
        members[f"{DRAWS}{name}"] = np.asarray(values, dtype=np.float64)
    np.savez_compressed(stream, allow_pickle=False, **dict(sorted(members.items())))


def read_arrays(path: Path, prefix: str = "") -> Arrays:
    """Read an archive: floating maps as float32, other maps as stored, draws as float64.

    Only members are read whose name begins with `prefix`, such as `draws.` for no map.

    Maps with a peak that float32 cannot represent are returned as float64. Raises `StoreError` that
    names the file when it is damaged.
    """
    try:
        with open_regular(path, MAX_BYTES) as stream:
            return load_arrays(stream, prefix)
    except StoreError:
        raise
    except Exception as error:  # a damaged archive raises errors of every kind
        raise StoreError(
            f"the maps and draws in {path} are damaged ({error or type(error).__name__}); expected "
            f"the file that was written with {path.with_suffix('.json').name}: remove both and "
            "measure again"
        ) from error


def load_arrays(stream: IO[bytes], prefix: str = "") -> Arrays:
    """Read an archive from a stream, as `read_arrays` does."""
    members = load_members(stream, MAX_BYTES, prefix)
    maps = {
        name.removeprefix("map."): grow(values, _exponent(members, name))
        for name, values in members.items()
        if name.startswith("map.")
    }
    draws = {
        name.removeprefix(DRAWS): values.astype(np.float64)
        for name, values in members.items()
        if name.startswith(DRAWS)
    }
    return maps, draws


def to_float16(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], int | None]:
    """Scale floating `values` to float16; the exponent is None for values kept as they are."""
    if not np.issubdtype(values.dtype, np.floating):
        return values, None
    finite = np.abs(values[np.isfinite(values)])
    peak = float(finite.max()) if finite.size else 0.0
    if peak == 0:
        return values.astype(np.float16), 0
    exponent = int(np.frexp(peak)[1]) - 1 - PEAK_EXPONENT
    scaled = np.ldexp(values.astype(np.float64), -exponent)
    kept = np.where(np.isfinite(scaled), np.clip(scaled, -FLOAT16_MAX, FLOAT16_MAX), scaled)
    return kept.astype(np.float16), exponent


def grow(stored: np.ndarray[Any, Any], exponent: int | None) -> np.ndarray[Any, Any]:
    """Undo `to_float16`, up to its rounding."""
    if exponent is None:
        return stored
    values: np.ndarray[Any, Any] = np.ldexp(stored.astype(np.float64), exponent)
    fits = abs(exponent + PEAK_EXPONENT) < 100
    return values.astype(np.float32) if fits else values


def _exponent(members: Mapping[str, np.ndarray[Any, Any]], name: str) -> int | None:
    """The exponent stored for a map, None for a map that was stored as it was."""
    stored = members.get(name.replace("map.", "exponent.", 1))
    if stored is None:
        return None
    if stored.shape != () or stored.dtype.kind not in "iu" or abs(int(stored)) > MAX_EXPONENT:
        raise ValueError(f"the exponent of {name!r} is {stored!r}")
    return int(stored)


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
        return {name: _read_member(archive, info) for name, info in both if name.startswith(prefix)}


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


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
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


STEPS = 65535


def round_draws(draws: Mapping[str, Array]) -> dict[str, Array]:
    """`draws` (draws,) by metric, as they are kept; draws that are not finite are left out."""
    return {
        name: _from_steps(*_to_steps(np.asarray(values, dtype=np.float64)))
        for name, values in draws.items()
        if np.isfinite(values).all() and np.size(values)
    }


def pack_draws(draws: Mapping[str, Array]) -> dict[str, dict[str, Any]]:
    """`draws` as JSON: ends, and the steps between them in base64, two bytes each."""
    found = {}
    for name, values in sorted(round_draws(draws).items()):
        steps, low, high = _to_steps(values)
        data = base64.b64encode(steps.astype("<u2").tobytes()).decode()
        found[name] = {"low": low, "high": high, "steps": data}
    return found


def unpack_draws(packed: Any) -> dict[str, Array]:
    """What `pack_draws` packed. Raises `InputError` for anything else."""
    try:
        return {
            str(name): _from_steps(
                np.frombuffer(base64.b64decode(one["steps"], validate=True), dtype="<u2"),
                float(one["low"]),
                float(one["high"]),
            )
            for name, one in packed.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"packed draws cannot be read ({error}); pack the records again") from None


def _to_steps(values: Array) -> tuple[np.ndarray[Any, Any], float, float]:
    low, high = float(values.min()), float(values.max())
    if low == high:
        return np.zeros(len(values), dtype=np.uint16), low, high
    return np.rint((values - low) / (high - low) * STEPS).astype(np.uint16), low, high


def _from_steps(steps: np.ndarray[Any, Any], low: float, high: float) -> Array:
    share = steps.astype(np.float64) / STEPS
    values: Array = np.where(steps == STEPS, high, low + share * (high - low))
    return values
