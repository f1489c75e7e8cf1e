"""A folder of records: one JSON file each, arrays in an `.npz` beside it.

Every file is written under a temporary name and renamed, arrays before their record, so a reader or
a process killed at any moment sees whole records or none. A file's name is a readable prefix and
the record's key; two writers of one key write the same content, and the later rename wins. Nothing
is locked, so the folder may be shared between machines.
"""

from __future__ import annotations

import gc
import json
import os
import re
import time
from contextlib import contextmanager
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from ..output.files import StoreError, explain, read_bounded, write_atomically, write_text
from .arrays import DRAWS, read_arrays, write_arrays
from .record import KEY_DIGITS, NAME_PART, Record, file_name_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .arrays import Arrays


MAX_RECORD_BYTES = 2**26
"""Bytes of a record's JSON; the largest tables take a few hundred thousand."""

STALE_AFTER_S = 3600.0
"""Temporary files older than this were left by a killed process, not by one still writing."""


class Store:
    """Records in `folder`/records, found by key."""

    def __init__(self, folder: Path | str) -> None:
        """Open `folder`, creating it if it is missing. Raises `StoreError`."""
        self.root = Path(folder)
        self.folder = self.root / "records"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._sweep()
        except OSError as error:
            raise explain(error, self.folder) from error

    def path(self, record: Record) -> Path:
        """Where a record's JSON is, or would be."""
        return self.folder / f"{record.file_stem}.json"

    def remove(self, record: Record) -> None:
        """Remove a record and its arrays, if they are there."""
        for suffix in (".json", ".npz"):
            self.path(record).with_suffix(suffix).unlink(missing_ok=True)

    def put(self, record: Record) -> None:
        """Write `record` and its arrays.

        A failed record never replaces a finished one. Raises `StoreError`, after removing partly
        written files, when the disk is full or the folder cannot be written.
        """
        path = self.path(record)
        present = self.get(record.key) if record.status == "failed" else None
        if present is not None and present.status != "failed":
            return
        try:
            if record.map_names or record.draws:
                arrays = record.arrays
                write_atomically(path.with_suffix(".npz"), partial(write_arrays, arrays=arrays))
            write_text(path, record.model_dump_json(indent=1))
        except OSError as error:
            raise explain(error, self.folder) from error

    def get(self, key: str) -> Record | None:
        """The record of `key`, or None when there is none that can be read."""
        return self.find([key]).get(key)

    def find(self, keys: Iterable[str]) -> dict[str, Record]:
        """The readable records among `keys`, by key; one listing of the folder."""
        paths = {path.stem.rpartition(".")[2]: path for path in self.folder.glob("*.json")}
        found = {}
        for key in keys:
            path = paths.get(key[:KEY_DIGITS])
            record = _read_or_error(path) if path else None
            if isinstance(record, Record) and record.key == key:
                found[key] = record
        return found

    def read(
        self, *, tables: bool = True, model: str | None = None
    ) -> tuple[list[Record], list[str]]:
        """All readable records in order of their file names, and a sentence per unreadable file.

        Without `tables`, records have only those that a board needs, until they are asked for
        `whole`. With `model`, only files are read that may be of a model whose reference has this
        text in it.
        """
        paths = sorted(self.folder.glob("*.json"), key=attrgetter("name"))
        if model is not None:
            paths = [path for path in paths if may_be_of(path, model)]
        with without_collection():
            return split_problems([_read_or_error(path, tables=tables) for path in paths])

    def records(self) -> list[Record]:
        """All readable records, in order of their file names."""
        return self.read()[0]

    def _sweep(self) -> None:
        """Remove temporary files that no living writer can still own."""
        for path in self.folder.glob(".*.tmp"):
            try:
                if time.time() - path.stat().st_mtime > STALE_AFTER_S:
                    path.unlink()
            except OSError:
                continue  # another process swept it, or the folder may only be read


def split_problems(found: Iterable[Record | StoreError]) -> tuple[list[Record], list[str]]:
    """The records in `found`, and the texts of the errors."""
    both = list(found)
    problems = [str(error) for error in both if isinstance(error, StoreError)]
    return [record for record in both if isinstance(record, Record)], problems


def read_record(path: Path) -> Record:
    """Read the file of one record. Raises `StoreError` when it is not a record."""
    found = _read_or_error(path)
    if isinstance(found, StoreError):
        raise found
    return found


@contextmanager
def without_collection() -> Iterator[None]:
    """Pause Python's search for reference cycles, of which records have none.

    While many objects are made, it would look at all of them over and over.
    """
    running = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if running:
            gc.enable()


def parse_record(data: bytes, place: object) -> Record | StoreError:
    """Parse `data` as a record without arrays; a `StoreError` that names `place` if it is none."""
    try:
        return Record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the whole file"
        return StoreError(f"{place} is not a readable record ({where}: {first['msg']})")


def _read_or_error(path: Path, *, tables: bool = True) -> Record | StoreError:
    try:
        data = read_bounded(path, MAX_RECORD_BYTES)
    except StoreError as error:
        return error
    found = parse_record(data, path) if tables else parse_without_tables(data, path)
    if isinstance(found, Record):
        arrays = partial(_arrays, path.with_suffix(".npz"), expected=bool(found.map_names))
        found.attach(arrays, lambda metric: arrays(f"{DRAWS}{metric}")[1])
        if not tables:
            found.leave_tables(kept_tables(found), partial(_read_or_error, path))
    return found


TABLES, AFTER_TABLES = b'\n "tables": {', b'\n "map_names": ['
"""Beginnings of lines in the file of a record: in JSON no other line begins in this way."""


def parse_without_tables(data: bytes, place: object) -> Record | StoreError:
    """Parse `data` as a record whose tables may be left out, which takes less time.

    Tables stay where one of them is to be kept.
    """
    start = data.find(TABLES)
    end = data.find(AFTER_TABLES, start)
    if not 0 <= start < end:
        return parse_record(data, place)
    if any(data.find(name, start, end) >= 0 for name in _names_of_kept_tables()):
        return parse_record(data, place)
    found = parse_record(data[:start] + data[end:], place)
    if isinstance(found, StoreError) or kept_tables(found) is None:
        return parse_record(data, place)
    return found


@cache
def _names_of_kept_tables() -> tuple[bytes, ...]:
    """Names in JSON of tables that some suite's defects rest on."""
    from ...suites.registry import SUITES

    lists = (getattr(suite, "defect_tables", None) or () for suite in SUITES.values())
    return tuple(json.dumps(name).encode() for names in lists for name in names)


def kept_tables(record: Record) -> Sequence[str] | None:
    """The tables of a record that a board needs: those of its suite's defects; None for all."""
    from ...suites.base import Suite
    from ...suites.registry import SUITES

    suite = SUITES.get(record.suite)
    names: Sequence[str] | None = getattr(suite, "defect_tables", None)
    return () if names is None and getattr(type(suite), "defects", None) is Suite.defects else names


def may_be_of(path: Path, model: str) -> bool:
    """Whether the file at `path` may be of a model whose reference has the text `model` in it.

    Only a file whose name is that of another model's record may not.
    """
    name = RECORD_NAME.fullmatch(path.name)
    return name is None or len(name[1]) >= NAME_PART or file_name_part(model) in name[1]


RECORD_NAME = re.compile(rf"([^.]*)\.[^.]*\.[^.]*\.[0-9a-f]{{{KEY_DIGITS}}}\.json")
"""The name that `put` gives a file."""


def _arrays(path: Path, prefix: str = "", *, expected: bool) -> Arrays:
    """The arrays of the record beside `path`; a record without maps may have no file of them."""
    if not expected and not os.path.lexists(path):
        return {}, {}
    return read_arrays(path, prefix)
