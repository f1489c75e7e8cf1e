"""A folder of records as one sorted `.jsonl` for git: `pack` writes it, `RecordArchive` reads it.

One record a line, its JSON with keys in the order of the record, which reports show; lines in order
of reference, fill, suite, protocol and key. The same records give the same bytes, whatever the
order and the place they were made in. Draws are packed with their record, so that a board of the
file is that of the folder, to the digit; maps are left out.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
import zlib
from functools import partial
from itertools import chain
from pathlib import Path
from typing import IO, Any

from ...adapters.errors import InputError
from ..output.files import (
    GZIP_WINDOW,
    StoreError,
    explain,
    read_bounded,
    read_gzip,
    write_atomically,
)
from ..output.numbers import join_with_and
from .arrays import pack_draws, unpack_draws
from .record import Record
from .store import Store, kept_tables, parse_record, split_problems, without_collection

DRAWS_KEY = b'"draws":{'

MAX_BYTES = 2**30
"""Bytes of a packed file, and of what it unpacks to."""

CHUNK = 2**20

SUFFIXES = (".jsonl", ".jsonl.gz")

PUBLISHED = "records.jsonl.gz"
"""Packed file in the folder of a published set."""


def pack_records(store: Store, path: Path | str, *, tables: bool = True) -> int:
    """Write the records of `store` to the file `path`; the number of records.

    Without `tables`, only those that a board needs are kept, and the file is about half as large.
    Raises `StoreError` when one of them cannot be read (a published set must not lose rows
    silently) or `path` cannot be written, `InputError` when its name ends in neither `.jsonl` nor
    `.jsonl.gz`. On an error no file is left behind.
    """
    path = Path(path)
    if not is_packed(path):
        expected = " or ".join(f"NAME{suffix}" for suffix in SUFFIXES)
        raise InputError(f"cannot pack records into {str(path)!r}; expected {expected}")
    records, problems = store.read(tables=False)
    if problems:
        raise StoreError(f"{problems[0]}; repair or remove it, then pack again")
    records.sort(key=lambda r: (*r.subject, r.key))
    try:
        with tempfile.TemporaryFile() as lines:
            digest = hashlib.sha256()
            for record in records:
                line = _line(record.whole() if tables else record, tables=tables).encode()
                digest.update(line)
                lines.write(line)
            lines.seek(0)
            first = _header(digest.hexdigest(), len(records))
            write_atomically(path, partial(_copy, first, lines, zipped=path.suffix == ".gz"))
    except OSError as error:
        raise explain(error, path) from error
    return len(records)


def _copy(first: bytes, lines: IO[bytes], stream: IO[bytes], *, zipped: bool) -> None:
    """Write the first line and all others, zipped without a time, so that equal bytes result."""
    zipper = zlib.compressobj(zlib.Z_BEST_COMPRESSION, wbits=GZIP_WINDOW)
    for data in chain([first], iter(partial(lines.read, CHUNK), b"")):
        stream.write(zipper.compress(data) if zipped else data)
    stream.write(zipper.flush() if zipped else b"")


def is_packed(path: Path | str) -> bool:
    """Whether a file of this name contains packed records."""
    return str(path).endswith(SUFFIXES)


EXPECTED = (
    "a folder that was given as `perimetry run ... --out`, or a file that `perimetry pack` wrote"
)
"""What holds records."""


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
    packs = sorted(p.name for p in path.glob("*") if is_packed(p)) if path.is_dir() else []
    if packs:
        raise InputError(
            f"{str(path)!r} contains packed records as {', '.join(packs)}; expected one of these "
            f"files, such as {str(path / packs[0])!r}"
        )
    raise InputError(f"{str(path)!r} {_why_no_records(path)}")


def _why_no_records(path: Path) -> str:
    """What is there in place of records, and what was expected."""
    if not path.exists():
        return f"does not exist; expected {EXPECTED}"
    folders = sorted(p for p in path.iterdir() if p.is_dir()) if path.is_dir() else []
    sets = [p for p in folders if (p / "records").is_dir() or any(map(is_packed, p.iterdir()))]
    if not sets:
        return f"contains no records; expected {EXPECTED}"
    names = join_with_and([p.name for p in sets])
    return f"contains no records itself; expected one of its folders that do: {names}"


class RecordArchive:
    """The records of a packed file, read as those of a `Store` are."""

    def __init__(self, path: Path | str) -> None:
        """Open the file at `path`. Raises `StoreError` when it cannot be read."""
        self.folder = Path(path)
        read = read_gzip if self.folder.suffix == ".gz" else read_bounded
        lines = read(self.folder, MAX_BYTES).split(b"\n")
        listed = lines[0].startswith(HEADER)
        self.unlisted = None
        if not listed:
            self.unlisted = (
                f"{self.folder} has no first line that says what the others are, so that a lost or "
                "changed record would not be noticed: pack the records again with `perimetry pack`"
            )
        """A sentence if no first line says what the others are, as in packs of older versions."""
        self._faults = _header_faults(self.folder, lines)
        first = 1 + listed
        self._lines = [(n, line) for n, line in enumerate(lines[first - 1 :], first) if line]

    def read(
        self, *, tables: bool = True, model: str | None = None
    ) -> tuple[list[Record], list[str]]:
        """All readable records in the order of the file, and a sentence per unreadable line.

        `tables` and `model` are those of `Store.read`. Raises `StoreError` if no line can be read.
        """
        lines = [(n, line) for n, line in self._lines if model is None or _may_be_of(line, model)]
        with without_collection():
            records, problems = split_problems(self._parse(n, line, tables) for n, line in lines)
        if problems and not records and len(lines) == len(self._lines):
            raise StoreError(
                f"{self.folder} is not a file that `perimetry pack` wrote: none of its "
                f"{len(problems)} lines can be read ({problems[0]})"
            )
        return records, problems or self._faults

    def _parse(self, number: int, line: bytes, tables: bool) -> Record | StoreError:
        read = partial(_parse_line, line, f"line {number} of {self.folder}")
        found = read()
        if isinstance(found, Record) and not tables:
            found.leave_tables(kept_tables(found), read)
        return found

    def records(self) -> list[Record]:
        """All readable records, in the order of the file."""
        return self.read()[0]


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
        found.attach(
            lambda: ({}, unpack_draws(draws)), lambda name: unpack_draws(_chosen(draws, name))
        )
    return found


def _chosen(draws: Any, name: str) -> Any:
    """The packed draws of one metric, or all if its name is empty."""
    if not name or not isinstance(draws, dict):
        return draws
    return {name: draws[name]} if name in draws else {}


REFERENCE = re.compile(rb'"model":\{"reference":("(?:[^"\\]|\\.)*")')


def _may_be_of(line: bytes, model: str) -> bool:
    """Whether a line may be the record of a model whose reference has the text `model` in it."""
    found = REFERENCE.search(line)
    return found is None or model in json.loads(found[1])


HEADER = b'{"perimetry_pack":'


def _header(digest: str, count: int) -> bytes:
    """The first line: how many records follow, and the hash of their lines."""
    facts = {"perimetry_pack": 1, "records": count, "sha256": digest}
    return f"{json.dumps(facts, separators=(',', ':'))}\n".encode()


def _header_faults(path: Path, lines: list[bytes]) -> list[str]:
    """A sentence if the lines are not those of the first line, which older packs do not have."""
    if not lines[0].startswith(HEADER):
        return []
    count = sum(bool(line) for line in lines[1:])
    digest = hashlib.sha256(b"\n".join(lines[1:])).hexdigest()
    if lines[0] + b"\n" == _header(digest, count):
        return []
    return [
        f"{path} is damaged or was changed: its {count} lines are not those that its first line "
        "announces; restore it from its source, or pack the records again"
    ]


def _line(record: Record, *, tables: bool) -> str:
    content = record.model_dump(mode="json")
    kept = None if tables else kept_tables(record)
    if kept is not None:
        content["tables"] = {n: rows for n, rows in content["tables"].items() if n in kept}
    draws = pack_draws(record.draws)
    record.forget()
    if draws:
        content["draws"] = draws
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"
