"""The short names of models that a board shows, by which rows of one rank are ordered."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from ...adapters.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Sequence


def short_names(references: Sequence[str]) -> list[str]:
    """References without `timm:` and files without their folders, if these names are unique."""
    parsed = [Reference.parse_any(reference) for reference in references]
    short = [PurePath(p.name).name if p.runtime == "onnx" else p.short for p in parsed]
    times = Counter(short)
    return [s if times[s] == 1 else r for s, r in zip(short, references, strict=True)]
