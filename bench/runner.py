"""Many models, one worker process a device: what breaks one model costs that model only.

A worker that dies (segmentation fault, out-of-memory kill) or passes the time limit leaves a failed
record for the cells that were at risk; the variant's other cells go to a fresh worker. Records
that are already in the store are not made again, failed ones only when asked to.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .clerk import Clerk
from .record import TRACE_LINES, Failure
from .store import Store, StoreError
from .toolkit import standard
from .worker import Finished, Kept, Order, Stage, StoreBroken, work

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from .plan import Cell, Job, Settings
    from .toolkit import Toolkit

STARTUP_S = 120.0
"""What a fresh worker may take for its imports before the time limit of its first job begins."""

EXIT_S = 10.0
"""How long a worker that closed its pipe may take to end, so that its exit code is known."""


@dataclass(frozen=True)
class Options:
    """How to run: nothing here changes a number beyond float noise.

    `workers` is the number of worker processes a device; on the CPU they share its cores.
    """

    devices: tuple[str, ...] = ("cpu",)
    batch: int = 16
    workers: int = 1
    time_limit_s: float | None = None
    retry_failed: bool = True


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


def run(
    jobs: Sequence[Job],
    store: Store,
    settings: Settings,
    options: Options,
    *,
    toolkit: Callable[[], Toolkit] = standard,
    report: Callable[[Event], None] = lambda _event: None,
) -> Summary:
    """Measure what `store` lacks of `jobs`.

    `toolkit` is called in every worker process, so it must be a function of an importable module.
    `report` is called in this process. Raises `StoreError` when the store can no longer be written.
    """
    todo, held = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    summary = Summary(held=held)
    with tempfile.TemporaryDirectory(prefix="perimetry-") as logs:
        floor = Floor(store, settings, options, toolkit, Path(logs), summary, report)
        try:
            floor.work_off(deque(todo))
        finally:
            floor.close()
    return summary


def missing_jobs(jobs: Sequence[Job], store: Store, *, retry_failed: bool) -> tuple[list[Job], int]:
    """The jobs with the cells that must still be measured, and how many cells need not be."""
    keys = [cell.key for job in jobs for cell in job.cells]
    found = store.find(keys)
    done = {k for k, r in found.items() if not (retry_failed and r.status == "failed")}
    rest = [job.only(c.key for c in job.cells if c.key not in done) for job in jobs]
    return [job for job in rest if job.cells], len(done)


def forecast(jobs: Sequence[Job], store: Store | None, options: Options) -> str:
    """What a run of `jobs` would make, and how long it would take.

    The time is a guess from what the records in `store` took, told only where there are some.
    """
    todo, held = list(jobs), 0
    if store is not None:
        todo, held = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    models = len({job.reference for job in todo})
    count = sum(len(job.cells) for job in todo)
    text = f"{count} records of {models} models to make; {held} are there already"
    spent: dict[tuple[str, str], float] = {}
    for record in store.records() if store is not None else ():
        timing, variant = record.timing, (record.model.reference, record.fill)
        shared = timing.load_s + timing.gradients_s
        spent[variant] = spent.get(variant, shared) + timing.measure_s
    if not spent or not todo:
        return text
    seconds = sum(spent.values()) / len(spent) * len(todo)
    seconds /= len(options.devices) * options.workers
    return f"{text}; about {seconds / 60:.1f} minutes, going by {len(spent)} variants measured here"


class Slot:
    """One device, its worker process, and the job that the worker has."""

    def __init__(self, device: str, start: Callable[[Slot], tuple[Any, Connection]]) -> None:
        self.device = device
        self.job: Job | None = None
        self.last_reference = ""
        self.stage = Stage("starting", ())
        self.left: set[str] = set()
        self.deadline = float("inf")
        self.log = Path()
        self._start = start
        self._process: Any = None
        self.pipe: Connection | None = None

    def give(self, job: Job, limit_s: float | None) -> None:
        """Hand over a job, to a fresh worker where there is none."""
        fresh = self.pipe is None
        if fresh:
            self._process, self.pipe = self._start(self)
        self.job, self.last_reference = job, job.reference
        self.left = {cell.key for cell in job.cells}
        self.stage = Stage("starting", tuple(self.left))
        self.arm(limit_s, STARTUP_S if fresh else 0.0)
        try:
            self.pipe.send(job)  # type: ignore[union-attr]
        except OSError:
            return  # it died meanwhile; reading from it will say so

    def arm(self, limit_s: float | None, extra_s: float = 0.0) -> None:
        """Start the clock of the job."""
        self.deadline = float("inf") if limit_s is None else time.monotonic() + limit_s + extra_s

    def end(self, wait_s: float = 0.0) -> int | None:
        """Empty the slot: the worker's exit code if it ends by itself in `wait_s`, else a kill."""
        code: int | None = None
        if self._process is not None:
            self._process.join(wait_s)
            code = self._process.exitcode
            self._process.kill()
            self._process.join()
            self._process.close()
        if self.pipe is not None:
            self.pipe.close()
        self._process = self.pipe = None
        return code


class Floor:
    """The workers of one run, and what becomes of their jobs."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        options: Options,
        toolkit: Callable[[], Toolkit],
        logs: Path,
        summary: Summary,
        report: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._settings = settings
        self._options = options
        self._toolkit = toolkit
        self._logs = logs
        self._summary = summary
        self._report = report
        self._started = 0
        self._context = multiprocessing.get_context("spawn")
        self._slots = [Slot(d, self._start) for d in options.devices * options.workers]
        self._queue: deque[Job] = deque()

    def work_off(self, queue: deque[Job]) -> None:
        """Go on until every job is done."""
        self._queue = queue
        while True:
            for slot in self._slots:
                if slot.job is None and self._queue:
                    self._dispatch(slot)
            busy = [slot for slot in self._slots if slot.job is not None]
            if not busy:
                return
            self._listen(busy)

    def close(self) -> None:
        """End all workers."""
        for slot in self._slots:
            slot.end()

    def _start(self, slot: Slot) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        self._started += 1
        slot.log = self._logs / f"{self._started}.log"
        order = Order(
            self._toolkit,
            self._settings,
            slot.device,
            self._options.batch,
            str(self._store.root),
            str(slot.log),
            self._threads(),
        )
        process = self._context.Process(target=work, args=(theirs, order), daemon=True)
        process.start()
        theirs.close()  # else its end would never be seen to close
        return process, ours

    def _threads(self) -> int | None:
        """Threads of a worker, where several share the CPU."""
        if self._options.workers == 1:
            return None
        return max(1, (os.cpu_count() or 1) // len(self._slots))

    def _dispatch(self, slot: Slot) -> None:
        """Give the slot a job: of the model it has open, else of one that no other has open."""
        others = {s.last_reference for s in self._slots if s is not slot and s.job is not None}
        same = (job for job in self._queue if job.reference == slot.last_reference)
        free = (job for job in self._queue if job.reference not in others)
        job = next(same, None) or next(free, self._queue[0])
        self._queue.remove(job)
        self._report(Event("begin", slot.device, job))
        slot.give(job, self._options.time_limit_s)

    def _listen(self, busy: Sequence[Slot]) -> None:
        """Take what the workers say, until one says something or passes its time limit."""
        wait_s = max(0.0, min(slot.deadline for slot in busy) - time.monotonic())
        timeout = None if wait_s == float("inf") else wait_s
        ready = connection.wait([s.pipe for s in busy if s.pipe is not None], timeout)
        for slot in busy:
            if slot.pipe in ready:
                self._hear(slot)
            elif time.monotonic() >= slot.deadline:
                limit = self._options.time_limit_s
                slot.end()
                text = f"took longer than the time limit of {limit:g} s, while {slot.stage.name}"
                self._lost(slot, Failure(kind="time limit", message=text))

    def _hear(self, slot: Slot) -> None:
        try:
            message = slot.pipe.recv() if slot.pipe else None
        except (EOFError, OSError):
            code = slot.end(wait_s=EXIT_S)
            text = f"{_how_it_ended(code)}, while {slot.stage.name}"
            self._lost(slot, Failure(kind="died", message=text, trace=_tail(slot.log)))
            return
        if isinstance(message, Stage):
            self._advance(slot, message)
        elif isinstance(message, Kept):
            slot.left.discard(message.key)
            self._count(slot, message.key, message.status)
        elif isinstance(message, Finished):
            slot.job = None
        elif isinstance(message, StoreBroken):
            raise StoreError(message.message)

    def _advance(self, slot: Slot, stage: Stage) -> None:
        if slot.stage.name == "starting":
            slot.arm(self._options.time_limit_s)
        slot.stage = stage
        if slot.job is not None:
            self._report(Event("stage", slot.device, slot.job, stage.name))

    def _lost(self, slot: Slot, failure: Failure) -> None:
        """Record the cells that were at risk as failed; the rest of the job is tried again."""
        job = slot.job
        if job is None:
            return
        slot.job = None
        at_risk = set(slot.stage.keys) & slot.left
        self._write_failed(slot.device, job.only(at_risk), failure)
        for cell in job.only(at_risk).cells:
            self._count(slot, cell.key, "failed", job)
        rest = job.only(slot.left - at_risk)
        if rest.cells:
            self._queue.appendleft(rest)

    def _write_failed(self, device: str, job: Job, failure: Failure) -> None:
        from ..suites.images import open_images

        chosen = self._settings
        images = open_images(chosen.images, chosen.count, chosen.seed)
        clerk = Clerk(job, chosen.seed, images, device)
        for cell in job.cells:
            self._store.put(clerk.broken(cell, failure))

    def _count(self, slot: Slot, key: str, status: str, job: Job | None = None) -> None:
        self._summary.made[status] += 1
        job = job or slot.job
        if job is not None:
            self._report(Event(status, slot.device, job, cell=job.only([key]).cells[0]))


def _how_it_ended(code: int | None) -> str:
    """Say what an exit code of a worker process means."""
    if code is None:
        return "the worker closed its pipe"
    if code >= 0:
        return f"the worker ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = "; the system kills so when memory runs out" if -code == signal.SIGKILL else ""
    return f"the worker was killed by signal {-code} ({name}{hint})"


def _tail(log: Path) -> str | None:
    """The last lines that a worker printed, such as the stack of a segmentation fault."""
    if not log.exists():
        return None
    return "\n".join(log.read_text(errors="replace").splitlines()[-TRACE_LINES:]) or None
