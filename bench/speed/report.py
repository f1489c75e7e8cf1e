"""What `perimetry bench` prints: suite x model, growth, rivals and floor, as Markdown."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...adapters.errors import NotApplicableError
from ..records.environment import environment
from .floor import Rates, rates
from .measure import (
    Audit,
    Bench,
    TimeGrowth,
    TimingRow,
    full_audit,
    measure_suite,
    open_bench,
    time_growth,
)
from .rivals import PEER, SpeedComparison, comparisons

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..records.environment import Environment


MODELS = (
    "timm:mobilenetv3_small_100@init",
    "timm:resnet50@init",
    "timm:vit_small_patch16_224@init",
)


SUITES = ("structure", "erf", "deadpixel", "perturbation", "padding")


QUICK = (MODELS[:1], SUITES[:3], 4)
"""Models, suites and images of a quick look."""


AUDIT_GOAL_S = {"cuda": 3.0}
"""Seconds that the full gradient audit of a ResNet-50 with 64 images is to stay under."""


RIVAL_GOAL = {"cpu": 3.0, "cuda": 20.0}
"""How many times as fast as `openerf` one map is to be."""


@dataclass
class SpeedReport:
    """Everything that was measured on one device."""

    device: str
    environment: Environment
    rates: Rates
    rows: list[TimingRow] = field(default_factory=list)
    growth: list[TimeGrowth] = field(default_factory=list)
    duels: dict[str, list[SpeedComparison]] = field(default_factory=dict)
    audits: list[Audit] = field(default_factory=list)


def measure(
    references: Sequence[str],
    suites: Sequence[str],
    *,
    device: str,
    count: int,
    batch: int,
    rounds: int,
    say: Callable[[str], None] = lambda _text: None,
) -> SpeedReport:
    """Measure `suites` on every model of `references`; `say` is told what is being done.

    Raises subclasses of `PerimetryError` for models and devices that cannot be had.
    """
    import torch

    from ...suites.registry import SUITES as KNOWN

    say("rates of the device")
    report = SpeedReport(device, environment(torch.device(device)), rates(device))
    for reference in references:
        bench = open_bench(reference, device=device, count=count, batch=batch, rounds=rounds)
        for name in suites:
            if KNOWN[name].skip(bench.model, next(iter(KNOWN[name].protocols))) is None:
                say(f"{reference}: {name}")
                report.rows.append(measure_suite(bench, KNOWN[name]))
        say(f"{reference}: full gradient audit")
        audit = full_audit(bench, KNOWN)
        report.audits += [audit] if audit else []
        _rivals(report, bench, say)
    say(f"{references[0]}: growth")
    report.growth = time_growth(
        references[0], device=device, count=count, batch=batch, rounds=rounds
    )
    return report


def _rivals(report: SpeedReport, bench: Bench, say: Callable[[str], None]) -> None:
    if bench.model.why_no_gradients is None and hasattr(bench.model, "module"):
        say(f"{bench.model.reference}: the same map by other means")
        try:
            report.duels[bench.model.reference] = comparisons(bench)
        except NotApplicableError as error:  # Kim's map of an initial ViT is rounding noise
            say(f"{bench.model.reference}: no such map: {error}")


def render_speed(report: SpeedReport) -> str:
    """The report as Markdown, which reads on a terminal too."""
    parts = [_where(report), _suites(report.rows), _overheads(report), _audits(report)]
    return "\n\n".join([*parts, _rival_table(report), _growth(report.growth)]) + "\n"


def _where(report: SpeedReport) -> str:
    found, speed = report.environment, report.rates
    versions = ", ".join(f"{name} {version}" for name, version in found.libraries.items())
    threads = "" if report.device != "cpu" else f", {found.threads['torch']} threads"
    return (
        f"**{found.device_name}**{threads} ({os.cpu_count()} cores), "
        f"{datetime.now(UTC):%Y-%m-%d}; {versions}. Measured rates: "
        f"{speed.operations / 1e9:.0f} GFLOP/s (float32 matrix product), "
        f"{speed.bytes / 1e9:.1f} GB/s (copy)."
    )


def _table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    from tabulate import tabulate

    return str(tabulate(rows, headers=headers, tablefmt="github", disable_numparse=True))


def _suites(rows: Sequence[TimingRow]) -> str:
    cells = [
        (r.model, f"{r.side}", r.suite, r.images, _seconds(r.seconds), _rate(r), _mib(r.peak_mib))
        for r in rows
    ]
    headers = ("model", "side", "suite", "images", "time", "images/s", "peak memory")
    return _table(cells, headers)


def _overheads(report: SpeedReport) -> str:
    cells = []
    for r in report.rows:
        if r.bare_s is None or r.work is None:
            continue
        floor = report.rates.floor_s(r.work)
        cells.append(
            (
                *(r.model, r.suite, _seconds(r.bare_s), f"{r.overhead:+.1%}"),
                _seconds(r.statistics_s or 0.0),
                *(f"{r.work.operations / 1e9:.0f}", f"{r.work.bytes / 1e9:.1f}"),
                *(_seconds(floor), report.rates.bound(r.work), f"{r.seconds / floor:.1f}x"),
            )
        )
    timed = ("bare passes", "overhead", "statistics")
    headers = ("model", "suite", *timed, "GFLOP", "GB", "floor", "set by", "time / floor")
    return _table(cells, headers)


def _audits(report: SpeedReport) -> str:
    """Seconds of the full gradient audit, beside what is aimed at on such a device."""
    goal = AUDIT_GOAL_S.get(_kind(report.device))
    aim = "" if goal is None else f"{goal:.0f} s (ResNet-50, 64 images)"
    cells = [
        (
            *(a.model, a.side, a.images, len(a.cells), _seconds(a.seconds)),
            *(_seconds(a.statistics_s), _mib(a.peak_mib), aim),
        )
        for a in report.audits
    ]
    measured = ("full gradient audit", "statistics", "peak memory", "goal")
    return _table(cells, ("model", "side", "images", "protocols", *measured))


def _rival_table(report: SpeedReport) -> str:
    goal = RIVAL_GOAL[_kind(report.device)]
    cells = [
        (
            *(model, duel.rival, _seconds(duel.own_s), _seconds(duel.other_s)),
            *(f"{duel.ratio:.2f}x", f"{goal:.0f}x" if duel.rival.startswith(PEER) else ""),
        )
        for model, found in report.duels.items()
        for duel in found
    ]
    return _table(cells, ("model", "against", "ours", "theirs", "ours is faster by", "goal"))


def _kind(device: str) -> str:
    return device.partition(":")[0]


def _growth(found: Sequence[TimeGrowth]) -> str:
    cells = [(g.what, g.low, g.high, f"{g.factor:.2f}x") for g in found]
    return _table(cells, ("what grows", "from", "to", "time of deadpixel"))


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _rate(row: TimingRow) -> str:
    return "" if row.suite == "structure" else f"{row.images / row.seconds:.1f}"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} MiB"
