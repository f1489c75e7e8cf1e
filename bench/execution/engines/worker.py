"""The worker process: a crash, a kill or a hang affects the model that it measures and no other.

Before each stage it reports to the parent which results would be lost by a crash. It writes its
records to the store itself, so that nothing measured is lost with the parent, and ends when its
parent ends.
"""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...output.files import StoreError
from ...records.store import Store
from ..workbench import Workbench
from .process import become_worker, bound_memory, use_threads

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from ...records.record import Record
    from ..plan import Job
    from .base import EngineContext


DEVICE_LOST = 70
"""Exit code of a worker that cannot use its device any more."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to start: `log` is the file for everything its process prints.

    `threads` is the number of torch's threads in this process; None leaves it as it is.
    """

    context: EngineContext
    device: str
    log: str
    threads: int | None = None


@dataclass(frozen=True)
class Stage:
    """About to do `name`; a crash would cost the cells of `keys`."""

    name: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class RecordWritten:
    """A record was written."""

    key: str
    status: str


@dataclass(frozen=True)
class JobFinished:
    """The job is done; the next may come."""


@dataclass(frozen=True)
class StoreBroken:
    """The store cannot be written any more: the whole run must stop."""

    message: str


def work(pipe: Connection, setup: WorkerSetup) -> None:
    """Measure the jobs that come through `pipe` until it closes; the body of a worker process."""
    become_worker(setup.log)
    settings, options = setup.context.settings, setup.context.options
    use_threads(setup.threads)
    bound_memory(setup.device, options.memory_limit_mib, options.workers)
    store = Store(setup.context.folder)
    bench = Workbench(
        options.toolkit(),
        settings,
        device=setup.device,
        batch=options.batch_on(setup.device),
        on_stage=lambda name, cells: pipe.send(Stage(name, tuple(c.key for c in cells))),
    )

    def keep(record: Record) -> None:
        if record.status == "failed":
            _end_with_device(setup.device, record)
        store.put(record)
        pipe.send(RecordWritten(record.key, record.status))

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            job: Job = pipe.recv()
            try:
                bench.measure(job, keep)
            except StoreError as error:
                pipe.send(StoreBroken(str(error)))
            else:
                pipe.send(JobFinished())


def _end_with_device(device: str, record: Record) -> None:
    """End this process if `device` answers no more; the engine then starts another one.

    After a fault in a kernel CUDA refuses everything, so all later models would fail as well.
    """
    from ....adapters.device import is_usable

    if not is_usable(device):
        print(f"{device} answers no more after: {record.why}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(DEVICE_LOST)
