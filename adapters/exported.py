"""`PATH.pt2`: programs of `torch.export`, run as modules.

A file is checked before torch reads it, since reading may execute code: pickled and compiled
objects, names of operators that are looked up in all of torch, and sizes that are evaluated.
"""

from __future__ import annotations

import contextlib
import json
import re
import warnings
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from .checkpoint.damage import foreign_content, zip_fault
from .checkpoint.read import tensors_only
from .errors import ModelFileError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn


OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|higher_order)\.\w+(\.\w+)?"
    r"|torch\.sym_(int|float|not|max|min|ite|sqrt|sum)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|lt|le|gt|ge|eq|ne|and_|or_)"
    r"|math\.(ceil|floor|trunc|sqrt)"
)
"""The operators that a program may call."""

FILES = re.compile(r"from_file|save|load|open", re.IGNORECASE)
"""Parts of the names of operators that read or write files."""

SIZE = re.compile(
    r"(?:Symbol\('[su]\w*\d+'(, \w+=(True|False))*\)|[su]\d+|\d+|Integer|Rational|Add|Mul|Pow"
    r"|FloorDiv|CeilDiv|CleanDiv|ModularIndexing|PythonMod|Mod|Max|Min|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not"
    r"|floor|ceiling|oo|int_oo|True|False|TruncToInt|FloorToInt|CeilToInt|ToFloat|IntTrueDiv"
    r"|FloatTrueDiv|PowByNatural|[\s()+\-*/,<>=&|~])*"
)
"""Expressions of sizes; torch evaluates them."""

FOREIGN = ("custom_obj", "opaque_obj", "aotinductor", ".so", ".pkl")
"""Parts of the names of entries with pickled objects or compiled code."""


@dataclass(frozen=True)
class Exported:
    """A program as a module, and the (height, width) of its image if the program fixes them."""

    module: nn.Module
    size: tuple[int, int] | None


def open_exported(path: Path) -> Exported:
    """Read a program without unpickling.

    Raises `ModelFileError` for a file that is none, that would need unpickling, or that calls
    operators of other libraries than torch and torchvision.
    """
    _check(path)
    try:
        import torchvision  # noqa: F401  (its operators)

        with tensors_only(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.load(str(path))
            module = program.module(check_guards=False)
        for mode in ("train", "eval"):  # a program has one mode; torch replaces these by errors
            vars(module).pop(mode, None)
    except Exception as error:
        raise ModelFileError(
            f"torch {torch.__version__} cannot read {path}: {type(error).__name__}: "
            f"{str(error)[:300]}; expected a file of torch.export.save, of tensors only"
        ) from error
    return Exported(module, _size(program))


def _check(path: Path) -> None:
    """Raise `ModelFileError` for what reading could execute."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            foreign = [n for n in names if any(part in n.lower() for part in FOREIGN)]
            texts = [json.loads(archive.read(n)) for n in names if n.lower().endswith(".json")]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError, RuntimeError) as error:
        raise ModelFileError(
            f"{path} cannot be read as a program: {_what(path, error)}; expected a file of "
            "torch.export.save"
        ) from error
    faults = [f"it contains {name}, a pickled object or compiled code" for name in foreign[:3]]
    faults += list(dict.fromkeys(fault for text in texts for fault in _faults(text)))[:3]
    if faults:
        raise ModelFileError(
            f"{path} is not opened, since that could execute code: {'; '.join(faults)}; expected "
            "a program of tensors and torch's own operators"
        )


def _what(path: Path, error: Exception) -> str:
    """What the file is in place of a program, as far as it shows, else the text of `error`."""
    with contextlib.suppress(OSError):
        return foreign_content(path) or zip_fault(path) or f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}: {error}"


def _faults(value: Any) -> Iterator[str]:
    """Operators and sizes in the description of a program that are not known, and pickles."""
    if isinstance(value, list):
        for item in value:
            yield from _faults(item)
    if not isinstance(value, dict):
        return
    for key, item in value.items():
        if key == "target" and isinstance(item, str):
            if not OPERATORS.fullmatch(item) or FILES.search(item):
                yield f"it calls {item!r}"
        elif key == "expr_str" and not SIZE.fullmatch(str(item)):
            yield f"it has the size {str(item)[:80]!r}"
        elif key == "use_pickle" and item:
            yield "it has pickled tensors"
        else:
            yield from _faults(item)


def _size(program: Any) -> tuple[int, int] | None:
    inputs = program.graph_signature.user_inputs
    node = next((n for n in program.graph.nodes if n.name in inputs), None)
    shape: Any = getattr(node.meta.get("val"), "shape", ()) if node is not None else ()
    fixed = len(shape) == 4 and all(isinstance(n, int) for n in shape[2:])
    return (int(shape[2]), int(shape[3])) if fixed else None
