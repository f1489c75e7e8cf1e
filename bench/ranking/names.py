"""Names of models in a table: short, and never alike where the models differ."""

from __future__ import annotations

from collections import Counter
from pathlib import PurePath
from typing import TYPE_CHECKING

from ...adapters.reference import Reference
from ..output.text import clean

if TYPE_CHECKING:
    from collections.abc import Sequence

NAME_WIDTH = 32
"""Characters of a name in a terminal, if that tells it from the others."""


def short_names(references: Sequence[str]) -> list[str]:
    """References without `timm:` and files without their folders, if these names are unique."""
    short = [_short_name(reference) for reference in references]
    times = Counter(short)
    return [s if times[s] == 1 else r for s, r in zip(short, references, strict=True)]


def _short_name(reference: str) -> str:
    parsed = Reference.parse_any(reference)
    return PurePath(parsed.name).name if parsed.runtime == "onnx" else parsed.short


def cut_names(names: Sequence[str], width: int = NAME_WIDTH) -> list[str]:
    """`names` without the middle of longer ones; where two would be alike, more of them is left."""
    left = list(dict.fromkeys(names))
    found: dict[str, str] = {}
    while left:
        cut = {name: clean(name, width) for name in left}
        times = Counter([*cut.values(), *found.values()])
        found |= {name: cut[name] for name in left if times[cut[name]] == 1 or len(name) <= width}
        left = [name for name in left if name not in found]
        width += 8
    return [found[name] for name in names]
