"""Find the external data files of an ONNX file."""

from __future__ import annotations

import mmap
from itertools import chain
from pathlib import Path

KEY = b"location"
"""The key of a file name in an entry of external data; a file without it has no such entry."""


MAX_PARSED = 2**28
"""Bytes of a file that is parsed for the names in it; one with weights outside is far smaller."""


def external_files(path: Path) -> list[Path]:
    """Return the files that `path` names as external data, each once, in order of the name.

    Files that are missing or outside the folder are left out. The list is empty when `path` cannot
    be read, or has more than `MAX_PARSED` bytes.
    """
    try:
        if not path.is_file() or not 0 < path.stat().st_size <= MAX_PARSED:
            return []
        with (
            path.open("rb") as stream,
            mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            names = _locations(data[:]) if data.find(KEY) >= 0 else set()
        return [file for name in sorted(names) if (file := _beside(name, path)) is not None]
    except OSError:
        return []


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


def _beside(name: str, path: Path) -> Path | None:
    """Return the file `name` in the folder of `path`, or None if it is outside or missing."""
    try:
        folder = path.resolve().parent
        file = folder / name
        inside = file.resolve().is_relative_to(folder)
        return file if inside and file.is_file() else None
    except (ValueError, OSError):
        return None
