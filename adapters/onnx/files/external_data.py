"""Find the external data files of an ONNX file."""

from __future__ import annotations

import json
import mmap
import signal
import subprocess
import sys
from itertools import chain
from pathlib import Path

from ...own_process import run_in_own_process

KEY = b"location"
"""The key of a file name in an entry of external data; a file without it has no such entry."""

MAX_PARSED = 2**28
"""Bytes of a file that is parsed for the names in it; one with weights outside is far smaller."""

PARSED_HERE = 2**20
"""Bytes of a file that is parsed in this process: a few bytes can become many objects."""

PARSER_MEMORY = 2**32
"""Bytes that the process which parses a larger file may take."""

PARSER_S = 60.0
"""Seconds that it may take."""


def names_external(path: Path) -> bool:
    """Whether a file of at most `MAX_PARSED` bytes may name external data."""
    try:
        if not path.is_file() or not 0 < path.stat().st_size <= MAX_PARSED:
            return False
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            return data.find(KEY) >= 0
    except OSError:
        return False


def external_files(path: Path) -> list[Path]:
    """Return the files that `path` names as external data, each once, in order of the name.

    Files that are missing or outside the folder are left out. The list is empty when `path` cannot
    be read, or has more than `MAX_PARSED` bytes. Graphs of more than `PARSED_HERE` bytes are parsed
    in a process with limits.
    """
    if not names_external(path):
        return []
    try:
        small = path.stat().st_size <= PARSED_HERE
        names = _locations(path.read_bytes()) if small else _locations_elsewhere(path)
    except OSError:
        return []
    found: dict[Path, Path] = {}
    for name in sorted(names):
        if (file := _beside(name, path)) is not None:
            found.setdefault(file.resolve(), file)
    return list(found.values())


def _locations(data: bytes) -> set[str]:
    """The names of external files in the bytes of a graph, as `onnx` reads them."""
    import onnx

    from .read import all_tensors, attribute_tensors

    try:
        proto = onnx.load_model_from_string(data)
    except Exception:  # protobuf's errors for damaged bytes share no other class
        return set()
    functions = (attribute_tensors(function.node) for function in proto.functions)
    return {
        str({e.key: e.value for e in tensor.external_data}.get("location", ""))
        for tensor in chain(all_tensors(proto.graph), *functions)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def _locations_elsewhere(path: Path) -> set[str]:
    """The names of external files in a graph, which a process with limits parses; else none."""
    try:
        done = run_in_own_process(
            print_locations, str(path.absolute()), PARSER_MEMORY, limit_s=PARSER_S
        )
        return set() if done.returncode else set(json.loads(done.stdout))
    except (subprocess.TimeoutExpired, ValueError):
        return set()


def print_locations(path: str, memory: int) -> None:
    """Print the names of external files in a graph; this process may take `memory` bytes.

    It ends when it takes too long, even if the process that started it has been killed.
    """
    if sys.platform != "win32":
        signal.alarm(int(PARSER_S))
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        if hard == resource.RLIM_INFINITY or memory < hard:
            resource.setrlimit(resource.RLIMIT_AS, (memory, hard))
    sys.stdout.write(json.dumps(sorted(_locations(Path(path).read_bytes()))))


def _beside(name: str, path: Path) -> Path | None:
    """Return the file `name` in the folder of `path`, or None if it is outside or missing."""
    try:
        folder = path.resolve().parent
        file = folder / name
        inside = file.resolve().is_relative_to(folder)
        return file if inside and file.is_file() else None
    except (ValueError, OSError):
        return None
