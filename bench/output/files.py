"""Files that are written whole or not at all, and read although they may be damaged or hostile."""

from __future__ import annotations

import errno
import io
import os
import stat
import uuid
import zlib
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

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


GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""What tells zlib that a stream has the header of gzip."""


def open_regular(path: Path, limit: int) -> IO[bytes]:
    """Open a regular file of at most `limit` bytes for reading; links to such files count.

    Raises `StoreError` for anything else, without waiting: reading a pipe may never begin, and
    reading a device never end.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except (OSError, ValueError) as error:
        problem = error if isinstance(error, OSError) else OSError(str(error))
        raise explain(problem, path) from error
    facts = os.fstat(descriptor)
    if stat.S_ISREG(facts.st_mode) and facts.st_size <= limit:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    kind = f"has {facts.st_size} bytes" if stat.S_ISREG(facts.st_mode) else "is not a regular file"
    raise StoreError(
        f"{path} {kind}; expected a regular file of at most {limit} bytes: remove it, or name "
        "another file"
    )


def read_bounded(path: Path, limit: int) -> bytes:
    """The bytes of a regular file of at most `limit` bytes. Raises `StoreError`."""
    with open_regular(path, limit) as stream:
        size = os.fstat(stream.fileno()).st_size
        try:
            data = stream.read(size + 1)  # of the limit, memory would be taken at once
        except OSError as error:
            raise explain(error, path) from error
    if len(data) > size:
        raise StoreError(f"{path} grows while it is read; expected {size} bytes: read it again")
    return data


def read_gzip(path: Path, limit: int) -> bytes:
    """The content of a gzip file, which is at most `limit` bytes large. Raises `StoreError`."""
    data, parts, room = read_bounded(path, limit), [], limit
    try:
        while data:
            stream = zlib.decompressobj(GZIP_WINDOW)
            parts.append(stream.decompress(data, room + 1))
            room -= len(parts[-1])
            if room < 0 or not stream.eof:
                break
            data = stream.unused_data
    except zlib.error as error:
        raise StoreError(
            f"{path} is damaged ({error}); expected a gzip file: {_RESTORE}"
        ) from error
    if room < 0:
        raise StoreError(f"{path} unpacks to more than {limit} bytes; expected less: {_RESTORE}")
    if not parts or not stream.eof:
        raise StoreError(f"{path} is truncated; expected a whole gzip file: {_RESTORE}")
    return b"".join(parts)


_RESTORE = "restore it from its source"


T = TypeVar("T")

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
"""Errors for parts that a damaged record, or one of another version, does not have."""


def try_or_none(make: Callable[..., T], *arguments: Any) -> T | None:
    """The result of `make`, or None if the record does not have what `make` needs."""
    try:
        return make(*arguments)
    except MALFORMED:
        return None
