"""Hashes of what a record rests on: files, image sets, modules, opened models."""

from __future__ import annotations

import hashlib
import json
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from pathlib import Path

    from torch import nn

    from ...adapters.model import Model
    from ...suites.images import ImageSet


FIT_KEY = "fit_images_sha256"
"""The entry in the settings of a record of kernel padding `fit`; none for images built in."""

MAX_HASHED = 2**33
"""Bytes of the largest file that is hashed from end to end."""

END_BYTES = 2**20
"""Bytes that are hashed at either end of a larger one."""


def images_identity(images: ImageSet) -> str:
    """Sha256 of an image set that does not depend on the size a model wants."""
    if not images.files:
        return digest([images.name, images.count, images.seed])
    return digest([file_sha256(path) for path in images.files])


def module_identity(module: nn.Module) -> str:
    """Sha256 of a module's structure and tensors, as far as the module gives them.

    A module that refuses is refused when it is opened, which gives a failed record.
    """
    from ...adapters.load import tensors_digest

    parts = []
    for describe in (repr, tensors_digest):
        try:
            parts.append(describe(module))
        except Exception:  # a foreign module may raise anything
            parts.append(type(module).__qualname__)
    return digest(parts)


def model_identity(model: Model) -> str:
    """Sha256 of what an opened model says of its origin and its input."""
    return digest([dict(model.source), model.spec.digest(), str(model.target)])


def hashes(paths: Iterable[Path]) -> list[str]:
    """`file_sha256` of each file; of all files `MAX_HASHED` bytes are hashed from end to end."""
    found, left = [], MAX_HASHED
    for path in paths:
        found.append(file_sha256(path, left))
        left -= _size(path) if _size(path) <= left else 0
    return found


def file_sha256(path: Path, most: int = MAX_HASHED) -> str:
    """Hash of a file's bytes, or '' when it cannot be read; devices and pipes are not opened.

    Of a file of more than `most` bytes it is the hash of its size, time of change, beginning and
    end. (No runtime here opens one of more than `MAX_HASHED`.)
    """
    try:
        if not path.is_file():
            return ""
        with path.open("rb") as stream:
            if path.stat().st_size > most:
                return _hash_of_ends(stream, path.stat())
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (OSError, ValueError):
        return ""


def stamp(reference: str) -> str:
    """Hash of size, time of change and ends of the file that a reference names, if any."""
    from ...adapters.reference import Reference

    path = Reference.parse_any(reference).file
    return f"not hashed {file_sha256(path, -1) if path is not None else ''}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except (OSError, ValueError):
        return 0


def _hash_of_ends(stream: IO[bytes], facts: os.stat_result) -> str:
    beginning = stream.read(END_BYTES)
    stream.seek(max(0, facts.st_size - END_BYTES))
    found = hashlib.sha256(f"{facts.st_size}:{facts.st_mtime_ns}:".encode())
    found.update(beginning + stream.read(END_BYTES))
    return found.hexdigest()


def digest(value: Any) -> str:
    """Sha256 of a value that JSON can represent."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
