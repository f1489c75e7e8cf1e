"""The report of `perimetry bench`: time, memory, roofline and growth as Markdown tables.

A Markdown file keeps one such report per kind of device, between two marks.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..output.files import write_text
from ..records.environment import environment
from .measure import (
    AuditTiming,
    TimeGrowth,
    TimingRow,
    full_audit,
    measure_suite,
    open_bench,
    time_growth,
)
from .roofline import DeviceRates, measured_rates

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from ..records.environment import Environment


MODELS = (
    "timm:mobilenetv3_small_100@init",
    "timm:resnet50@init",
    "timm:vit_small_patch16_224@init",
)


SUITES = ("structure", "erf", "deadpixel", "perturbation", "padding")


QUICK = (MODELS[:1], SUITES[:3], 4)
"""Models, suites and number of images of `--quick`."""


AUDIT_GOAL_S = {"cuda": 3.0}
"""Goal for the full gradient audit of a ResNet-50 with 64 images, in seconds."""


@dataclass
class SpeedReport:
    """All measurements on one device."""

    device: str
    environment: Environment
    rates: DeviceRates
    rows: list[TimingRow] = field(default_factory=list)
    growth: list[TimeGrowth] = field(default_factory=list)
    audits: list[AuditTiming] = field(default_factory=list)


def measure(
    references: Sequence[str],
    suites: Sequence[str],
    *,
    device: str,
    count: int,
    batch: int,
    rounds: int,
    log: Callable[[str], None] = lambda _text: None,
) -> SpeedReport:
    """Measure `suites` on every model of `references`; `log` is called with each step's name.

    Raises subclasses of `PerimetryError` for models and devices that cannot be opened.
    """
    import torch

    from ...suites.registry import SUITES as KNOWN

    log("rates of the device")
    report = SpeedReport(device, environment(torch.device(device)), measured_rates(device))
    for reference in references:
        bench = open_bench(reference, device=device, count=count, batch=batch, rounds=rounds)
        for name in suites:
            if KNOWN[name].skip(bench.model, next(iter(KNOWN[name].protocols))) is None:
                log(f"{reference}: {name}")
                report.rows.append(measure_suite(bench, KNOWN[name]))
        log(f"{reference}: full gradient audit")
        audit = full_audit(bench, KNOWN)
        report.audits += [audit] if audit else []
    log(f"{references[0]}: growth")
    report.growth = time_growth(
        references[0], device=device, count=count, batch=batch, rounds=rounds
    )
    return report


def render_speed(report: SpeedReport) -> str:
    """Render the report as Markdown, which is readable in a terminal too."""
    tables = [_suites(report.rows), _overheads(report), _audits(report), _growth(report.growth)]
    return "\n\n".join([_where(report), *tables]) + "\n"


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
        if r.passes_s is None or r.work is None:
            continue
        roofline = report.rates.roofline_s(r.work)
        cells.append(
            (
                *(r.model, r.suite, _seconds(r.passes_s), f"{r.overhead:+.1%}"),
                _seconds(r.statistics_s or 0.0),
                *(f"{r.work.operations / 1e9:.0f}", f"{r.work.bytes / 1e9:.1f}"),
                *(_seconds(roofline), report.rates.bound(r.work), f"{r.seconds / roofline:.1f}x"),
            )
        )
    timed = ("bare passes", "overhead", "statistics")
    headers = ("model", "suite", *timed, "GFLOP", "GB", "roofline", "set by", "time / roofline")
    return _table(cells, headers)


def _audits(report: SpeedReport) -> str:
    """Time of the full gradient audit beside the goal for such a device."""
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


def write_report(path: Path, device: str, text: str) -> None:
    """Put `text` in the place of the report for this kind of device, or at the end of the file."""
    old = path.read_text() if path.exists() else "# Performance\n"
    write_text(path, with_report(old, device, text))


def with_report(page: str, device: str, text: str) -> str:
    """Return `page` with the report for this kind of device replaced."""
    first, last = f"<!-- measured: {_kind(device)} -->", f"<!-- end: {_kind(device)} -->"
    part = f"{first}\n\n{text.strip()}\n\n{last}"
    before, found, rest = page.partition(first)
    if not found:
        return f"{page.rstrip()}\n\n{part}\n"
    return before + part + rest.partition(last)[2]
