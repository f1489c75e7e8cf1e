"""Which records a report is about: those of one model, sorted by kernel padding and suite."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapters.errors import check_name
from ..records.archive import open_records
from ..records.record import expect_maps
from ..records.references import choose_fill, find_reference
from ..records.selection import check_unmixed, choose, newest, read_folder
from ..records.store import read_record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ...suites.base import Suite
    from ..figures.maps import Pictures
    from ..records.record import Record


@dataclass(frozen=True)
class Case:
    """One model: the records with the kernel padding `fill`, and those with others."""

    reference: str
    fill: str
    records: list[Record]
    others: dict[str, list[Record]]
    suites: Mapping[str, Suite]

    @property
    def every(self) -> list[Record]:
        """All records, those of `fill` first."""
        return [*self.records, *(r for records in self.others.values() for r in records)]

    def of(self, fill: str) -> list[Record]:
        """The records with the kernel padding `fill`; empty if there are none."""
        return self.records if fill == self.fill else self.others.get(fill, [])

    @property
    def treated(self) -> list[str]:
        """The kernel paddings that this report compares with the untreated model."""
        return list(self.others) if self.fill == "none" else [self.fill]


def open_case(
    place: Path,
    model: str | None = None,
    *,
    fill: str | None = None,
    where: Sequence[str] = (),
) -> tuple[Case, list[str]]:
    """The case of `model` in `place`, and a sentence for each file that cannot be read.

    `place` is the file of a record, a folder of records or a packed file. `model` may be left out
    if there is only one. Raises `InputError` if there are no records, `StoreError` for a file that
    cannot be read, `UnknownNameError` with similar names, and `MixedRecordsError` if records of
    several settings are left after `where`.
    """
    from ...suites.registry import SUITES

    single = place.is_file() and place.suffix == ".json"
    records, problems = ([read_record(place)], []) if single else _read(place, model)
    reference = find_reference(model, sorted({r.model.reference for r in records}))
    own = newest(choose([r for r in records if r.model.reference == reference], where))
    check_unmixed(own)
    return _case(reference, own, fill, SUITES), problems


def _read(place: Path, model: str | None) -> tuple[list[Record], list[str]]:
    """The records of models that may be meant by `model`; all if there is none."""
    records, problems = open_records(place).read(model=model) if model else ([], [])
    return (records, problems) if records else read_folder(place)


def _case(
    reference: str, records: Sequence[Record], fill: str | None, suites: Mapping[str, Suite]
) -> Case:
    """Sort records by kernel padding and suite; without `fill` the untreated model is chosen."""
    order = {name: place for place, name in enumerate(suites)}
    by_fill: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: order.get(r.suite, len(order))):
        by_fill[record.fill].append(_with_arrays(record))
    wanted = choose_fill(by_fill, fill, repr(reference))
    others = {name: found for name, found in by_fill.items() if name != wanted}
    return Case(reference, wanted, by_fill[wanted], others, suites)


def _with_arrays(record: Record) -> Record:
    """The record with its maps read; if they cannot be read, without them and with a note."""
    damage = record.find_damage()
    return record.model_copy(update={"notes": [*record.notes, damage]}) if damage else record


def draw_maps(case: Case, pictures: Pictures) -> list[Path]:
    """Draw the maps of the case, and what kernel padding changed in them.

    Raises `UnknownNameError` for the name of a map that no record has, and `InputError` when none
    has a map, as those of packed files.
    """
    from ..figures.maps import draw_change, draw_variants

    expect_maps(case.every)
    known = {name for record in case.every for name in record.maps}
    if not known:
        return []  # damaged files, which notes name
    for name in pictures.names:
        check_name("map", name, known)
    paths = draw_variants(case.every, pictures)
    untreated = {(r.suite, r.protocol): r for r in case.of("none")}
    for record in case.every:
        before = untreated.get((record.suite, record.protocol))
        if record.fill != "none" and before is not None:
            paths += draw_change(record, before, pictures)
    return paths
