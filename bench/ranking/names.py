"""Names of models and columns: how models are called on a board, and what a wrong column is near.

Rows of one rank are in order of the names of models that are shown.
"""

from __future__ import annotations

from collections import Counter
from difflib import get_close_matches
from pathlib import PurePath
from typing import TYPE_CHECKING

from ...adapters.errors import FEW, UnknownNameError, unknown
from ...adapters.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


def short_names(references: Sequence[str]) -> list[str]:
    """References without `timm:` and files without their folders, if these names are unique."""
    parsed = [Reference.parse_any(reference) for reference in references]
    short = [PurePath(p.name).name if p.runtime == "onnx" else p.short for p in parsed]
    times = Counter(short)
    return [s if times[s] == 1 else r for s, r in zip(short, references, strict=True)]


def check_column(kind: str, name: str, known: Iterable[str]) -> str:
    """Return `name` if it is among `known`. Raises `UnknownNameError` with the nearest names."""
    names = list(known)
    if name in names:
        return name
    raise UnknownNameError(unknown_column(kind, name, names))


def unknown_column(kind: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown column: near names, else the nearest and where all are listed."""
    names = list(known)
    said = unknown(kind, name, names)
    if len(names) <= FEW or "did you mean" in said:
        return said
    own = [one for one in names if one.partition(".")[0] == name.partition(".")[0]]
    nearest = get_close_matches(name, own or names, n=1, cutoff=0)
    near = f", of which {nearest[0]} is nearest" if nearest else ""
    return f"{said}{near}; `perimetry list metrics` lists those of all suites"
