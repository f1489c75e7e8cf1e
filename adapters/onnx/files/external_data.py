"""Find the external data files of an ONNX file without parsing it."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

LOCATION = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])", re.DOTALL)
"""A protobuf entry of external data: key `location`, then the length of a name below 128 bytes."""


def external_files(path: Path) -> list[Path]:
    """Return the files that `path` names as external data, each once, in order of the name.

    Files that are missing or outside the folder are left out. The list is empty when `path` cannot
    be read. Names may have up to 127 bytes.
    """
    try:
        if not path.is_file() or path.stat().st_size == 0:
            return []
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            names = {data[m.end() : m.end() + m[1][0]] for m in LOCATION.finditer(data)}
        return [file for name in sorted(names) if (file := _beside(name, path)) is not None]
    except OSError:
        return []


def _beside(name: bytes, path: Path) -> Path | None:
    """Return the file `name` in the folder of `path`, or None if it is outside or missing."""
    try:
        folder = path.resolve().parent
        file = folder / name.decode()
        inside = file.resolve().is_relative_to(folder)
        return file if inside and file.is_file() else None
    except (ValueError, OSError):
        return None
