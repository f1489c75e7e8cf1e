"""Processes with limits on memory and time, for what may crash, hang or take too much.

`call_bounded` calls one function in such a process, `each_bounded` several; the workers of `local`
are others.
"""

from __future__ import annotations

import ctypes
import faulthandler
import multiprocessing
import os
import signal
import sys
import threading
from multiprocessing import connection, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ....adapters.errors import NotMeasuredError, PerimetryError
from ....adapters.scratch import scratch_folder
from ...records.parts import TRACE_LINES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from ..settings import RunOptions


PR_SET_PDEATHSIG = 1

MEMORY_SHARE = 0.9
"""The share of the machine's memory that a worker may take by default."""

STARTUP_S = 120.0
"""How long the imports of a new worker may take, on top of the time limit of its first job."""

EXIT_S = 10.0
"""How long to wait for the exit code of a worker that closed its pipe."""

UNGUARDED = (
    "; if a script of yours started this run, its statements must stand below "
    '`if __name__ == "__main__":`, since each worker imports the script again'
)


def call_bounded(function: Callable[[], Any], run: RunOptions, *, log: bool = True) -> Any:
    """The result of `function`, called in a process with the limits of `run`.

    The function travels to the process and its result back, so it must be a function of an
    importable module, or a `partial` of one. With `log` what the process prints goes into a file.
    Its `PerimetryError`s are raised here; `NotMeasuredError` says that it raised another error,
    died, or exceeded the time limit.
    """
    (found,) = each_bounded([function], run, log=log)
    if isinstance(found, PerimetryError):
        raise found
    return found


def each_bounded(
    functions: Sequence[Callable[[], Any]], run: RunOptions, *, log: bool = True
) -> list[Any]:
    """The results of `functions` in their order, called in one process as by `call_bounded`.

    In the place of one that fails is its error. The time limit is that of each; after one that
    ended the process, or exceeded it, the rest are called in another.
    """
    found: list[Any] = []
    while len(found) < len(functions):
        found += _of_one_process(functions[len(found) :], run, log=log)
    return found


def _of_one_process(
    functions: Sequence[Callable[[], Any]], run: RunOptions, *, log: bool
) -> list[Any]:
    """The results until the process ends, and the reason last if it ended before all are there."""
    context = multiprocessing.get_context("spawn")
    with scratch_folder() as folder:
        ours, theirs = context.Pipe(duplex=False)
        file = folder / "log" if log else None
        arguments = (theirs, file, run.devices[0], run.memory_limit_mib, functions)
        process = context.Process(target=_answer, args=arguments, daemon=True)
        found: list[Any] = []
        try:
            process.start()
            theirs.close()  # else its end would never be seen to close
            _receive(ours, process, file, STARTUP_S)
            for _ in functions:
                found.append(_receive(ours, process, file, run.time_limit_s))
        except NotMeasuredError as error:
            found.append(error)
        finally:
            if process.pid is not None:  # it has none where a script without a guard began again
                process.kill()
                process.join()
            ours.close()
    return found


def _answer(
    pipe: Connection,
    log: Path | None,
    device: str,
    limit_mib: float | None,
    functions: Sequence[Callable[[], Any]],
) -> None:
    """Send the result of each function, or its error; the body of the process."""
    become_worker(log)
    bound_memory(device, limit_mib)
    pipe.send(None)  # the clock starts
    for function in functions:
        pipe.send(outcome_of(function))


def outcome_of(function: Callable[[], Any]) -> Any:
    """What a function returns, or its error as one that can be sent."""
    try:
        return function()
    except PerimetryError as error:
        return error
    except Exception as error:
        return NotMeasuredError(f"{type(error).__name__}: {error}")


def _receive(pipe: Connection, process: Any, log: Path | None, limit_s: float | None) -> Any:
    """What the process sends next. Raises `NotMeasuredError` if it sends nothing in time."""
    try:
        if pipe.poll(limit_s):
            return pipe.recv()
    except (EOFError, OSError):
        process.join(EXIT_S)
        last = ((log and tail(log)) or "").splitlines()[-1:]
        said = f" (its last words: {last[0]})" if last else ""
        raise NotMeasuredError(f"{how_it_ended(process.exitcode)}{said}") from None
    raise NotMeasuredError(
        f"it took longer than the time limit of {limit_s:g} s; give more with --time-limit"
    )


def become_worker(log: Path | str | None) -> None:
    """Make this process one that ends with its parent and prints into the file `log`, if given."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what an interrupt means
    if log is not None:
        _print_to(log)


def bound_memory(device: str, limit_mib: float | None, workers: int = 1) -> None:
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


def use_threads(count: int | None) -> None:
    """Share the cores with the other workers."""
    if count is not None:
        import torch

        torch.set_num_threads(count)


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


def _print_to(log: Path | str) -> None:
    """Send standard output and error, of native code too, to the file `log`."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable()


def how_it_ended(code: int | None) -> str:
    """What an exit code of a worker process means."""
    if code is None:
        return "the worker closed its pipe"
    if code >= 0:
        return f"the worker ended with exit code {code}"
    name = signal.Signals(-code).name
    hint = "; the system does this when memory runs out" if -code == signal.SIGKILL else ""
    return f"the worker was killed by signal {-code} ({name}{hint})"


def tail(log: Path) -> str | None:
    """The last lines that a worker printed, such as the stack of a segmentation fault."""
    if not log.exists():
        return None
    return "\n".join(log.read_text(errors="replace").splitlines()[-TRACE_LINES:]) or None
