"""The worker process: a crash, a kill or a hang affects the model that it measures and no other.

Before each stage it reports to the parent which results would be lost by a crash. It writes its
records to the store itself, so that nothing measured is lost with the parent, and ends when its
parent ends.
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
    from .base import EngineContext


PR_SET_PDEATHSIG = 1


MEMORY_SHARE = 0.9
"""The share of the machine's memory that a worker may take by default."""


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


Message = Stage | RecordWritten | JobFinished | StoreBroken


def work(pipe: Connection, setup: WorkerSetup) -> None:
    """Measure the jobs that come through `pipe` until it closes; the body of a worker process."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    settings, options = setup.context.settings, setup.context.options
    _print_to(setup.log)
    _use_threads(setup.threads)
    _bound_memory(setup.device, options.memory_limit_mib, options.workers)
    store = Store(setup.context.folder)
    bench = Workbench(
        options.toolkit(),
        settings,
        device=setup.device,
        batch=options.batch_on(setup.device),
        on_stage=lambda name, cells: _send_stage(pipe, name, cells),
    )

    def keep(record: Record) -> None:
        if record.status == "failed":
            _end_with_device(setup.device, record)
        store.put(record)
        pipe.send(RecordWritten(record.key, record.status))

    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            _serve(pipe, bench, pipe.recv(), keep)


def _end_with_device(device: str, record: Record) -> None:
    """End this process if `device` answers no more; the engine then starts another one.

    After a fault in a kernel CUDA refuses everything, so all later models would fail as well.
    """
    from ....adapters.device import is_usable

    if not is_usable(device):
        reason = record.error.message if record.error else ""
        print(f"{device} answers no more after: {reason}", file=sys.stderr, flush=True)  # noqa: T201
        raise SystemExit(DEVICE_LOST)


def _bound_memory(device: str, limit_mib: float | None, workers: int = 1) -> None:
    """Limit the memory of this process, so that an allocation fails before the system kills it.

    The limit is what the process has mapped already plus `limit_mib`, by default `MEMORY_SHARE` of
    the machine's memory. On a GPU it applies to what torch allocates there (a batch that exceeds it
    is halved), since the driver maps far more memory than exists. By default several workers on one
    GPU have equal parts of `MEMORY_SHARE` of it: torch keeps what it has freed, so that the memory
    that one model took would be missing to the neighbour.
    """
    if device.startswith("cuda"):
        _bound_device_memory(device, limit_mib, workers)
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


def _bound_device_memory(device: str, limit_mib: float | None, workers: int) -> None:
    import torch

    if limit_mib is None and workers == 1:
        return
    have = torch.cuda.get_device_properties(device).total_memory
    share = MEMORY_SHARE / workers if limit_mib is None else limit_mib * 2**20 / have
    torch.cuda.set_per_process_memory_fraction(min(1.0, share), device)


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


def _send_stage(pipe: Connection, name: str, cells: Sequence[Cell]) -> None:
    pipe.send(Stage(name, tuple(cell.key for cell in cells)))


def _die_with_parent() -> None:
    """End this process with its parent: by the kernel on Linux, by a watching thread elsewhere.

    The thread alone is not enough: native code may never release the interpreter's lock.
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
