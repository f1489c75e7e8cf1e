"""Seconds and memory of a job."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..records.environment import peak_device_memory_mib, peak_memory_mib, reset_peaks

if TYPE_CHECKING:
    from collections.abc import Sequence


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
