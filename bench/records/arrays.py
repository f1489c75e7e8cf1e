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

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from .record import Arrays


PEAK_EXPONENT = 15
"""Scaled peaks lie in [2**15, 2**16); float16 ends at 65504, so a peak rounds to at most that."""


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
        members[f"draws.{name}"] = np.asarray(values, dtype=np.float64)
    np.savez_compressed(stream, allow_pickle=False, **_sorted(members))


def read_arrays(path: Path) -> Arrays:
    """Read an archive: floating maps as float32, other maps as stored, draws as float64.

    Maps whose peak float32 cannot hold come back as float64.
    """
    with path.open("rb") as stream:
        return load_arrays(stream)


def load_arrays(stream: IO[bytes]) -> Arrays:
    """Read an archive from a stream, as `read_arrays` does."""
    with np.load(stream, allow_pickle=False) as archive:
        maps = {
            name.removeprefix("map."): grow(archive[name], _exponent(archive, name))
            for name in archive.files
            if name.startswith("map.")
        }
        draws = {
            name.removeprefix("draws."): archive[name]
            for name in archive.files
            if name.startswith("draws.")
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


def _exponent(archive: Any, name: str) -> int | None:
    key = name.replace("map.", "exponent.", 1)
    return int(archive[key]) if key in archive.files else None


def _sorted(members: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {name: members[name] for name in sorted(members)}
