"""Write an ONNX graph atomically, with its weights inside the file or beside it."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import onnx

from ...errors import InputError, ModelFileError
from ...scratch import scratch_folder
from .external_data import external_files
from .protos import printable
from .read import LIMIT

if TYPE_CHECKING:
    from pathlib import Path


def write_model(
    proto: onnx.ModelProto, path: Path, *, beside: bool, faulty: bool = False
) -> list[Path]:
    """Write `proto` to `path`, with `beside` its weights to `path`.data; return the files.

    The ONNX checker reads the result before it replaces an existing file. Raises `ModelFileError`
    when the checker finds a fault that the original does not have (`faulty`), or when the graph is
    too large for one file.
    """
    names = [path.name, *([f"{path.name}.data"] if beside else [])]
    if not beside and proto.ByteSize() > LIMIT:
        raise ModelFileError(f"the graph has more than {LIMIT} bytes, too many for one ONNX file")
    copy = deepcopy(proto)
    with scratch_folder(path.parent) as folder:
        draft = folder / path.name
        if beside:
            onnx.save_model(
                copy, str(draft), save_as_external_data=True, location=names[1], size_threshold=1024
            )
        else:
            draft.write_bytes(copy.SerializeToString())
        fault = file_fault(draft)
        if fault is not None and not faulty:
            raise ModelFileError(f"the written graph is not valid: {printable(fault, 300)}")
        written = [path.with_name(name) for name in names if draft.with_name(name).exists()]
        for file in reversed(written):  # the graph comes last: it is what makes the rest readable
            draft.with_name(file.name).replace(file)
    return written


def file_fault(path: Path) -> str | None:
    """Return the ONNX checker's complaint about a file, or None."""
    try:
        onnx.checker.check_model(str(path))
    except (onnx.checker.ValidationError, RuntimeError, ValueError) as error:
        return str(error)
    return None


def check_destination(path: Path, out: Path) -> None:
    """Raise `InputError` where writing `out` could harm the model `path` that is being read."""
    if out.suffix != ".onnx" or (out.exists() and not out.is_file()):
        raise InputError(f"{str(out)!r} cannot be written; expected a file name ending in .onnx")
    if not out.parent.is_dir():
        raise InputError(f"{str(out.parent)!r} is not a folder; create it first")
    read = {file.resolve() for file in (path, *external_files(path))}
    for file in (out, out.with_name(f"{out.name}.data")):
        if file.resolve() in read:
            raise InputError(f"{file} is part of the model that is read; name another file")
