"""The local engine: worker processes on each device, so a crash affects one model only.

A worker that dies (segmentation fault, out-of-memory kill) or exceeds the time limit leaves failed
records for the cells that were being measured; the variant's other cells go to a new worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import time
from collections import deque
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....adapters.scratch import scratch_folder
from ...output.files import StoreError
from ...records.parts import Failure
from .base import Event
from .process import EXIT_S, STARTUP_S, UNGUARDED, how_it_ended, tail
from .worker import JobFinished, RecordWritten, Stage, StoreBroken, WorkerSetup, work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from multiprocessing.connection import Connection

    from ..plan import Job
    from .base import EngineContext, RunLedger


THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""Environment variables that set the number of threads of BLAS libraries."""


class DeviceSlot:
    """One device, its worker process, and the job that the worker has."""

    def __init__(self, device: str, start: Callable[[DeviceSlot], tuple[Any, Connection]]) -> None:
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
        """Send a job to the worker, which is started if there is none."""
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
            return  # the worker has died; reading from its pipe reports that

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


class LocalEngine:
    """The workers of one run on this machine; `ledger` counts their records."""

    def __init__(self, context: EngineContext, ledger: RunLedger) -> None:
        self._engine_context = context
        self._options = context.options
        self._ledger = ledger
        self._kept = contextlib.ExitStack()
        self._logs = self._kept.enter_context(scratch_folder())
        self._started = 0
        self._context = multiprocessing.get_context("spawn")
        devices = self._options.devices * self._options.workers
        self._slots = [DeviceSlot(device, self._start) for device in devices]
        self._queue: deque[Job] = deque()

    def run(self, jobs: Sequence[Job]) -> None:
        """Measure every job. Raises `StoreError` when the store cannot be written."""
        self._queue = deque(jobs)
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
        self._kept.close()

    def _start(self, slot: DeviceSlot) -> tuple[Any, Connection]:
        ours, theirs = self._context.Pipe()
        self._started += 1
        slot.log = self._logs / f"{self._started}.log"
        setup = WorkerSetup(self._engine_context, slot.device, str(slot.log), self._threads())
        process = self._context.Process(target=work, args=(theirs, setup), daemon=True)
        with _threads_of_libraries(self._threads()):
            process.start()
        theirs.close()  # else its end would never be seen to close
        return process, ours

    def _threads(self) -> int | None:
        """Threads of a worker, where several share the CPU."""
        if self._options.workers == 1:
            return None
        return max(1, (os.cpu_count() or 1) // len(self._slots))

    def _dispatch(self, slot: DeviceSlot) -> None:
        """Give the slot a job: of the model it has open, else of one that no other has open."""
        others = {s.last_reference for s in self._slots if s is not slot and s.job is not None}
        same = (job for job in self._queue if job.reference == slot.last_reference)
        free = (job for job in self._queue if job.reference not in others)
        job = next(same, None) or next(free, self._queue[0])
        self._queue.remove(job)
        self._ledger.report(Event("begin", slot.device, job))
        slot.give(job, self._options.time_limit_s)

    def _listen(self, busy: Sequence[DeviceSlot]) -> None:
        """Receive what the workers send, until one sends something or exceeds its time limit."""
        wait_s = max(0.0, min(slot.deadline for slot in busy) - time.monotonic())
        timeout = None if wait_s == float("inf") else wait_s
        ready = connection.wait([s.pipe for s in busy if s.pipe is not None], timeout)
        for slot in busy:
            if slot.pipe in ready:
                self._receive(slot)
            elif time.monotonic() >= slot.deadline:
                limit = self._options.time_limit_s
                slot.end()
                text = f"took longer than the time limit of {limit:g} s, while {slot.stage.name}"
                self._lost(slot, Failure(kind="time limit", message=text))

    def _receive(self, slot: DeviceSlot) -> None:
        try:
            message = slot.pipe.recv() if slot.pipe else None
        except (EOFError, OSError):
            code = slot.end(wait_s=EXIT_S)
            text = f"{how_it_ended(code)}, while {slot.stage.name}"
            if code == 1 and slot.stage.name == "starting":
                text += UNGUARDED
            self._lost(slot, Failure(kind="died", message=text, trace=tail(slot.log)))
            return
        if isinstance(message, Stage):
            if slot.stage.name == "starting":
                slot.arm(self._options.time_limit_s)
            slot.stage = message
            if slot.job is not None:
                self._ledger.report(Event("stage", slot.device, slot.job, message.name))
        elif isinstance(message, RecordWritten):
            slot.left.discard(message.key)
            if slot.job is not None:
                self._ledger.written(slot.device, slot.job, message.key, message.status)
        elif isinstance(message, JobFinished):
            slot.job = None
        elif isinstance(message, StoreBroken):
            raise StoreError(message.message)

    def _lost(self, slot: DeviceSlot, failure: Failure) -> None:
        """Record the cells that were at risk as failed; the rest of the job is tried again."""
        job = slot.job
        if job is None:
            return
        slot.job = None
        at_risk = set(slot.stage.keys) & slot.left
        rest = self._ledger.lost(slot.device, job.only(slot.left), at_risk, failure)
        if rest.cells:
            self._queue.appendleft(rest)


@contextlib.contextmanager
def _threads_of_libraries(count: int | None) -> Iterator[None]:
    """Let processes that start now share the cores in numpy too, unless the environment says so.

    BLAS libraries read their number of threads from the environment when they are loaded, and more
    threads than cores spin while they wait.
    """
    ours = [] if count is None else [n for n in THREADS if n not in os.environ]
    os.environ.update(dict.fromkeys(ours, str(count)))
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]
