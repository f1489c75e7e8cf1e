"""A folder of records as one sorted `.jsonl` for git: `pack` writes it, `RecordArchive` reads it.

One record a line, its JSON with keys in the order of the record, which reports show; lines in order
of reference, fill, suite, protocol and key. The same records give the same bytes, whatever the
order and the place they were made in. Draws are packed with
their record, so that a board of the file is that of the folder, to the digit; maps are left out.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from functools import partial
from pathlib import Path
from typing import Any

from ...adapters.errors import InputError
from ..output.files import StoreError, explain, write_atomically
from ..output.reading import read_bounded, read_gzip
from .draws import pack_draws, unpack_draws
from .record import Record
from .store import Store, parse_record, split_problems

DRAWS_KEY = b'"draws":{'

SMALL_TABLES = ("dead_regions",)
"""Tables that every packed file keeps, since boards name what is in them."""

MAX_BYTES = 2**30
"""Bytes of a packed file, and of what it unpacks to."""


SUFFIXES = (".jsonl", ".jsonl.gz")

PUBLISHED = "records.jsonl.gz"
"""Packed file in the folder of a published set."""


def pack_records(store: Store, path: Path | str, *, tables: bool = True) -> int:
    """Write the records of `store` to the file `path`; the number of records.

    Without `tables`, all but `SMALL_TABLES` are left out, and the file is about half as large.
    Raises `StoreError` when one of them cannot be read (a published set must not lose rows
    silently) or `path` cannot be written, `InputError` when its name ends in neither `.jsonl` nor
    `.jsonl.gz`. On an error no file is left behind.
    """
    path = Path(path)
    if not is_packed(path):
        expected = " or ".join(f"NAME{suffix}" for suffix in SUFFIXES)
        raise InputError(f"cannot pack records into {str(path)!r}; expected {expected}")
    records, problems = store.read()
    if problems:
        raise StoreError(f"{problems[0]}; repair or remove it, then pack again")
    records = sorted(records, key=_place)
    try:
        text = "".join(_line(record, tables=tables) for record in records).encode()
        text = _header(text, len(records)) + text
        data = gzip.compress(text, mtime=0) if path.suffix == ".gz" else text
        write_atomically(path, lambda stream: stream.write(data))
    except OSError as error:
        raise explain(error, path) from error
    return len(records)


def is_packed(path: Path | str) -> bool:
    """Whether a file of this name holds packed records."""
    return str(path).endswith(SUFFIXES)


def open_records(path: Path | str) -> Store | RecordArchive:
    """Open a folder of records, a packed file, or the folder of a published set.

    Raises `InputError` when `path` is none of these.
    """
    path = Path(path)
    if path.is_file():
        return RecordArchive(path)
    if (path / "records").is_dir():
        return Store(path)
    if (path / PUBLISHED).is_file():
        return RecordArchive(path / PUBLISHED)
    raise InputError(
        f"{str(path)!r} contains no records; expected a folder that was given as `perimetry run "
        "... --out`, or a file that `perimetry pack` wrote"
    )


class RecordArchive:
    """The records of a packed file, read as those of a `Store` are."""

    def __init__(self, path: Path | str) -> None:
        """Read the file at `path`. Raises `StoreError` when nothing in it can be read."""
        self.folder = Path(path)
        read = read_gzip if self.folder.suffix == ".gz" else read_bounded
        lines = read(self.folder, MAX_BYTES).split(b"\n")
        first = 1 + lines[0].startswith(HEADER)
        self._records, problems = split_problems(
            _parse_line(line, f"line {number} of {path}")
            for number, line in enumerate(lines[first - 1 :], start=first)
            if line
        )
        self.unlisted = None if lines[0].startswith(HEADER) else _unlisted(self.folder)
        """A sentence if no first line says what the others are, as in packs of older versions."""
        self._problems = problems or _header_faults(self.folder, lines)
        if self._problems and not self._records:
            raise StoreError(
                f"{path} is not a file that `perimetry pack` wrote: none of its "
                f"{len(self._problems)} lines can be read ({self._problems[0]})"
            )

    def read(self) -> tuple[list[Record], list[str]]:
        """All readable records in the order of the file, and a sentence per unreadable line."""
        return self._records, self._problems

    def records(self) -> list[Record]:
        """All readable records, in the order of the file."""
        return self._records


def _parse_line(line: bytes, place: str) -> Record | StoreError:
    """The record of one line, with its draws; a `StoreError` that names `place` if it is none."""
    draws: Any = {}
    if DRAWS_KEY in line:
        try:
            content = json.loads(line)
            draws = content.pop("draws", {})
            line = json.dumps(content).encode()
        except (ValueError, AttributeError, RecursionError) as error:
            return StoreError(f"{place} is not a readable record ({error})")
    found = parse_record(line, place)
    if isinstance(found, Record):
        found.attach(lambda: ({}, unpack_draws(draws)))
    return found


HEADER = b'{"perimetry_pack":'


def _header(text: bytes, count: int) -> bytes:
    """The first line: how many records follow, and the hash of their lines."""
    facts = {"perimetry_pack": 1, "records": count, "sha256": hashlib.sha256(text).hexdigest()}
    return f"{json.dumps(facts, separators=(',', ':'))}\n".encode()


def _header_faults(path: Path, lines: list[bytes]) -> list[str]:
    """A sentence if the lines are not those of the first line, which older packs lack."""
    if not lines[0].startswith(HEADER):
        return []
    count = sum(bool(line) for line in lines[1:])
    if lines[0] + b"\n" == _header(b"\n".join(lines[1:]), count):
        return []
    return [
        f"{path} is damaged or was changed: its {count} lines are not those that its first line "
        "announces; restore it from its source, or pack the records again"
    ]


def _unlisted(path: Path) -> str:
    return (
        f"{path} has no first line that says what the others are, so that a lost or changed record "
        "would not be noticed: pack the records again with `perimetry pack`"
    )


def _place(record: Record) -> tuple[str, ...]:
    return record.model.reference, record.fill, record.suite, record.protocol, record.key


_compact = partial(json.dumps, ensure_ascii=False, separators=(",", ":"))


def _line(record: Record, *, tables: bool) -> str:
    content = record.model_dump(mode="json")
    if not tables:
        kept = {name: content["tables"][name] for name in SMALL_TABLES if name in content["tables"]}
        content["tables"] = kept
    draws = pack_draws(record.draws)
    if draws:
        content["draws"] = draws
    return f"{_compact(content)}\n"
