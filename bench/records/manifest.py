"""The manifest of a folder of records: its files with their hashes, and what was measured.

`perimetry run` writes it when it is done, so that a baseline that lost a file, or has another one,
is not taken for whole. It is `manifest.json` in the folder of the run.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from ..output.files import StoreError, write_text
from ..output.reading import open_regular, read_bounded

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

    from .store import Store


FILE = "manifest.json"


MAX_MANIFEST_BYTES = 2**28


MAX_FILE_BYTES = 2**29


class Manifest(BaseModel):
    """Sha256 by file name, and the status of each record by its label."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    files: dict[str, str]
    measured: dict[str, str]


def write_manifest(store: Store) -> None:
    """Write the manifest of all files that `store` has now. Raises `StoreError`."""
    measured = {record.label: record.status for record in store.records()}
    found = Manifest(files=_hashes(store), measured=dict(sorted(measured.items())))
    write_text(store.root / FILE, found.model_dump_json(indent=1) + "\n")


def manifest_faults(store: Store) -> list[str] | None:
    """What the folder of `store` lacks of its manifest, or has otherwise; None without a manifest.

    Each is a sentence that names the file and says what to do.
    """
    path = store.root / FILE
    if not path.exists():
        return None
    mend = "restore the folder from its source, or measure it again with `perimetry run`"
    try:
        wanted = Manifest.model_validate_json(read_bounded(path, MAX_MANIFEST_BYTES))
    except (ValidationError, StoreError) as error:
        return [f"{path} cannot be read as a manifest ({type(error).__name__}): {mend}"]
    found = _hashes(store)
    faults = []
    for name in sorted(wanted.files.keys() | found.keys()):
        if wanted.files.get(name) != found.get(name):
            faults.append(f"{store.folder / name} {_what(name, wanted.files, found)}: {mend}")
    return faults


def _what(name: str, wanted: dict[str, str], found: dict[str, str]) -> str:
    if name not in found:
        return f"is missing; {FILE} lists it"
    if name not in wanted:
        return f"is not in {FILE}; expected only files that are"
    return f"is damaged or was changed; expected the file whose hash is in {FILE}"


def _hashes(store: Store) -> dict[str, str]:
    """Sha256 of every file of records and arrays; "" for one that cannot be read."""
    names = sorted(p for p in store.folder.iterdir() if p.suffix in (".json", ".npz"))
    return {path.name: _hash(path) for path in names}


def _hash(path: Path) -> str:
    try:
        with open_regular(path, MAX_FILE_BYTES) as stream:
            return hashlib.file_digest(cast("BufferedReader", stream), "sha256").hexdigest()
    except OSError:
        return ""
