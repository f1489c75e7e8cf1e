"""Maps and draws as one compressed `.npz`: maps small, draws exact.

A map is divided by a power of two so that its peak lies just under float16's largest number, then
rounded to float16: 11 bits of relative precision over the nine decades below the peak (a further
three decades lose precision step by step, what is smaller becomes 0). Draws stay float64, because
differences of nearly equal draws are what decides a rank. Members of the archive are `map.NAME`,
`exponent.NAME` (map = stored * 2**exponent) and `draws.NAME`. Nothing in it is pickled.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..output.files import StoreError
from ..output.reading import open_regular
from .npz import load_members

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .record import Arrays


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
    """Undo `shrink`, up to its rounding."""
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
