"""Files that are whole or absent."""

from __future__ import annotations

import errno
import io
import os
import uuid
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ...adapters.errors import PerimetryError

if TYPE_CHECKING:
    from collections.abc import Callable


FULL = (errno.ENOSPC, errno.EDQUOT)


class StoreError(PerimetryError, OSError):
    """The folder cannot be written or read."""


def write_atomically(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write a file so that `path` is whole or absent, and durable; leaves nothing on an error.

    A link is followed, as other programs do. A device or a pipe is written to, and never replaced.
    """
    if path.is_symlink():
        path = path.resolve()
    if path.exists() and not path.is_file() and not path.is_dir():
        _write_through(path, write)
        return
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_through(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a device or a pipe; a pipe that nobody reads is an error and not a wait."""
    content = io.BytesIO()  # some writers go back in their file, which a pipe cannot
    write(content)
    descriptor = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
    os.set_blocking(descriptor, True)
    with os.fdopen(descriptor, "wb") as stream:
        stream.write(content.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file so that `path` is whole or absent."""
    write_atomically(path, lambda stream: stream.write(text.encode()))


def explain(error: OSError, where: Path) -> StoreError:
    """Turn an error of the operating system into one that says what to do."""
    if error.errno in FULL:
        return StoreError(
            f"no space left for {where}; free some and give the same command again: every record "
            "written so far is kept and will not be measured again"
        )
    return StoreError(f"cannot use {where}: {error.strerror or error}; name another folder")
