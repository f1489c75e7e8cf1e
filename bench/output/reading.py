"""Reading files that may be damaged, hostile, or no files at all."""

from __future__ import annotations

import os
import stat
import zlib
from typing import IO, TYPE_CHECKING

from .files import StoreError, explain

if TYPE_CHECKING:
    from pathlib import Path


GZIP_WINDOW = 16 + zlib.MAX_WBITS
"""What tells zlib that a stream has the header of gzip."""


def open_regular(path: Path, limit: int) -> IO[bytes]:
    """Open a regular file of at most `limit` bytes for reading; links to such files count.

    Raises `StoreError` for anything else, without waiting: reading a pipe may never begin, and
    reading a device never end.
    """
    try:
        # Without O_NONBLOCK, opening a pipe waits for somebody to write into it.
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
