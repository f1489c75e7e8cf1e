"""The maps of a page: one byte per value, on the scale that `figures.maps` would draw them on.

Each level has fewer or coarser maps than the one before; the first level that fits the size of the
page is used. At the first level a model's panel has every map of its records, up to `SIDE` values a
side. At the others it has one whole map, a measured one if there is one, reduced to means over
blocks, and the phase profile at full resolution, which has the pattern of the strides that block
means smooth away. The ranking has two thumbnails at every level: a whole map of `THUMB` values a
side and a profile. At the last level they are the only maps.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...figures.canvas import SIGNED_COLOURS, quantised
from ...figures.maps import MAP_STYLES, MapStyle, scaled, tiled
from ...output.files import try_or_none
from ...output.numbers import six_digits

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from ...figures.canvas import Array
    from ...records.record import Record


THUMB = 28


TALLEST = 48
"""Maps of at most so many values a side are thumbnails as they are; a row is little higher."""


SIDE = 256


LEVELS: tuple[int | None, ...] = (None, 112, 56, 0)
"""Longer side of the whole map; None for every map at its own size, up to `SIDE`; 0 for none."""


WHOLE = ("sensitivity", "sensitivity_sum")


PROFILES = ("phase_profile", "comb_profile")


MEASURED = ("deadpixel",)
"""Suites whose maps are the first choice where there is room for one."""


SAMPLED = 48
"""The number of variants or models that are packed to estimate the size of all."""


@dataclass(frozen=True)
class PackedMap:
    """A map in bytes, row by row, and the facts that the page needs to draw it."""

    data: bytes
    facts: dict[str, Any]


def pack_maps(records: Iterable[Record], level: int | None) -> list[PackedMap]:
    """The maps of one model variant, suite by suite; maps that cannot be read are left out."""
    found: list[PackedMap] = []
    if level == 0:
        return found
    for record in records if level is None else _measured_first(records):
        if level is not None and any(p.facts["name"] in WHOLE for p in found):
            continue
        found += _of_record(record, level)
    return found


def _measured_first(records: Iterable[Record]) -> list[Record]:
    return sorted(records, key=lambda record: record.suite not in MEASURED)


def _of_record(record: Record, level: int | None) -> list[PackedMap]:
    maps = record_maps(record)
    wanted = maps if level is None else [n for n in (*WHOLE, *PROFILES) if n in maps]
    made = [_pack(record, name, np.asarray(maps[name]), level) for name in wanted]
    order = {name: place for place, name in enumerate((*WHOLE, *PROFILES))}
    kept = [one for one in made if one is not None]
    return sorted(kept, key=lambda one: order.get(one.facts["name"], len(order)))


def record_maps(record: Record) -> dict[str, np.ndarray[Any, Any]]:
    """The maps of a record, which does not keep them in memory; empty if they cannot be read."""
    maps = dict(record.maps)
    record.forget()
    return maps


def _pack(
    record: Record, name: str, values: np.ndarray[Any, Any], level: int | None
) -> PackedMap | None:
    flat = tiled(values)
    if flat is None:
        return None
    look = MAP_STYLES.get(name, MapStyle())
    shown = flat if name in PROFILES else reduced(flat, level or SIDE)
    scale = scaled(shown, look.scale, look.what)
    facts = {
        "suite": record.suite,
        "protocol": record.protocol,
        "name": name,
        "shape": list(shown.shape),
        "of": list(flat.shape),
        "low": six_digits(scale.low),
        "high": six_digits(scale.high),
        "label": scale.label,
        "signed": scale.colours == SIGNED_COLOURS,
        "mean": look.scale == "mean" and bool(flat.min() >= 0),
        "axes": [a.format(rows=flat.shape[0], columns=flat.shape[1]) for a in look.axes],
        "what": look.what or name,
        "cell": try_or_none(_cell, record) if look.cells else None,
    }
    return PackedMap(quantised(scale.shown, scale.low, scale.high).tobytes(), facts)


def _cell(record: Record) -> list[int] | None:
    """The stride cell of the record's sensitivity."""
    target, spec = record.model.target, record.model.spec
    if not target or not spec or not target.get("height") or not target.get("width"):
        return None
    return [round(spec[n] / target[n]) for n in ("height", "width")]


def reduced(values: Array, side: int) -> Array:
    """Means over equal blocks, so that neither axis is longer than `side`.

    Blocks are whole: where a size is no multiple of them, the last rows and columns are shared out
    in proportion.
    """
    return _reduced_rows(_reduced_rows(values, side).T, side).T


def _reduced_rows(values: Array, side: int) -> Array:
    rows = values.shape[0]
    if rows <= side:
        return values
    edges = np.linspace(0, rows, side + 1)
    sums = np.vstack([np.zeros((1, values.shape[1])), np.cumsum(values, axis=0)])
    below = np.floor(edges).astype(int)
    above = np.minimum(below + 1, rows)
    at = sums[below] + (edges - below)[:, None] * (sums[above] - sums[below])
    result: Array = np.diff(at, axis=0) * (side / rows)
    return result


def thumbs(records: Iterable[Record]) -> list[tuple[bytes, list[Any]]]:
    """The whole map and a phase profile of a variant, each with shape and top, for the ranking.

    Both are over their means, from 0 to `top` means.
    """
    found: dict[str, tuple[bytes, list[Any]]] = {}
    for record in _measured_first(records):
        if len(found) == 2:
            break
        maps = record_maps(record)
        for kind, names in (("whole", WHOLE), ("profile", PROFILES)):
            name = next((n for n in names if n in maps), None)
            thumb = _thumb(maps[name]) if name and kind not in found else None
            if thumb is not None:
                found[kind] = thumb[0], [kind, *thumb[1]]
    return list(found.values())


def _thumb(values: np.ndarray[Any, Any]) -> tuple[bytes, list[Any]] | None:
    flat = tiled(np.asarray(values))
    if flat is None or flat.mean() <= 0:
        return None
    longest = max(flat.shape)
    small = reduced(flat, longest if longest <= TALLEST else 32 if longest <= 64 else THUMB)
    shown = small / small.mean()
    top = six_digits(float(shown.max()))
    return quantised(shown, 0.0, top).tobytes(), [*shown.shape, top]


def choose_level(variants: Sequence[Sequence[Record]], room: int) -> int | None:
    """The first of `LEVELS` at which the maps of all `variants` take at most `room` bytes.

    Foreseen from at most `SAMPLED` of them; the last level where none fits.
    """
    sample = variants[:: 1 + len(variants) // SAMPLED]
    share = room * max(1, len(sample)) / max(1, len(variants)) * 3 / 4
    return next((level for level in LEVELS if _fit(sample, level, share)), LEVELS[-1])


def _fit(variants: Sequence[Sequence[Record]], level: int | None, room: float) -> bool:
    """Whether the maps of `variants` at `level` take at most `room` bytes when deflated.

    No further ones are read once they do not.
    """
    stream, size = zlib.compressobj(6), 0
    for records in variants:
        for one in pack_maps(records, level):
            size += len(stream.compress(one.data))
        if size > room:
            return False
    return size + len(stream.flush()) <= room
