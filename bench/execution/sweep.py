"""What `perimetry run` was asked for, and carrying it out."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..output.text import clean
from ..records.manifest import write_manifest
from ..records.store import Store
from .black_box import forecast_black_box, measure_with_stand_ins, remarks
from .identities import find_identities
from .plan import AuditPlan
from .runner import forecast_run, run_jobs
from .settings import PRECISION_OF

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ..records.record import Record
    from .plan import Job
    from .settings import RunOptions, Settings


@dataclass(frozen=True)
class Sweep:
    """Models, suites and fills to audit with `settings`, run as `options` say, into `out`."""

    references: Sequence[str]
    suites: Sequence[str]
    fills: Sequence[str]
    settings: Settings
    options: RunOptions
    out: Path

    @cached_property
    def plan(self) -> AuditPlan:
        """What is to be measured."""
        known = self.options.toolkit().suites
        kind = self.options.device_kind
        common = (self.references, self.suites, self.fills, self.settings, kind, known)
        AuditPlan((), *common[1:]).jobs()  # raises for wrong words before any model is looked at
        identities = find_identities(self.references, self.settings, self.options)
        return AuditPlan(*common, identities)

    def forecast(self) -> str:
        """What a run would do: the number of records to make, and about how long it would take."""
        store = Store(self.out) if self.out.exists() else None
        return forecast_run(self.plan.jobs(), store, self.settings, self.options)

    def kept(self) -> str:
        """What an interrupted run leaves, and how to go on with it."""
        made = len(list((self.out / "records").glob("*.json")))
        out = clean(shlex.quote(str(self.out)))
        return (
            f"{made} finished records are kept in {out}: give the same command to go on from "
            f"there, or `perimetry board {out}` to see them"
        )

    def carry_out(self, log: Callable[[str], None]) -> tuple[Store, list[Record]]:
        """Measure what is missing in `out`; the store, and the records that failed.

        `log` gets a line for each round and for everything the reader must know.
        """

        def announce(records: Sequence[Record]) -> None:
            for line in forecast_black_box(records, self.settings.count, self.settings.options):
                log(f"perimetry: {line}")

        found = measure_with_stand_ins(self.plan, partial(self._measure, log), announce)
        said = [*remarks(found), *_few_images(found, self.settings.count), *_missed_goals(found)]
        for remark in said:
            log(f"perimetry: {remark}")
        write_manifest(Store(self.out))
        return Store(self.out), [record for record in found if record.status == "failed"]

    def _measure(self, log: Callable[[str], None], jobs: Sequence[Job]) -> list[Record]:
        """One round, with a progress bar: the records of `jobs`, measured where missing."""
        store, options = Store(self.out), replace(self.options, progress=True)
        log(run_jobs(jobs, store, self.settings, options).text())
        return list(store.find([cell.key for job in jobs for cell in job.cells]).values())


def _missed_goals(records: list[Record]) -> list[str]:
    """A sentence for every variant whose precision goal was not reached."""
    return [
        f"{clean(record.model.reference)} ({clean(record.fill)}): {clean(note, 600)}"
        for record in records
        if (record.suite, record.protocol) == PRECISION_OF
        for note in record.notes
        if "precision goal" in note
    ]


def _few_images(records: list[Record], count: int) -> list[str]:
    """Sentences that say where there are fewer images than asked for, or too few for intervals."""
    from ...suites.measuring.bootstrap import MIN_SAMPLES
    from ..statistics.difference import sample_count

    sampled = [record for record in records if record.images and record.status == "ok"]
    found = {r.images.name: r.images.count for r in sampled if r.images}
    lines = [
        f"the folder {clean(name)} contains {actual} of the {count} images asked for"
        for name, actual in found.items()
        if actual < count
    ]
    if any(sample_count(record) < MIN_SAMPLES for record in sampled):
        lines.append(
            f"fewer than {MIN_SAMPLES} images (or weight sets of @init models) give no confidence "
            "intervals, so the leaderboard cannot separate models"
        )
    return lines
