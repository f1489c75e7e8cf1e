"""Seconds, memory, operations and bytes of a job, and the measured rates of this machine."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records.environment import peak_device_memory_mib, peak_memory_mib, reset_peaks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


TimedJob = Any
"""A function without arguments; its result is not used."""


def interleaved_times(jobs: Sequence[TimedJob], rounds: int, device: str) -> list[float]:
    """Shortest seconds of each job; they alternate, after one warm-up of each."""
    for job in jobs:
        job()
    times: list[list[float]] = [[] for _ in jobs]
    for _ in range(rounds):
        for job, series in zip(jobs, times, strict=True):
            series.append(measured_seconds(job, device))
    return [min(series) for series in times]


def measured_seconds(job: TimedJob, device: str) -> float:
    """Seconds of one call, until the device has finished."""
    synchronise(device)
    begun = time.perf_counter()
    job()
    synchronise(device)
    return time.perf_counter() - begun


def synchronise(device: str) -> None:
    """Wait until a GPU has finished its queue."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)


def peak_of(job: TimedJob, device: str) -> float | None:
    """Peak memory of one call in MiB: growth of the process, or torch's allocation on the GPU."""
    gc.collect()
    _trim_memory()
    reset_peaks(device)
    before = resident_mib()
    job()
    if device.startswith("cuda"):
        return peak_device_memory_mib(device)
    peak = peak_memory_mib()
    return None if peak is None or before is None else max(0.0, peak - before)


def _trim_memory() -> None:
    """Return freed memory to the system where possible: if kept, it would hide a peak."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def resident_mib() -> float | None:
    """Resident set of this process in MiB; None where the system does not report it."""
    path = Path("/proc/self/statm")
    if not path.exists():
        return None
    return int(path.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


MATRICES = {"cpu": (512, 1536), "cuda": (4096, 8192)}
"""Sides of the matrices whose product is timed."""

CONVOLUTIONS = ((64, 56, 3), (256, 14, 3), (512, 14, 1))
"""Channels, side of the map and side of the kernel of the convolutions that are timed."""

CONVOLVED = {"cpu": 8, "cuda": 128}
"""Batch size of these convolutions."""

COPIED_MIB = {"cpu": 256, "cuda": 2048}
"""Size of the arrays that are copied, added and summed: far beyond any cache."""

REPEATS = 5


@dataclass(frozen=True)
class WorkCount:
    """Floating-point operations, and bytes read and written."""

    operations: float
    bytes: float

    def times(self, factor: float) -> WorkCount:
        """The work of `factor` such jobs."""
        return WorkCount(self.operations * factor, self.bytes * factor)


@dataclass(frozen=True)
class DeviceRates:
    """Rates of a device, per second: floating-point operations, bytes read and written.

    Each is that of the fastest kernel found, whose name is beside it.
    """

    operations: float
    bytes: float
    operations_of: str = ""
    bytes_of: str = ""

    def roofline_s(self, work: WorkCount) -> float:
        """Seconds that `work` takes at least at these rates."""
        return max(work.operations / self.operations, work.bytes / self.bytes)

    def bound(self, work: WorkCount) -> str:
        """Name the rate that sets this bound: `operations` or `memory`."""
        busy = work.operations / self.operations > work.bytes / self.bytes
        return "operations" if busy else "memory"

    def including(self, work: WorkCount, seconds: float, name: str) -> DeviceRates:
        """The rates after `work` took `seconds`: what was reached is no floor for anything.

        Passes exceed the rates of single kernels where a convolution saves operations (Winograd),
        or finds in a cache what the last operation wrote.
        """
        operations, moved = work.operations / seconds, work.bytes / seconds
        found = self
        if operations > found.operations:
            found = replace(found, operations=operations, operations_of=name)
        if moved > found.bytes:
            found = replace(found, bytes=moved, bytes_of=name)
        return found


def measured_rates(device: str) -> DeviceRates:
    """Measure the rates of `device`: the fastest of several kernels, each the best of `REPEATS`."""
    kind = device.partition(":")[0]
    operations, operations_of = max(_operation_rates(kind, device))
    moved, bytes_of = max(_copy_rates(kind, device))
    return DeviceRates(operations, moved, operations_of, bytes_of)


def _operation_rates(kind: str, device: str) -> list[tuple[float, str]]:
    """Operations per second of matrix products and convolutions, and their names."""
    import torch
    from torch.nn.functional import conv2d

    found = []
    for side in MATRICES[kind]:
        a, b = (torch.ones(side, side, device=device) for _ in range(2))
        (seconds,) = interleaved_times([partial(torch.mm, a, b)], REPEATS, device)
        found.append((2 * side**3 / seconds, f"matrix product {side}"))
    layout = torch.channels_last
    for channels, side, kernel in CONVOLUTIONS:
        x = torch.ones(CONVOLVED[kind], channels, side, side, device=device)
        w = torch.ones(channels, channels, kernel, kernel, device=device)
        x, w = x.to(memory_format=layout), w.to(memory_format=layout)
        convolve = partial(conv2d, x, w, padding=kernel // 2)
        (seconds,) = interleaved_times([convolve], REPEATS, device)
        work = 2 * x.numel() * channels * kernel**2
        found.append((work / seconds, f"{kernel} x {kernel} convolution of {channels} channels"))
    return found


def _copy_rates(kind: str, device: str) -> list[tuple[float, str]]:
    """Bytes read and written per second by a copy, an addition and a sum, and their names."""
    import torch

    size = COPIED_MIB[kind] * 2**18
    a, b, out = (torch.ones(size, device=device) for _ in range(3))
    jobs: dict[str, TimedJob] = {
        "copy": partial(out.copy_, a),
        "addition": partial(torch.add, a, b, out=out),
        "sum": a.sum,
    }
    times = interleaved_times(list(jobs.values()), REPEATS, device)
    moved = (2, 3, 1)  # arrays that are read or written
    return [(n * a.nbytes / s, name) for n, s, name in zip(moved, times, jobs, strict=True)]


def count_work(job: Callable[[], object]) -> WorkCount:
    """Count the operations and bytes of one call of `job`.

    Operations are those of `torch.utils.flop_counter`: convolutions, matrix products, attention.
    """
    from ...adapters.complexity import OperationCounter

    traffic = _traffic()
    counter = OperationCounter()
    with counter, traffic:
        job()
    return WorkCount(float(counter.get_total_flops()), float(traffic.bytes))


def _traffic() -> Any:
    """Return a mode that adds up the bytes every operation reads and writes; views move none."""
    from torch import Tensor
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_leaves

    class Traffic(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.bytes = 0

        def __torch_dispatch__(
            self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            del types
            out = func(*args, **(kwargs or {}))
            if not func.is_view:
                moved = [t for t in tree_leaves((args, kwargs, out)) if isinstance(t, Tensor)]
                self.bytes += sum(t.numel() * t.element_size() for t in moved)
            return out

    return Traffic()
