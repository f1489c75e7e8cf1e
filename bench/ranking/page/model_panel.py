"""The data of a model's panel beside the ranking's numbers: summary, maps, culprits, provenance.

Models are packed in groups, so that opening one model unpacks only a small part of the page. Their
records are packed in the same way, as JSON for download. Data inside a page are deflated and in
base64, as the text of a `<script type="text/plain" id="...">` element, which no browser runs. Only
letters, digits, `+`, `/` and `=` are in it, whatever the data hold, so that it cannot be read as
markup.
"""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...model_report.case import Case
from ...model_report.provenance import provenance
from ...model_report.report import cause_line, summary
from ...model_report.reported import reported
from ...output.files import try_or_none
from ...output.layout import Literal
from ...output.text import clean
from ...records.parts import to_json_value
from .maps import SAMPLED, pack_maps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from ....suites.base import Suite
    from ...records.record import Record


GROUP_BYTES = 400_000


MOST_CULPRITS = 8


Variants = dict[str, list["Record"]]
"""The records of one model, by kernel padding."""


@dataclass(frozen=True)
class Groups:
    """Packed groups, and for each model its group and its place (maps: its offset) in it."""

    blocks: list[str]
    places: list[list[int]]

    @property
    def size(self) -> int:
        """Characters that all of them take."""
        return sum(map(len, self.blocks))


def raw_records(models: Sequence[Variants], *, tables: bool) -> Groups:
    """The records of each model as a JSON array, as they are stored, or without their tables."""
    dropped: dict[str, Any] = {} if tables else {"tables": {}}
    texts = [
        _json(
            [
                record.model_copy(update=dropped).model_dump(mode="json")
                for records in variants.values()
                for record in records
            ]
        )
        for variants in models
    ]
    return _groups(texts, lists=True)


def tables_fit(models: Sequence[Variants], room: float) -> bool:
    """Whether records with all their tables take at most `room` bytes, estimated from a sample."""
    sample = models[:: 1 + len(models) // SAMPLED]
    size = raw_records(sample, tables=True).size
    return size * len(models) <= room * max(1, len(sample))


def panels(
    models: Sequence[Variants], suites: Mapping[str, Suite], level: int | None
) -> tuple[Groups, Groups]:
    """The texts of each model's panel with the facts of its maps, and the bytes of the maps."""
    texts, pictures = [], []
    for variants in models:
        data = _Bytes()
        fills = {fill: _of_variant(variants, fill, suites) for fill in variants}
        for fill, records in variants.items():
            fills[fill]["maps"] = [
                {**one.facts, "at": data.place(one.data)} for one in pack_maps(records, level)
            ]
        texts.append(_json({"fills": fills, **_provenance(variants, suites)}))
        pictures.append(bytes(data.content))
    return _groups(texts, lists=True), _groups(pictures, lists=False)


def whole(variants: Variants) -> Variants:
    """The records with all of their tables."""
    return {fill: [record.whole() for record in records] for fill, records in variants.items()}


class _Bytes:
    """Bytes of one model's maps; equal maps are stored once."""

    def __init__(self) -> None:
        self.content = bytearray()
        self.places: dict[bytes, int] = {}

    def place(self, data: bytes) -> int:
        if data not in self.places:
            self.places[data] = len(self.content)
            self.content += data
        return self.places[data]


def _groups(items: Sequence[bytes], *, lists: bool) -> Groups:
    """`items` in packed groups: as lists of JSON, or one after the other."""
    blocks, places = [], []
    for number, group in enumerate(grouped_by_size(items, GROUP_BYTES)):
        blocks.append(packed(b"[" + b",".join(group) + b"]" if lists else b"".join(group)))
        offset = 0
        for place, item in enumerate(group):
            places.append([number, place if lists else offset])
            offset += len(item)
    return Groups(blocks, places)


def _of_variant(variants: Variants, fill: str, suites: Mapping[str, Suite]) -> dict[str, Any]:
    """The summary, culprits, notes and gaps of one kernel padding."""
    records = variants[fill]
    others = {name: found for name, found in variants.items() if name != fill}
    case = Case(records[0].model.reference, fill, records, others, suites)
    return {
        "words": [clean(line, 2000) for line in try_or_none(_words, case) or []],
        "culprits": _culprits(records),
        "layers": sum(len(r.tables.get("culprits", [])) for r in records),
        "notes": list(dict.fromkeys(clean(note, 600) for r in records for note in r.notes)),
        "gaps": _gaps(records),
    }


def _words(case: Case) -> list[str]:
    """The first lines of the report, and the causes, which stand in its sections there."""
    causes = cause_line(reported(case.records, case.suites))
    return [*summary(case), *([f"{causes}."] if causes else [])]


def _culprits(records: Sequence[Record]) -> list[list[Any]]:
    """Name, kernel and reduction of imbalance of the strided layers at fault, the worst first."""
    rows = [row for r in records for row in r.tables.get("culprits", [])]
    return [one for row in rows[:MOST_CULPRITS] if (one := try_or_none(_culprit, row)) is not None]


def _culprit(row: Mapping[str, Any]) -> list[Any]:
    kernel, stride = ("x".join(map(str, row[name])) for name in ("kernel", "stride"))
    what = clean(f"{row['kind']}, kernel {kernel}, stride {stride}", 80)
    return [clean(str(row["name"]), 80), what, float(f"{row['reduction']:.4g}")]


def _gaps(records: Sequence[Record]) -> list[str]:
    """Suites that gave nothing, and why."""
    return [
        clean(f"{r.suite}:{r.protocol} {r.status}: {r.why}", 600)
        for r in records
        if r.status != "ok"
    ]


def _provenance(variants: Variants, suites: Mapping[str, Suite]) -> dict[str, Any]:
    """Facts in sentences, and the command that makes the records again."""
    blocks = (
        try_or_none(provenance, [r for records in variants.values() for r in records], suites) or []
    )
    return {
        "facts": [clean(block, 1200) for block in blocks if isinstance(block, str)][:-1],
        "command": next((clean(b.text, 4000) for b in blocks if isinstance(b, Literal)), None),
    }


def _json(content: Any) -> bytes:
    """Compact JSON; numbers that JSON has not, which a hostile record may hold, become words."""
    try:
        return _strict(content)
    except ValueError:
        return _strict(to_json_value(content))


def _strict(content: Any) -> bytes:
    """Compact JSON. Raises `ValueError` for NaN or infinity."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode("ascii")


LEVEL = 6


def packed(data: bytes) -> str:
    """`data`, deflated (zlib) and in base64."""
    return base64.b64encode(zlib.compress(data, LEVEL)).decode("ascii")


def packed_json(content: Any) -> str:
    """`content` as compact JSON, packed. Raises `ValueError` for NaN or infinity."""
    return packed(_strict(content))


def unpacked(block: str) -> bytes:
    """The data that `packed` made `block` of."""
    return zlib.decompress(base64.b64decode(block))


def grouped_by_size(items: Iterable[bytes], most: int) -> Iterator[list[bytes]]:
    """`items` in their order, in groups of at least one and else at most `most` bytes."""
    group: list[bytes] = []
    size = 0
    for item in items:
        if group and size + len(item) > most:
            yield group
            group, size = [], 0
        group.append(item)
        size += len(item)
    if group:
        yield group
