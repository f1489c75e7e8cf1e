"""What the arguments of a comparison name: folders, models in them, models, modules, records."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, UnknownNameError
from ...adapters.treatment import FILLS
from ..records.archive import is_packed
from ..records.selection import choose, read_folder
from .fingerprint import read_fingerprints
from .sides import DEFAULT_FILL, Side, side_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.treatment import Fill
    from ..records.record import Record


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
            kept = choose(records, self._where)
            if not kept:
                raise InputError(f"no record in {str(folder)!r} matches --where")
            self._read[folder] = kept
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
        fills = sorted({record.fill for record in own})
        chosen = fill or (DEFAULT_FILL if DEFAULT_FILL in fills else fills[0])
        if chosen not in fills:
            raise UnknownNameError(
                f"no record of {reference!r} in {str(folder)!r} has kernel padding {chosen!r}; "
                f"there is {' and '.join(fills)}"
            )
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
