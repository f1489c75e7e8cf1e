"""The report of `perimetry bench`: what is measured, step by step, and the file that keeps it.

A Markdown file keeps one such report per kind of device, between two marks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from ...adapters.device import full_precision
from ...adapters.errors import PerimetryError
from ..output.files import write_text
from ..records.environment import environment
from .device_use import (
    BATCHES,
    CAPTURED,
    BusyShare,
    CaptureTiming,
    Throughput,
    busy_share,
    throughput_at,
    time_capture,
)
from .goals import (
    AUDITED,
    CertaintyTiming,
    Goal,
    MapComparison,
    audit_goal,
    map_goal,
    time_to_certainty,
)
from .measure import (
    AuditTiming,
    BenchmarkSetup,
    TimeGrowth,
    TimingRow,
    audit_once,
    full_audit,
    measure_suite,
    open_bench,
    time_growth,
)
from .stopwatch import DeviceRates, measured_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from ...suites.base import Suite
    from ..records.environment import Environment


MODELS = (
    "timm:mobilenetv3_small_100@init",
    "timm:resnet50@init",
    "timm:vit_small_patch16_224@init",
)

SUITES = ("structure", "erf", "deadpixel", "perturbation", "padding")

QUICK = (MODELS[:1], SUITES[:3], 4)
"""Models, suites and number of images of `--quick`."""

BenchmarkStep = tuple[str, "Callable[[], object]"]
"""The name of a step, and what it does."""


@dataclass(frozen=True)
class BenchmarkPlan:
    """What is measured: `suites` on every model of `references`, with `count` images.

    On a GPU, or with `device_use`, images per second, the share of time in which the device is busy
    and captured passes are measured too, of a ResNet-50 or else of the first model.
    """

    references: Sequence[str]
    suites: Sequence[str]
    device: str
    count: int
    batch: int
    rounds: int = 2
    device_use: bool = False

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]

    @property
    def used(self) -> str | None:
        """The model whose use of the device is measured."""
        if not (self.device_use or self.kind == "cuda"):
            return None
        known = (name for name in self.references if AUDITED[0] in name)
        return next(known, self.references[0])


@dataclass
class SpeedReport:
    """All measurements on one device."""

    device: str
    environment: Environment
    rates: DeviceRates
    rows: list[TimingRow] = field(default_factory=list)
    growth: list[TimeGrowth] = field(default_factory=list)
    audits: list[AuditTiming] = field(default_factory=list)
    certainty: list[CertaintyTiming] = field(default_factory=list)
    throughput: list[Throughput] = field(default_factory=list)
    busy: list[BusyShare] = field(default_factory=list)
    captures: list[CaptureTiming] = field(default_factory=list)
    comparisons: list[MapComparison] = field(default_factory=list)
    left_out: dict[str, str] = field(default_factory=dict)
    """Why steps could not be measured, by their names."""

    @property
    def goals(self) -> list[Goal]:
        """The goals for this kind of device, with what was measured so far."""
        return [*audit_goal(self.device, self.audits), *map_goal(self.device, self.comparisons)]


def measure(
    plan: BenchmarkPlan,
    *,
    log: Callable[[str], None] = lambda _text: None,
    keep: Callable[[SpeedReport], None] = lambda _report: None,
    more: Callable[[SpeedReport], Iterator[BenchmarkStep]] = lambda _report: iter(()),
) -> SpeedReport:
    """Measure everything that `plan` names.

    `log` gets each step's name before it begins, `keep` the report after each step. `more` adds
    steps after those of the first model. What does not apply to a model is left out, with the
    reason. Raises subclasses of `PerimetryError` for models and devices that cannot be opened.
    """
    import torch

    with full_precision(plan.device):
        log("rates of the device")
        report = SpeedReport(
            plan.device, environment(torch.device(plan.device)), measured_rates(plan.device)
        )
        keep(report)
        for name, step in _steps(plan, report, more):
            log(name)
            try:
                step()
            except PerimetryError as error:
                report.left_out[name] = f"{error}"
            keep(report)
    return report


def _steps(
    plan: BenchmarkPlan, report: SpeedReport, more: Callable[[SpeedReport], Iterator[BenchmarkStep]]
) -> Iterator[BenchmarkStep]:
    """The steps in order: the model whose use of the device is measured comes first."""
    first = [name for name in plan.references if name == plan.used]
    others = [name for name in plan.references if name not in first]
    for position, reference in enumerate([*first, *others]):
        yield from _model_steps(plan, reference, report)
        if position == 0:
            yield from more(report)
    growth = partial(time_growth, plan.references[0], device=plan.device, count=plan.count)
    growth = partial(growth, batch=plan.batch, rounds=plan.rounds)
    yield f"{plan.references[0]}: growth", lambda: report.growth.extend(growth())


def _model_steps(
    plan: BenchmarkPlan, reference: str, report: SpeedReport
) -> Iterator[BenchmarkStep]:
    from ...suites.registry import SUITES as KNOWN

    bench = open_bench(
        reference, device=plan.device, count=plan.count, batch=plan.batch, rounds=plan.rounds
    )

    def keep_audit() -> None:
        found = full_audit(bench, KNOWN)
        report.audits += [found] if found else []

    def keep_suite(suite: Suite) -> None:
        row = measure_suite(bench, suite)
        report.rows.append(row)
        if row.work is not None and row.passes_s is not None:
            name = f"passes of {suite.name} on {reference}"
            seconds = min(row.passes_s, row.seconds)
            report.rates = report.rates.including(row.work, seconds, name)

    def keep_certainty() -> None:
        report.certainty.append(
            time_to_certainty(reference, device=plan.device, batch=plan.batch, rounds=plan.rounds)
        )

    yield f"{reference}: full gradient audit", keep_audit
    if reference == plan.used:
        yield from _use_steps(plan, bench, report)
    for name in plan.suites:
        suite = KNOWN[name]
        if suite.skip(bench.model, next(iter(suite.protocols))) is None:
            yield f"{reference}: {name}", partial(keep_suite, suite)
    yield f"{reference}: cost to certainty", keep_certainty


def _use_steps(
    plan: BenchmarkPlan, bench: BenchmarkSetup, report: SpeedReport
) -> Iterator[BenchmarkStep]:
    """Images per second, share of time busy, captured passes."""
    from ...suites.registry import SUITES as KNOWN

    name, batches = bench.model.reference, BATCHES[plan.kind]
    audit = partial(audit_once, bench, KNOWN)
    busy = partial(busy_share, bench, "full gradient audit", audit)

    def keep_capture(batch: int) -> None:
        report.captures.append(time_capture(bench, batch))

    yield (
        f"{name}: images per second",
        lambda: report.throughput.extend(throughput_at(bench, batch) for batch in batches),
    )
    yield f"{name}: share of time busy", lambda: report.busy.append(busy())
    for batch in CAPTURED if plan.kind == "cuda" else CAPTURED[:1]:
        yield f"{name}: captured passes at batch {batch}", partial(keep_capture, batch)


def write_report(path: Path, device: str, text: str) -> None:
    """Put `text` in the place of the report for this kind of device, or at the end of the file."""
    old = path.read_text() if path.exists() else "# Performance\n"
    write_text(path, with_report(old, device, text))


def with_report(page: str, device: str, text: str) -> str:
    """Return `page` with the report for this kind of device replaced."""
    kind = device.partition(":")[0]
    first, last = f"<!-- measured: {kind} -->", f"<!-- end: {kind} -->"
    part = f"{first}\n\n{text.strip()}\n\n{last}"
    before, found, rest = page.partition(first)
    if not found:
        return f"{page.rstrip()}\n\n{part}\n"
    return before + part + rest.partition(last)[2]
