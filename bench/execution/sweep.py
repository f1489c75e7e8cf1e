"""What `perimetry run` was asked for, and carrying it out: round by round, with remarks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..output.text import clean
from ..records.store import Store
from .black_box import black_box_suites, remarks, without_gradients
from .black_box import forecast_black_box as forward_cost
from .plan import make_jobs
from .progress import Progress
from .runner import forecast_run, missing_jobs, run_jobs
from .toolkit import standard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from ..records.record import Record
    from .engines.base import Options
    from .plan import Job
    from .settings import Settings


@dataclass(frozen=True)
class Sweep:
    """Models, suites and fills to audit with `settings`, run as `options` say, into `out`."""

    references: Sequence[str]
    suites: Sequence[str]
    fills: Sequence[str]
    settings: Settings
    options: Options
    out: Path

    def jobs(self) -> list[Job]:
        """Every variant of every model. Raises as `plan.make_jobs` does."""
        device = self.options.devices[0].partition(":")[0]
        known = standard().suites
        return make_jobs(
            self.references, self.suites, self.fills, self.settings, device=device, known=known
        )

    def forecast(self) -> str:
        """What a run would do: records to make, and about how long it would take."""
        store = Store(self.out) if self.out.exists() else None
        return forecast_run(self.jobs(), store, self.settings, self.options)

    def carry_out(self, say: Callable[[str], None]) -> tuple[Store, int]:
        """Make what is missing in `out`; the store, and how many records of those asked for failed.

        Models that turn out to have no gradients are measured by the suites that stand in. `say`
        is told what was done and what the reader must know.
        """
        jobs = self.jobs()
        store = Store(self.out)
        self._make(jobs, store, say)
        found = _records(jobs, store)
        blind, others = without_gradients(found), black_box_suites(jobs, standard().suites)
        if blind and others:
            for line in forward_cost(found, self.settings.count, self.settings.options):
                say(f"perimetry: {line}")
            second = replace(self, references=blind, suites=others).jobs()
            self._make(second, store, say)
            jobs += second
            found = _records(jobs, store)
        for remark in [*remarks(found), *_few(found, self.settings.count)]:
            say(f"perimetry: {remark}")
        return store, sum(record.status == "failed" for record in found)

    def _make(self, jobs: list[Job], store: Store, say: Callable[[str], None]) -> None:
        """One round: what is missing of `jobs`, with a progress bar."""
        todo, _ = missing_jobs(jobs, store, retry_failed=self.options.retry_failed)
        with Progress(sum(len(job.cells) for job in todo)) as progress:
            summary = run_jobs(jobs, store, self.settings, self.options, report=progress.report)
        say(summary.text())


def _records(jobs: list[Job], store: Store) -> list[Record]:
    return list(store.find([cell.key for job in jobs for cell in job.cells]).values())


def _few(records: list[Record], count: int) -> list[str]:
    """What to tell of too few samples: fewer images than asked for, none of the intervals."""
    from ...suites.measuring.bootstrap import MIN_SAMPLES
    from ..statistics.difference import sample_count

    sampled = [record for record in records if record.images and record.status == "ok"]
    found = {r.images.name: r.images.count for r in sampled if r.images}
    told = [
        f"the folder {clean(name)} holds {held} of the {count} images asked for"
        for name, held in found.items()
        if held < count
    ]
    if any(sample_count(record) < MIN_SAMPLES for record in sampled):
        told.append(
            f"fewer than {MIN_SAMPLES} images (or weight sets of @init models) give no intervals: "
            "the board tells no row from another"
        )
    return told
