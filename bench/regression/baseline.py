"""A baseline: records of a folder or packed file, and noise floors and fingerprints beside them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters.errors import InputError, UnknownNameError, unknown
from ..comparison.fingerprint import beside, read_fingerprints
from ..output.files import StoreError
from ..records.archive import RecordArchive, open_records
from ..records.manifest import FILE as MANIFEST
from ..records.manifest import manifest_faults, unlisted
from ..records.selection import check_unmixed, choose, newest, read_folder
from ..records.store import Store
from . import noise_floor as noise
from .dead_regions import TABLE
from .detectors import column_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from ..records.record import Record


@dataclass(frozen=True)
class Baseline:
    """Records of a folder by (reference, fill), with noise floors and fingerprints.

    `variants` has the newest record of each kind, `chosen` all of them; `unlisted` is the one of
    the `problems` that says that nothing lists what the baseline has.
    """

    place: Path
    variants: Mapping[tuple[str, str], list[Record]]
    floors: noise.Floors
    fingerprints: Mapping[tuple[str, str], Record]
    problems: tuple[str, ...] = ()
    chosen: tuple[Record, ...] = ()
    unlisted: str | None = None

    @property
    def references(self) -> list[str]:
        """The models in the baseline."""
        return sorted({reference for reference, _ in self.variants})

    @property
    def records(self) -> list[Record]:
        """The records of all variants."""
        return [record for records in self.variants.values() for record in records]

    def fills(self, reference: str) -> list[str]:
        """The kernel paddings of one model. Raises `UnknownNameError` with near names."""
        found = sorted(fill for name, fill in self.variants if name == reference)
        if not found:
            raise UnknownNameError(
                f"the baseline {str(self.place)!r} does not have the model: "
                f"{unknown('model', reference, self.references)}; add it to the baseline with "
                "`perimetry run`, or give its name in the baseline with --as"
            )
        return found


def columns_of(records: Iterable[Record], suites: Mapping[str, Suite]) -> set[str]:
    """The metrics of `records`, by the names that tolerances have for them."""
    return {
        column_of(f"{r.suite}:{r.protocol}.{name}", r, suites)
        for r in records
        for name in (*r.metrics, TABLE)
    }


def open_baseline(place: Path, where: Sequence[str] = ()) -> Baseline:
    """Read a baseline. Raises `InputError`, `MixedRecordsError`, `StoreError`.

    What is damaged, missing or not as the manifest says is among the `problems`.
    """
    records, problems = read_folder(place, "baseline")
    chosen = choose(records, where)
    latest = newest(chosen)
    if not latest:
        raise InputError(
            f"no record of the baseline {str(place)!r} matches --where; expected KEY=VALUE that "
            "is true of at least one"
        )
    check_unmixed(latest)
    variants: dict[tuple[str, str], list[Record]] = {}
    for record in latest:
        variants.setdefault((record.model.reference, record.fill), []).append(record)
    prints, unreadable = read_fingerprints(place)
    floors, absent = _read_floors(place, prints)
    nothing = _unlisted(place)
    found = [*problems, *unreadable, *absent, *([nothing] if nothing else [])]
    problems = list(dict.fromkeys([*found, *_manifest_faults(place, found)]))
    return Baseline(place, variants, floors, prints, tuple(problems), tuple(chosen), nothing)


def _unlisted(place: Path) -> str | None:
    """A sentence if nothing lists what the baseline has: a missing file or line shows nowhere."""
    store = open_records(place)
    if isinstance(store, RecordArchive):
        return store.unlisted
    path = store.root / MANIFEST
    return None if os.path.lexists(path) else unlisted(path)


def _manifest_faults(place: Path, known: Sequence[str]) -> list[str]:
    """How a folder differs from its manifest, unless a sentence in `known` is about that file.

    A packed file has checked its own first line.
    """
    store = open_records(place)
    faults = manifest_faults(store) if isinstance(store, Store) else {}
    return [text for path, text in faults.items() if not any(str(path) in one for one in known)]


def _read_floors(
    place: Path, prints: Mapping[tuple[str, str], Record]
) -> tuple[noise.Floors, list[str]]:
    """The noise floors, and what is wrong with them: both are stored with a fingerprint each."""
    try:
        floors = noise.read_floors(place)
    except StoreError as error:
        return noise.Floors(), [str(error)]
    missing = floors.floors.keys() - {f"{name} {fill}" for name, fill in prints}
    return floors, [
        f"the fingerprint of {name} in {beside(place)} is missing, though its noise floor is "
        "there; store both again with `perimetry check --measure-noise`"
        for name in sorted(missing)
    ]
