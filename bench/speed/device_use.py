"""How well a device is used: images per second, the share of time it computes, captured passes.

images per second
    Of the gradient pass of `deadpixel`: one forward and one backward pass for each image.
share of time busy
    The union of the intervals in which a kernel or a copy runs on the GPU, as `torch.profiler`
    records them, over the time of the job. The rest is time in which the GPU waits for Python.
captured passes
    One forward and one backward pass as a CUDA graph, which is replayed without Python, against the
    same passes as they are made now, in alternating runs. Capture pays from `WORTH` times on: less
    does not make up for a graph per model, batch size and input size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from ...adapters.errors import PerimetryError
from .measure import BenchmarkSetup
from .stopwatch import interleaved_times, measured_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor


BATCHES = {"cpu": (4, 8), "cuda": (64, 256)}
"""Batch sizes at which images per second are measured, by kind of device."""

CAPTURED = (8, 64)
"""Batch sizes of captured passes: a small one, where Python's share is large, and the usual one."""

WORTH = 1.1
"""The factor from which on captured passes would be adopted."""


@dataclass(frozen=True)
class Throughput:
    """Images per second of a gradient pass; `reason` says why there is none."""

    model: str
    batch: int
    images_per_s: float | None
    reason: str = ""


@dataclass(frozen=True)
class BusyShare:
    """The share of `seconds` in which the device computed or copied; `reason` if not measured."""

    model: str
    job: str
    seconds: float
    share: float | None
    reason: str = ""


@dataclass(frozen=True)
class CaptureTiming:
    """Seconds of one forward and backward pass as they are, and captured; or why there is none."""

    model: str
    batch: int
    eager_s: float | None = None
    captured_s: float | None = None
    reason: str = ""

    @property
    def pays(self) -> bool:
        """Whether captured passes are faster by the factor `WORTH`."""
        if self.eager_s is None or self.captured_s is None:
            return False
        return self.eager_s / self.captured_s >= WORTH


def throughput_at(bench: BenchmarkSetup, batch: int) -> Throughput:
    """Images per second of one batch of `batch` images."""
    from ...suites.measuring.gradients import gradient_maps
    from ...suites.registry import SUITES

    suite, images = SUITES["deadpixel"], _repeated(bench, batch)
    probes = suite.probes(bench.model, next(iter(suite.protocols)), 0)
    row, used = partial(Throughput, bench.model.reference, batch), list[int]()

    def job() -> None:
        used.append(gradient_maps(bench.model, images, probes, batch=batch).batch)

    try:
        (seconds,) = interleaved_times([job], bench.rounds, bench.device)
    except (PerimetryError, RuntimeError) as error:
        return row(None, _first_line(error))
    if min(used) < batch:
        return row(None, f"out of memory: batch lowered to {min(used)}")
    return row(batch / seconds)


def busy_share(bench: BenchmarkSetup, name: str, job: Callable[[], object]) -> BusyShare:
    """The share of the time of `job` in which the GPU of `bench` was busy."""
    row = partial(BusyShare, bench.model.reference, name)
    job()
    if not bench.device.startswith("cuda"):
        return row(measured_seconds(job, bench.device), None, "only a GPU has a time of its own")
    from torch.profiler import ProfilerActivity, profile

    seconds = measured_seconds(job, bench.device)
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        profiled_s = measured_seconds(job, bench.device)
    on_device = [e for e in profiler.events() or [] if str(e.device_type).endswith("CUDA")]
    busy_s = covered([(e.time_range.start, e.time_range.end) for e in on_device]) / 1e6  # from µs
    if not busy_s:
        return row(seconds, None, "the profiler recorded no kernel (is CUPTI permitted here?)")
    return row(seconds, min(1.0, busy_s / profiled_s))


def covered(intervals: Sequence[tuple[float, float]]) -> float:
    """The length of the union of `intervals`."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(intervals):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def time_capture(bench: BenchmarkSetup, batch: int) -> CaptureTiming:
    """Time one forward and backward pass of `batch` images, as they are and as a CUDA graph."""
    row = partial(CaptureTiming, bench.model.reference, batch)
    if not bench.device.startswith("cuda"):
        return row(reason="CUDA graphs exist on a GPU only")
    try:
        eager = _passes(bench, batch)
        replay = _captured(bench.device, eager)
        eager_s, captured_s = interleaved_times([eager, replay], bench.rounds + 1, bench.device)
    except Exception as error:  # whatever a model does that a graph cannot hold, it is a result
        return row(reason=_first_line(error))
    return row(eager_s, captured_s)


def _repeated(bench: BenchmarkSetup, count: int) -> Tensor:
    """`count` images: those of `bench`, again and again."""
    return bench.images.repeat(-(-count // len(bench.images)), 1, 1, 1)[:count]


def _passes(bench: BenchmarkSetup, batch: int) -> Callable[[], None]:
    """A function that makes one forward and one backward pass; its images are on the device."""
    import torch

    x = bench.model.spec.prepare(_repeated(bench, batch)).to(bench.device).requires_grad_()

    def passes() -> None:
        target = bench.model.run(x).target
        if target is None:
            raise ValueError("the model has no spatial map")
        torch.autograd.grad(target.sum(), x)

    return passes


def _captured(device: str, passes: Callable[[], None]) -> Callable[[], None]:
    """A function that replays `passes` as a CUDA graph."""
    import torch

    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # lets libraries choose kernels and take memory before the capture
            passes()
    torch.cuda.current_stream(device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        passes()
    replay: Callable[[], None] = graph.replay
    return replay


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0][:160]}"
