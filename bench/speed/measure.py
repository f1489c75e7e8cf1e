"""How fast this machine audits: what `perimetry bench` measures.

Absolute times are reported, never judged: other work on the machine changes them. Compare ratios
of jobs that alternate in one run, A B A B, after a warm-up of each; the shortest time of each
counts.

bare passes
    One forward pass to the target per batch and one backward pass for each probe of a suite: the
    least a gradient suite can do. *Overhead* is the suite's time over that, less 1.
operations, bytes
    Of the bare passes: floating-point operations of matrix products and convolutions (a
    multiply-add is two), and the bytes every operation reads and writes, one after another,
    unfused.
roofline
    The larger of operations / matmul rate and bytes / memory bandwidth, both measured here: no
    program can be faster on this machine.
full gradient audit
    Every protocol that takes gradients, of every suite, with intervals, as `audit` measures them:
    one forward pass, one backward pass per probe, all statistics. The model is open and warm.
peak
    Memory while the suite runs: on the CPU the growth of the process, on a GPU what torch
    allocated.
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from .stopwatch import (
    WorkCount,
    count_work,
    interleaved_times,
    measured_seconds,
    peak_of,
    synchronise,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ...suites.base import Array, Context, Measurement, Probe, Suite


SHORT_S = 10.0
"""Suites that take longer than this and have nothing to alternate with are timed once."""


@dataclass(frozen=True)
class BenchmarkSetup:
    """What is measured: an open model, images (n, 3, height, width) and the batch size."""

    model: Model
    images: Tensor
    batch: int
    rounds: int = 2

    @property
    def device(self) -> str:
        """Device of the model, such as `cpu` or `cuda:0`."""
        return str(self.model.device)


@dataclass(frozen=True)
class TimingRow:
    """One suite on one model; `bare_s`, `work` and `statistics_s` only where gradients are taken.

    `statistics_s` is the part of `seconds` that comes after the passes.
    """

    model: str
    suite: str
    images: int
    side: int
    seconds: float
    peak_mib: float | None
    passes_s: float | None = None
    work: WorkCount | None = None
    statistics_s: float | None = None

    @property
    def overhead(self) -> float | None:
        """Share of time beyond the bare passes."""
        return None if self.passes_s is None else self.seconds / self.passes_s - 1


def open_bench(
    reference: str,
    *,
    device: str,
    count: int,
    batch: int,
    rounds: int = 2,
    size: tuple[int, int] | None = None,
) -> BenchmarkSetup:
    """Open a model with one weight set, and `count` seeded images."""
    from ...adapters.load import load
    from ...suites.images import open_images

    model = load(reference, device=device, members=1, size=size)
    images = open_images("dead-leaves", count).load(model.spec)
    model.select(0, model.spec.prepare(images[:4]))
    return BenchmarkSetup(model, images, batch, rounds)


def bare_passes(bench: BenchmarkSetup, probes: Sequence[Probe]) -> None:
    """Make the passes of a gradient suite and nothing else."""
    import torch

    x = bench.model.spec.prepare(bench.images)
    for chunk in x.split(bench.batch):
        place = chunk.detach().to(bench.device).requires_grad_()
        # a view, as FLOP counters refuse a leaf as input
        target = bench.model.run(place.view_as(place)).target
        if target is None:
            return
        for probe in probes:
            torch.autograd.grad(target.sum(), place, retain_graph=probe is not probes[-1])


def run_suite(bench: BenchmarkSetup, suite: Suite) -> Measurement:
    """Measure one suite as `perimetry run` does, with an open model and decoded images."""
    return read_back_maps(bench, suite, collect_maps(bench, suite))


def collect_maps(bench: BenchmarkSetup, suite: Suite) -> Mapping[str, Array]:
    """Gradient maps of a suite's first protocol; empty where it takes no gradients."""
    from ...suites.measuring.gradients import gradient_maps

    probes = suite.probes(bench.model, next(iter(suite.protocols)), 0)
    if not probes:
        return {}
    return gradient_maps(bench.model, bench.images, probes, batch=bench.batch).maps


def read_back_maps(bench: BenchmarkSetup, suite: Suite, maps: Mapping[str, Array]) -> Measurement:
    """Metrics of a suite from its maps; the whole measurement where it takes no gradients."""
    return suite.measure(bench.model, next(iter(suite.protocols)), maps, _context(bench))


def _context(bench: BenchmarkSetup) -> Context:
    from ...suites.base import Context

    return Context(bench.images, batch=bench.batch, sized=partial(_sized, bench))


def _sized(bench: BenchmarkSetup, height: int, width: int) -> Tensor:
    from ...suites.images import open_images

    spec = replace(bench.model.spec, height=height, width=width)
    return open_images("dead-leaves", len(bench.images)).load(spec)


def measure_suite(bench: BenchmarkSetup, suite: Suite) -> TimingRow:
    """Measure time and memory of one suite, and of its bare passes where it takes gradients."""
    job = partial(run_suite, bench, suite)
    row = partial(TimingRow, bench.model.reference, suite.name, len(bench.images))
    side = bench.model.spec.height
    probes = suite.probes(bench.model, next(iter(suite.protocols)), 0)
    if not probes:
        taken: list[float] = []
        peak = peak_of(lambda: taken.append(measured_seconds(job, bench.device)), bench.device)
        if taken[0] < SHORT_S:
            taken += interleaved_times([job], bench.rounds, bench.device)
        return row(side, min(taken), peak)
    peak = peak_of(job, bench.device)
    best, bare = interleaved_times(
        [job, partial(bare_passes, bench, probes)], bench.rounds, bench.device
    )
    maps = collect_maps(bench, suite)
    statistics = measured_seconds(partial(read_back_maps, bench, suite, maps), bench.device)
    one_batch = replace(bench, images=bench.images[: bench.batch])
    work = count_work(partial(bare_passes, one_batch, probes))
    work = work.times(len(bench.images) / min(bench.batch, len(bench.images)))
    return row(side, best, peak, bare, work, statistics)


@dataclass(frozen=True)
class AuditTiming:
    """The full gradient audit of one model: total seconds, seconds after the passes, memory."""

    model: str
    images: int
    side: int
    cells: tuple[str, ...]
    seconds: float
    statistics_s: float
    peak_mib: float | None


def gradient_cells(model: Model, suites: Mapping[str, Suite]) -> dict[str, Sequence[Probe]]:
    """The probes of every protocol that takes gradients of `model`, by SUITE:PROTOCOL."""
    found = {
        f"{name}:{protocol}": suite.probes(model, protocol, 0)
        for name, suite in suites.items()
        for protocol in suite.protocols
        if suite.skip(model, protocol) is None
    }
    return {cell: probes for cell, probes in found.items() if probes}


def full_audit(bench: BenchmarkSetup, suites: Mapping[str, Suite]) -> AuditTiming | None:
    """Time the full gradient audit; None for a model without gradients."""
    cells = gradient_cells(bench.model, suites)
    if not cells:
        return None
    times: list[tuple[float, float]] = []

    def once() -> None:
        times.append(audit_once(bench, suites, cells))

    peak = peak_of(once, bench.device)
    for _ in range(bench.rounds):
        once()
    seconds, statistics = min(times[1:])
    count, side = len(bench.images), bench.model.spec.height
    return AuditTiming(bench.model.reference, count, side, tuple(cells), seconds, statistics, peak)


def audit_once(
    bench: BenchmarkSetup,
    suites: Mapping[str, Suite],
    cells: Mapping[str, Sequence[Probe]] | None = None,
) -> tuple[float, float]:
    """Seconds of one full gradient audit, and of the part after its passes."""
    from ...adapters.errors import NotApplicableError
    from ...suites.measuring.gradients import take_gradients

    cells = gradient_cells(bench.model, suites) if cells is None else cells
    synchronise(bench.device)
    begun = time.perf_counter()
    once = {probe.name: probe for probes in cells.values() for probe in probes}
    found = take_gradients(bench.model, bench.images, list(once.values()), batch=bench.batch)
    passed = time.perf_counter()
    for cell, probes in cells.items():
        suite, _, protocol = cell.partition(":")
        with contextlib.suppress(NotApplicableError):  # such as sums behind a layer norm
            suites[suite].measure(bench.model, protocol, found.of(probes), _context(bench))
    synchronise(bench.device)
    done = time.perf_counter()
    return done - begun, done - passed


@dataclass(frozen=True)
class TimeGrowth:
    """The factor by which time grows as `what` goes from `low` to `high`, or why none is known."""

    what: str
    low: int
    high: int
    factor: float | None
    reason: str = ""


def time_growth(
    reference: str, *, device: str, count: int, batch: int, rounds: int
) -> list[TimeGrowth]:
    """Growth of the time of `deadpixel` with the number of images and the side of the input.

    Models of one input size, or without gradients, have the reason in its place.
    """
    from ...adapters.errors import PerimetryError
    from ...suites.registry import SUITES

    suite = SUITES["deadpixel"]
    opened = partial(open_bench, reference, device=device, batch=batch, rounds=rounds)

    def pair(what: str, low: int, high: int, make: Callable[[int], BenchmarkSetup]) -> TimeGrowth:
        try:
            benches = [make(n) for n in (low, high)]
            for bench in benches:
                if why := suite.skip(bench.model, next(iter(suite.protocols))):
                    return TimeGrowth(what, low, high, None, why)
            jobs = [partial(run_suite, bench, suite) for bench in benches]
            first, second = interleaved_times(jobs, rounds, device)
        except PerimetryError as error:
            return TimeGrowth(what, low, high, None, f"{error}")
        return TimeGrowth(what, low, high, second / first)

    low, high = max(2, count // 2), 2 * max(2, count // 2)
    return [
        pair("images", low, high, lambda n: opened(count=n)),
        pair("side", 128, 256, lambda n: opened(count=low, size=(n, n))),
    ]
