"""The process that measures, so that a crash, a kill or a hang costs one model and says so.

It tells its parent before each stage which cells a crash would now cost, and writes its records to
the store itself, so that nothing measured is lost with the parent. It dies when its parent dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import os
import signal
import sys
import threading
from dataclasses import dataclass
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING

from ...output.files import StoreError
from ...records.store import Store
from ..workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from ...records.record import Record
    from ..plan import Cell, Job
    from ..settings import Settings
    from ..toolkit import Toolkit


PR_SET_PDEATHSIG = 1


MEMORY_SHARE = 0.9
"""Of the machine's memory, what a worker may take."""


@dataclass(frozen=True)
class WorkerSetup:
    """What a worker needs to know once; `log` takes everything its process prints."""

    toolkit: Callable[[], Toolkit]
    settings: Settings
    device: str
    batch: int
    folder: str
    log: str
    threads: int | None = None
    """Threads of torch in this process; None leaves them as they are."""
    memory_mib: float | None = None
    """What the process may take on top of its libraries; None for `MEMORY_SHARE` of the machine."""


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


Message = Stage | RecordWritten | JobFinished | StoreBroken


def work(pipe: Connection, order: WorkerSetup) -> None:
    """Measure the jobs that come through `pipe` until it closes; the body of a worker process."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    _print_to(order.log)
    _use_threads(order.threads)
    _bound_memory(order.device, order.memory_mib)
    store = Store(order.folder)
    bench = Workbench(
        order.toolkit(),
        order.settings,
        device=order.device,
        batch=order.batch,
        stage=lambda name, cells: _tell_stage(pipe, name, cells),
    )

    def keep(record: Record) -> None:
        store.put(record)
        pipe.send(RecordWritten(record.key, record.status))

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _serve(pipe, bench, pipe.recv(), keep)


def _bound_memory(device: str, limit_mib: float | None) -> None:
    """Let an allocation fail that passes the limit, before the system kills at will.

    The bound is what the process has mapped already and `limit_mib`, by default `MEMORY_SHARE` of
    the machine's memory. On a GPU the limit is for what torch allocates there: a batch that passes
    it is halved; its driver maps far more than there is.
    """
    if device.startswith("cuda"):
        if limit_mib is not None:
            _bound_device_memory(device, limit_mib)
        return
    if sys.platform != "linux":
        return
    import resource

    page = os.sysconf("SC_PAGE_SIZE")
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * page
    share = MEMORY_SHARE * os.sysconf("SC_PHYS_PAGES") * page
    bound = mapped + int(share if limit_mib is None else limit_mib * 2**20)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard == resource.RLIM_INFINITY or bound < hard:
        resource.setrlimit(resource.RLIMIT_AS, (bound, hard))


def _bound_device_memory(device: str, limit_mib: float) -> None:
    import torch

    have = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, limit_mib * 2**20 / have), device)


def _use_threads(count: int | None) -> None:
    """Share the cores with the other workers."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


def _serve(pipe: Connection, bench: Workbench, job: Job, keep: Callable[[Record], None]) -> None:
    try:
        bench.measure(job, keep)
    except StoreError as error:
        pipe.send(StoreBroken(str(error)))
    else:
        pipe.send(JobFinished())


def _tell_stage(pipe: Connection, name: str, cells: Sequence[Cell]) -> None:
    pipe.send(Stage(name, tuple(cell.key for cell in cells)))


def _die_with_parent() -> None:
    """Make sure that no orphan goes on: by the kernel where it can, by a watching thread elsewhere.

    The thread alone would not do where native code holds the interpreter's lock for ever.
    """
    parent = parent_process()
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _print_to(log: str) -> None:
    """Send standard output and error, of native code too, to the file `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable()
