"""Changing a baseline: what a model has become is accepted, or a model is dropped.

Records, fingerprints, noise floors and manifest change together: the folder is copied, the copy is
changed, and takes the folder's place by renaming. A process that is killed at any moment leaves the
old baseline or the new one; killed between the two renamings, the old one under `.NAME.old`, from
where the next change brings it back.
"""

from __future__ import annotations

import shutil
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters.errors import InputError, NotApplicableError
from ...suites.measuring.assumptions import FAULTS
from ..comparison.fingerprint import NAME, beside
from ..output.files import explain
from ..records.manifest import list_check, write_manifest
from ..records.store import Store
from .noise_floor import drop_noise, store_noise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.record import Record
    from .baseline import Baseline
    from .noise_floor import Floor


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
            why = record.error.message if record.error else record.reason or ""
            if record.status == "failed" or why.startswith(FAULTS):
                label = f"{record.suite}:{record.protocol}"
                raise NotApplicableError(
                    f"not accepted, since {label} could not be measured: {why}"
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
