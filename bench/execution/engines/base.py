"""What every engine shares: events, the summary, and the ledger of a run.

An engine sends jobs to where they are measured: `local` to worker processes of this machine, `ray`
to the nodes of a cluster, each of which runs the local engine. The measuring is the same
everywhere, so records do not depend on the engine, the number of workers, shards, order or resume.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ...records.parts import Failure
    from ...records.store import Store
    from ..plan import Cell, Job
    from ..settings import RunOptions, Settings


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Event:
    """Something to show: `what` is `begin`, `stage`, or the status of the record of `cell`."""

    what: str
    device: str
    job: Job
    stage: str = ""
    cell: Cell | None = None


@dataclass
class Summary:
    """How many records were already present, and how many of each status were made."""

    already_present: int = 0
    made: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """One line for a person."""
        made = ", ".join(f"{n} {status}" for status, n in sorted(self.made.items())) or "none"
        return f"records made: {made}; already present: {self.already_present}"


@dataclass
class RunLedger:
    """Counts the records of a run and records failures; `report` gets the events."""

    store: Store
    settings: Settings
    summary: Summary
    report: Callable[[Event], None] = lambda _event: None
    retries: int = 0
    _tries: Counter[str] = field(default_factory=Counter)

    def written(self, device: str, job: Job, key: str, status: str) -> None:
        """Count the record of `key` that a worker has written."""
        self.summary.made[status] += 1
        self.report(Event(status, device, job, cell=job.only([key]).cells[0]))

    def lost(self, device: str, job: Job, at_risk: Iterable[str], failure: Failure) -> Job:
        """Record the keys `at_risk` as failed if they have no retries left; the rest of `job`."""
        dead = set()
        for key in at_risk:
            self._tries[key] += 1
            if self._tries[key] > self.retries:
                dead.add(key)
        self.fail(device, job.only(dead), failure)
        return job.without(dead)

    def fail(self, device: str, job: Job, failure: Failure) -> None:
        """Record every cell of `job` as failed."""
        if not job.cells:
            return
        chosen = self.settings
        images = chosen.open_images().first(chosen.count)
        recorder = Recorder(job, chosen, images, device)
        for cell in job.cells:
            self.store.put(recorder.unmeasured(cell, failure))
            self.written(device, job, cell.key, "failed")


@dataclass(frozen=True)
class EngineContext:
    """What an engine needs to start workers; `folder` is that of the store."""

    settings: Settings
    options: RunOptions
    folder: str
