"""Temporary folders that no killed process leaves behind for good."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


PREFIX = "perimetry-"
"""Beginning of the names of temporary folders; beside the user's files they are hidden."""

OWNED = "owned"
"""The file in a temporary folder that its process keeps locked."""


@contextlib.contextmanager
def scratch_folder(beside: Path | None = None) -> Iterator[Path]:
    """A temporary folder in the folder `beside`, or in that of the system.

    Its owner keeps a file in it locked, and the system ends the lock with the process: folders that
    killed processes have left behind are known by that, and removed here first.
    """
    parent = Path(tempfile.gettempdir()) if beside is None else beside
    prefix = PREFIX if beside is None else f".{PREFIX}"
    _remove_abandoned(parent, prefix)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=parent, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with (folder / f".{OWNED}").open("wb") as stream:
            _lock(stream)
            (folder / f".{OWNED}").rename(folder / OWNED)  # seen by others when it is locked
            yield folder


def _remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove temporary folders whose owner has ended; those of others stay."""
    for path in parent.glob(f"{prefix}*/{OWNED}"):
        with contextlib.suppress(OSError), path.open("r+b") as stream:
            _lock(stream)
            shutil.rmtree(path.parent, ignore_errors=True)


def _lock(stream: IO[bytes]) -> None:
    """Lock a file for this process. Raises `OSError` if another process has it."""
    if os.name == "posix":
        import fcntl

        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
