"""The manifest of a folder of records: its files with their hashes, and what was measured.

`perimetry run` writes it when it is done, so that a baseline that lost a file, or has another one,
is not taken for whole. It is `manifest.json` in the folder of the run. Noise floors and
fingerprints are listed when they are stored.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from ..output.files import StoreError, open_regular, read_bounded, write_text

if TYPE_CHECKING:
    from io import BufferedReader

    from .store import Store


FILE = "manifest.json"

CHECK = "check"
"""Folder of noise floors and fingerprints in that of the records."""

MAX_MANIFEST_BYTES = 2**28

MAX_FILE_BYTES = 2**29


class Manifest(BaseModel):
    """Sha256 by file name, and the status of each record by its label.

    `check` has the files of noise floors and fingerprints; it is None until they are stored.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    version: Literal[1] = 1
    files: dict[str, str]
    measured: dict[str, str]
    check: dict[str, str] | None = None


def write_manifest(store: Store) -> None:
    """Write the manifest of all records that `store` has now. Raises `StoreError`.

    What it says of noise floors and fingerprints stays.
    """
    measured = {record.label: record.status for record in store.records()}
    old = _read(store)
    found = Manifest(
        files=_hashes(store.folder),
        measured=dict(sorted(measured.items())),
        check=old.check if isinstance(old, Manifest) else None,
    )
    _write(store, found)


def list_check(store: Store) -> None:
    """Enter the noise floors and fingerprints there are now in the manifest, if there is one."""
    old = _read(store)
    if isinstance(old, Manifest):
        _write(store, old.model_copy(update={"check": _check_hashes(store)}))


def _write(store: Store, manifest: Manifest) -> None:
    write_text(store.root / FILE, manifest.model_dump_json(indent=1) + "\n")


def _read(store: Store) -> Manifest | str | None:
    """The manifest of `store`, None if there is none, or a sentence on why it cannot be read."""
    path = store.root / FILE
    if not os.path.lexists(path):
        return None
    try:
        return Manifest.model_validate_json(read_bounded(path, MAX_MANIFEST_BYTES))
    except (ValidationError, StoreError) as error:
        return f"{path} cannot be read as a manifest ({type(error).__name__}): {MEND}"


MEND = "restore the folder from its source, or measure it again with `perimetry run`"


def manifest_faults(store: Store) -> dict[Path, str]:
    """How the files of `store` differ from its manifest; a folder without one has one fault.

    By path, each is a sentence that names the file and says what to do.
    """
    wanted = _read(store)
    if wanted is None:
        return {store.root / FILE: unlisted(store.root / FILE)}
    if isinstance(wanted, str):
        return {store.root / FILE: wanted}
    faults = _differences(store.folder, wanted.files, _hashes(store.folder), MEND)
    if wanted.check is not None:
        mend = "restore it, or accept all models again with `perimetry check --accept`"
        faults |= _differences(store.root, wanted.check, _check_hashes(store), mend)
    return faults


def unlisted(path: Path) -> str:
    """A baseline of a version that wrote no manifest, or one whose manifest was lost."""
    folder = shlex.quote(str(path.parent))
    return (
        f"{path} is missing, so that a lost or changed record would not be noticed: give the "
        "`perimetry run` command again that made the folder, or accept it again with `perimetry "
        f"check --baseline {folder} --accept`"
    )


def changed_files(store: Store) -> set[str]:
    """Names of the files of records that are not those of the manifest; {} without one."""
    wanted = _read(store)
    if not isinstance(wanted, Manifest):
        return set()
    found = _hashes(store.folder)
    return {name for name, sha in wanted.files.items() if found.get(name, sha) != sha}


def _differences(
    folder: Path, wanted: dict[str, str], found: dict[str, str], mend: str
) -> dict[Path, str]:
    return {
        folder / name: f"{folder / name} {_what(name, wanted, found)}: {mend}"
        for name in sorted(wanted.keys() | found.keys())
        if wanted.get(name) != found.get(name)
    }


def _what(name: str, wanted: dict[str, str], found: dict[str, str]) -> str:
    if name not in found:
        return f"is missing; {FILE} lists it"
    if name not in wanted:
        return f"is not in {FILE}; expected only files that are"
    return f"is damaged or was changed; expected the file whose hash is in {FILE}"


def _check_hashes(store: Store) -> dict[str, str]:
    """Those of the files of noise floors and fingerprints, by their path in the folder."""
    folders = (Path(CHECK), Path(CHECK) / store.folder.name)
    return {
        str(folder / name): sha
        for folder in folders
        if (store.root / folder).is_dir()
        for name, sha in _hashes(store.root / folder).items()
    }


def _hashes(folder: Path) -> dict[str, str]:
    """Sha256 of every file of records and arrays; "" for one that cannot be read."""
    found = {}
    for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".npz")):
        found[path.name] = ""
        with contextlib.suppress(OSError), open_regular(path, MAX_FILE_BYTES) as stream:
            digest = hashlib.file_digest(cast("BufferedReader", stream), "sha256")
            found[path.name] = digest.hexdigest()
    return found
