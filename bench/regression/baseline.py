"""A baseline: records of a folder or packed file, with noise floors and fingerprints; changing it.

A model is accepted as it has become, or dropped: records, fingerprints, noise floors and manifest
change together. The folder is copied, the copy is changed, and takes the folder's place by
renaming. A process that is killed at any moment leaves the old baseline or the new one; killed
between the two renamings, the old one under `.NAME.old`, from where the next change brings it back.
"""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters.errors import InputError, NotApplicableError, UnknownNameError, unknown
from ...suites.measuring.assumptions import FAULTS
from ..comparison.fingerprint import NAME, beside, read_fingerprints
from ..output.files import StoreError, explain
from ..output.numbers import join_with_and
from ..records.archive import RecordArchive, open_records
from ..records.manifest import FILE as MANIFEST
from ..records.manifest import list_check, manifest_faults, unlisted, write_manifest
from ..records.selection import check_unmixed, choose, newest, read_folder
from ..records.store import Store
from . import noise_floor as noise
from .dead_regions import TABLE
from .detectors import column_of
from .noise_floor import drop_noise, store_noise

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from ..records.record import Record
    from .noise_floor import Floor


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
                f"the baseline {str(self.place)!r} does not have the model; it has "
                f"{join_with_and(self.references, 12)}: name one of these, or give its name in the "
                f"baseline with --as: {unknown('model', reference, self.references)}"
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
    """Read a baseline. Raises `InputError`, `UnknownNameError`, `MixedRecordsError`, `StoreError`.

    What is damaged, missing or not as the manifest says is among the `problems`.
    """
    records, problems = read_folder(place, "baseline")
    chosen = choose(records, where)
    latest = newest(chosen)
    check_unmixed(latest)
    variants: dict[tuple[str, str], list[Record]] = {}
    for record in latest:
        variants.setdefault((record.model.reference, record.fill), []).append(record)
    prints, unreadable = read_fingerprints(place)
    floors, absent = _read_floors(place, prints)
    store = open_records(place)
    faults = {}  # a packed file has checked its own first line
    nothing = store.unlisted if isinstance(store, RecordArchive) else None
    if isinstance(store, Store):
        faults, path = manifest_faults(store), store.root / MANIFEST
        nothing = None if os.path.lexists(path) else unlisted(path)
    found = [*problems, *unreadable, *absent, *([nothing] if nothing else [])]
    more = (t for path, t in faults.items() if not any(str(path) in known for known in found))
    problems = list(dict.fromkeys([*found, *more]))
    return Baseline(place, variants, floors, prints, tuple(problems), tuple(chosen), nothing)


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


@dataclass
class Changes:
    """What is to change in a baseline: variants that go, records that come, and their noise."""

    gone: list[tuple[str, str]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    noise: dict[tuple[str, str], tuple[Floor, Record]] = field(default_factory=dict)

    def accept(self, variant: tuple[str, str], made: Sequence[Record], floor: Floor) -> None:
        """Take `made` in the place of what the baseline has of `variant`.

        Raises `NotApplicableError` when something could not be measured.
        """
        for record in made:
            if record.status == "failed" or record.why.startswith(FAULTS):
                label = f"{record.suite}:{record.protocol}"
                raise NotApplicableError(
                    f"not accepted, since {label} could not be measured: {record.why}"
                )
        print_ = next(record for record in made if record.suite == NAME)
        self.gone.append(variant)
        self.records += [record for record in made if record.suite != NAME]
        self.noise[variant] = (floor, print_)


def check_changeable(baseline: Baseline, *, whole: bool) -> None:
    """Raise `InputError` for a baseline that cannot be changed.

    That is a packed file, and a damaged folder, whose new manifest would call the damage whole. If
    all of it is measured, only damage of records counts: a manifest may be missing, too.
    """
    if not baseline.place.is_dir():
        raise InputError(
            f"{str(baseline.place)!r} is a packed file; accept or drop models in the folder it was "
            "packed from, and pack that again with `perimetry pack`"
        )
    own = str(beside(baseline.place))
    mended = [t for t in baseline.problems if whole and (own in t or t == baseline.unlisted)]
    found = [text for text in baseline.problems if text not in mended]
    if found:
        raise InputError(f"the baseline is damaged, so nothing was changed: {'; '.join(found)}")


def change(baseline: Baseline, changes: Changes) -> None:
    """Carry out `changes` in one step. Raises `StoreError`, and then nothing has changed."""
    place = baseline.place.resolve()
    copy = place.with_name(f".{place.name}.{uuid.uuid4().hex}.tmp")
    try:
        shutil.copytree(place, copy, symlinks=True)
        _edit(copy, baseline, changes)
        _swap(copy, place)
    except OSError as error:
        raise explain(error, place) from error
    finally:
        shutil.rmtree(copy, ignore_errors=True)


def _edit(copy: Path, baseline: Baseline, changes: Changes) -> None:
    """Change the folder `copy`, which has the files of the baseline."""
    store, gone = Store(copy), set(changes.gone)
    for record in baseline.chosen:
        if (record.model.reference, record.fill) in gone:
            store.remove(record)
    if gone >= baseline.variants.keys():
        shutil.rmtree(beside(copy), ignore_errors=True)
    else:
        drop_noise(copy, gone)
    for record in changes.records:
        store.put(record)
    if changes.noise:
        store_noise(copy, changes.noise)
    write_manifest(store)
    list_check(store)


def _swap(new: Path, place: Path) -> None:
    """Put the folder `new` in the place of another."""
    old = _old(place)
    if old.exists():
        shutil.rmtree(old)
    place.rename(old)
    try:
        new.rename(place)
    except OSError:
        old.rename(place)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover(place: Path) -> None:
    """Bring a baseline back that a killed change left under another name."""
    place = place.resolve()
    if not place.exists() and _old(place).exists():
        _old(place).rename(place)


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")
