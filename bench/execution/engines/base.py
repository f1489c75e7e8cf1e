"""What every engine shares: how to run, what to show, and the book that is kept of a run.

An engine takes jobs to where they are measured: `engine_local` to worker processes of this machine,
`engine_ray` to the nodes of a cluster, which use the local one. The measuring is the same
everywhere, so records do not depend on the engine, the number of workers, shards, order or resume.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from ..recorder import Recorder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ...records.record import Failure
    from ...records.store import Store
    from ..plan import Cell, Job
    from ..settings import Settings
    from ..toolkit import Toolkit


ENGINES = ("local", "ray")


@dataclass(frozen=True)
class Options:
    """How to run: nothing here changes a number beyond float noise.

    `workers` is the number of worker processes a device; on the CPU they share its cores.
    `time_limit_s` bounds a model variant, `memory_limit_mib` what a worker may take: of a GPU what
    torch allocates there, on the CPU what comes on top of its libraries (default: 90 % of the
    machine). What died or passed the time limit is tried `retries` times again before its record
    says *failed*; `retry_failed` tries failed records of earlier runs again. `engine` is one of
    `ENGINES`; `address` the Ray cluster's, or None.
    """

    devices: tuple[str, ...] = ("cpu",)
    batch: int = 16
    workers: int = 1
    time_limit_s: float | None = None
    memory_limit_mib: float | None = None
    retry_failed: bool = True
    retries: int = 0
    engine: str = "local"
    address: str | None = None


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
    """How many records there were already, and how many of each status were made."""

    held: int = 0
    made: Counter[str] = field(default_factory=Counter)

    def text(self) -> str:
        """One line for a person."""
        made = ", ".join(f"{n} {status}" for status, n in sorted(self.made.items())) or "none"
        return f"records made: {made}; already there: {self.held}"


class Engine(Protocol):
    """Takes jobs to where they are measured."""

    def work_off(self, jobs: Sequence[Job]) -> None:
        """Go on until every job is done. Raises `StoreError` when the store cannot be written."""

    def close(self) -> None:
        """End all workers."""


@dataclass
class RunLedger:
    """What becomes of the jobs of a run; `report` takes the events."""

    store: Store
    settings: Settings
    summary: Summary
    report: Callable[[Event], None] = lambda _event: None
    retries: int = 0
    _tries: Counter[str] = field(default_factory=Counter)

    def kept(self, device: str, job: Job, key: str, status: str) -> None:
        """Count the record of `key` that a worker has written."""
        self.summary.made[status] += 1
        self.report(Event(status, device, job, cell=job.only([key]).cells[0]))

    def lost(self, device: str, job: Job, at_risk: Iterable[str], failure: Failure) -> Job:
        """Record what was at risk in `job` as failed, less what is to be tried again: that job."""
        dead = set()
        for key in at_risk:
            self._tries[key] += 1
            if self._tries[key] > self.retries:
                dead.add(key)
        self.fail(device, job.only(dead), failure)
        return job.without(dead)

    def fail(self, device: str, job: Job, failure: Failure) -> None:
        """Record every cell of `job` as failed."""
        from ....suites.images import open_images

        if not job.cells:
            return
        chosen = self.settings
        images = open_images(chosen.images, chosen.count, chosen.seed)
        clerk = Recorder(job, chosen, images, device)
        for cell in job.cells:
            self.store.put(clerk.broken(cell, failure))
            self.kept(device, job, cell.key, "failed")


@dataclass(frozen=True)
class EngineContext:
    """What an engine needs to make workers; `toolkit` is a function of an importable module."""

    toolkit: Callable[[], Toolkit]
    settings: Settings
    options: Options
    folder: str
