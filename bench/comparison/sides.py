"""The sides of a comparison: what its arguments name, a model variant each, and short names.

An argument names a folder, a model in it, a model, a module or records. A file is called by its
base name. Files of one base name are distinguished by the folders in which their paths differ,
`a/model.onnx` and `b/model.onnx`; models of one reference by the folder of their records. What has
one path, too, gets its position among the arguments.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, UnknownNameError
from ...adapters.treatment import FILLS
from ..records.archive import is_packed
from ..records.references import UNTREATED, choose_fill
from ..records.selection import check_unmixed, choose, newest, read_folder
from .fingerprint import read_fingerprints

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...adapters.treatment import Fill
    from ..records.record import Record


@dataclass(frozen=True)
class Side:
    """One of what is compared: a model variant, its records by (suite, protocol), and its name.

    `thing` is what opens the model again: its reference, or what was given in Python. `folder` is
    where its records are stored, empty for others.
    """

    name: str
    reference: str
    fill: str
    records: Mapping[tuple[str, str], Record]
    thing: Any = None
    folder: str = ""


def side_of(records: Iterable[Record]) -> Side:
    """The side that records of one model variant make, the newest of each suite and protocol.

    Raises `InputError` when they are of several variants, or none.
    """
    latest = newest(records)
    variants = {(r.model.reference, r.fill) for r in latest}
    if len(variants) != 1:
        raise InputError(
            f"records of {len(variants)} model variants were given as one side; expected one model "
            "with one kernel padding"
        )
    check_unmixed(latest)
    reference, fill = next(iter(variants))
    return Side(
        variant_name(reference, fill),
        reference,
        fill,
        {(r.suite, r.protocol): r for r in latest},
        reference,
    )


def why_not_measured(side: Side) -> str | None:
    """Why nothing of a model could be measured; None if something was."""
    records = list(side.records.values())
    if any(record.status == "ok" for record in records):
        return None
    return next((r for r in records if r.error), records[0]).why


def variant_name(reference: str, fill: str) -> str:
    """`REF`, or `REF+FILL` of a model with kernel padding."""
    return reference if fill == UNTREATED else f"{reference}+{fill}"


LEFT_OUT = "..."
"""Stands for the folders that paths have in common."""


def short_side_names(
    names: Sequence[str], folders: Sequence[str], own: Mapping[int, str]
) -> list[str]:
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


@dataclass(frozen=True)
class Argument:
    """One argument: a folder or none, a model or none, a kernel padding or none.

    `thing` is a module or an opened model that was given in Python. `name` is what the user calls
    it, None without a name.
    """

    folder: Path | None = None
    model: str | None = None
    fill: Fill | None = None
    thing: Any = None
    name: str | None = None


def read_arguments(things: Sequence[Any], names: Mapping[str, Any]) -> list[Side | Argument]:
    """What is given, with the names of the user."""
    given = [read_argument(thing) for thing in things]
    for name, thing in names.items():
        place = next((i for i, other in enumerate(things) if _same_thing(other, thing)), None)
        if place is None:
            given.append(replace(read_argument(thing), name=name))
        else:
            given[place] = replace(given[place], name=name)
    return given


def _same_thing(one: Any, other: Any) -> bool:
    """Whether two arguments are the same text, or the same object."""
    both = isinstance(one, str | Path) and isinstance(other, str | Path)
    return str(one) == str(other) if both else one is other


def is_folder(thing: Side | Argument) -> bool:
    """Whether a folder was named as a whole, with all its models."""
    return isinstance(thing, Argument) and bool(thing.folder) and thing.model is None


class RecordCache:
    """The records of folders, each of which is read once."""

    def __init__(self, where: Sequence[str]) -> None:
        self.problems: list[str] = []
        self._where = where
        self._read: dict[Path, list[Record]] = {}

    def records(self, folder: Path) -> list[Record]:
        """The records of `folder` that match `where`."""
        if folder not in self._read:
            records, problems = read_folder(folder)
            self.problems += problems
            try:
                self._read[folder] = choose(records, self._where)
            except UnknownNameError as error:
                raise UnknownNameError(f"{str(folder)!r}: {error}") from error
        return self._read[folder]

    def cached(self) -> list[Record]:
        """All records that have been read so far."""
        return [record for records in self._read.values() for record in records]

    def references(self, folder: Path) -> list[str]:
        """The models of `folder`."""
        return sorted({record.model.reference for record in self.records(folder)})

    def side(self, folder: Path, reference: str, fill: str | None) -> Side:
        """One variant in `folder`; the untreated one, or the only one, unless asked otherwise."""
        own = [r for r in self.records(folder) if r.model.reference == reference]
        chosen = choose_fill((r.fill for r in own), fill, f"{reference!r} in {str(folder)!r}")
        kept = read_fingerprints(folder)[0].get((reference, chosen))
        found = side_of([*(r for r in own if r.fill == chosen), *([kept] if kept else [])])
        return replace(found, folder=str(folder))


def read_argument(thing: Any) -> Side | Argument:
    """What one argument is."""
    if isinstance(thing, Side):
        return thing
    if isinstance(thing, str | Path):
        return _of_text(str(thing))
    if isinstance(thing, list | tuple):
        return side_of(thing)
    return Argument(thing=thing)


def _of_text(text: str) -> Argument:
    """Split a text into folder, model and kernel padding; an existing path is never split."""
    fill: Fill | None = None
    stem, plus, last = text.rpartition("+")
    if plus and last in FILLS and not Path(text).exists():
        text, fill = stem, next(f for f in FILLS if f == last)
    if _holds_records(text):
        return Argument(Path(text), None, fill)
    for place in (i for i, char in enumerate(text) if char == ":" and i > 0):
        if _holds_records(text[:place]) and text[place + 1 :]:
            return Argument(Path(text[:place]), text[place + 1 :], fill)
    return Argument(None, text, fill)


def _holds_records(text: str) -> bool:
    """Whether it is a folder, or a packed file, rather than a model."""
    return Path(text).is_dir() or (is_packed(text) and Path(text).is_file())
