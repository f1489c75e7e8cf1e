"""Short names of what is compared: files by their base names, and by what differs in their paths.

A file is called by its base name. Files of one base name are told apart by the folders in which
their paths differ, `a/model.onnx` and `b/model.onnx`; models of one reference by the folder of
their records. What has one path, too, gets its position among the arguments.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LEFT_OUT = "..."
"""Stands for the folders that paths have in common."""


def short_names(names: Sequence[str], folders: Sequence[str], own: Mapping[int, str]) -> list[str]:
    """A distinct name for each of `names`; `folders` are those of their records, or empty.

    `own` are names that the user gave, by place: these are kept.
    """
    found = _short(names)
    alike = _repeated(found)
    shown = _short(folders)
    found = [
        f"{name} in {folder}" if name in alike and folder else name
        for name, folder in zip(found, shown, strict=True)
    ]
    found = [own.get(place, name) for place, name in enumerate(found)]
    alike = _repeated(found)
    return [
        f"{name} (no. {place})" if name in alike else name
        for place, name in enumerate(found, start=1)
    ]


def _short(names: Sequence[str]) -> list[str]:
    """Paths without the folders that do not tell them apart; other names as they are."""
    parts = [_parts(name) for name in names]
    return [
        _apart(own, [p for p in parts if p[-1] == own[-1]]) if len(own) > 1 else name
        for own, name in zip(parts, names, strict=True)
    ]


def _parts(name: str) -> list[str]:
    """The parts of a path; a name with a prefix such as `timm:` is one part."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    return parts if parts and ":" not in name else [name]


def _apart(own: Sequence[str], group: Sequence[Sequence[str]]) -> str:
    """The base name, and the folders, from the end, that are not the same in all of `group`."""
    kept = [own[-1]]
    skipped = False
    for place in range(2, len(own) + 1):
        differs = len({p[-place] if place <= len(p) else "" for p in group}) > 1
        if differs:
            kept += [LEFT_OUT] if skipped else []
            kept.append(own[-place])
        skipped = not differs
    return "/".join(reversed(kept))


def _repeated(names: Sequence[str]) -> set[str]:
    return {name for name, count in Counter(names).items() if count > 1}
