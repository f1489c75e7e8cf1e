"""The tables of `perimetry bench`, in Markdown, which is readable in a terminal too."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ..output.layout import tabulated
from ..output.text import clean
from .goals import GOAL

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .goals import CertaintyTiming
    from .measure import TimeGrowth, TimingRow
    from .report import SpeedReport


def render_speed(report: SpeedReport) -> str:
    """Render the report as Markdown; tables without a row are left out."""
    parts = [
        _where(report),
        _goals(report),
        _comparisons(report),
        _suites(report.rows),
        _overheads(report),
        _audits(report),
        _certainty(report.certainty),
        _throughput(report),
        _busy(report),
        _captures(report),
        _growth(report.growth),
        _left_out(report.left_out),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(report: SpeedReport) -> str:
    words = {True: "yes", False: "no", None: ""}
    cells = [(g.name, g.bound, g.measured, words[g.reached]) for g in report.goals]
    return _table(cells, ("goal", "bound", "measured", "reached"))


def _comparisons(report: SpeedReport) -> str:
    cells = [
        (
            *(c.model, c.images, c.other, _seconds(c.seconds), _seconds(c.other_seconds)),
            *(f"{c.factor:.1f}x", f"{c.agreement:.0e}"),
        )
        for c in report.comparisons
    ]
    headers = ("one map of", "images", "other", "perimetry", "other's time", "factor", "difference")
    return _table(cells, headers)


def _throughput(report: SpeedReport) -> str:
    cells = [
        (t.model, t.batch, f"{t.images_per_s:.0f}" if t.images_per_s is not None else t.reason)
        for t in report.throughput
    ]
    return _table(cells, ("model", "batch", "images/s, forward and back"))


def _busy(report: SpeedReport) -> str:
    cells = [
        (b.model, b.job, _seconds(b.seconds), f"{b.share:.0%}" if b.share is not None else b.reason)
        for b in report.busy
    ]
    return _table(cells, ("model", "job", "time", "share in which the device is busy"))


def _captures(report: SpeedReport) -> str:
    cells = []
    for c in report.captures:
        if c.eager_s is None or c.captured_s is None:
            cells.append((c.model, c.batch, "", "", c.reason, "no"))
            continue
        times = (_seconds(c.eager_s), _seconds(c.captured_s), f"{c.eager_s / c.captured_s:.2f}x")
        cells.append((c.model, c.batch, *times, "yes" if c.pays else "no"))
    return _table(cells, ("model", "batch", "passes", "captured", "factor", "pays"))


def _where(report: SpeedReport) -> str:
    found, speed = report.environment, report.rates
    versions = ", ".join(f"{name} {version}" for name, version in found.libraries.items())
    threads = "" if report.device != "cpu" else f", {found.threads['torch']} threads"
    return (
        f"**{found.device_name}**{threads} ({os.cpu_count()} cores), "
        f"{datetime.now(UTC):%Y-%m-%d}; {versions}. Measured rates: "
        f"{speed.operations / 1e9:.0f} GFLOP/s ({speed.operations_of}), "
        f"{speed.bytes / 1e9:.1f} GB/s ({speed.bytes_of})."
    )


def _table(rows: Iterable[Sequence[object]], headers: Sequence[str]) -> str:
    rows = list(rows)
    return tabulated(headers, rows, "github") if rows else ""


def _suites(rows: Sequence[TimingRow]) -> str:
    cells = [
        (
            *(r.model, f"{r.side}", r.suite, r.images, _seconds(r.seconds)),
            *("" if r.suite == "structure" else f"{r.images / r.seconds:.1f}", _mib(r.peak_mib)),
        )
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
    cells = [
        (
            *(a.model, a.side, a.images, len(a.cells), _seconds(a.seconds)),
            *(_seconds(a.statistics_s), _mib(a.peak_mib)),
        )
        for a in report.audits
    ]
    measured = ("full gradient audit", "statistics", "peak memory")
    return _table(cells, ("model", "side", "images", "protocols", *measured))


def _certainty(found: Sequence[CertaintyTiming]) -> str:
    cells = [
        (
            *(c.model, c.images, "" if c.half_width is None else f"{c.half_width:.3f}"),
            _seconds(c.seconds) if not c.reason else c.reason,
        )
        for c in found
    ]
    headers = ("model", "images", "half width of weakest", f"time to a half width of {GOAL:g}")
    return _table(cells, headers)


def _growth(found: Sequence[TimeGrowth]) -> str:
    cells = [
        (g.what, g.low, g.high, f"{g.factor:.2f}x" if g.factor is not None else clean(g.reason))
        for g in found
    ]
    return _table(cells, ("what grows", "from", "to", "time of deadpixel"))


def _left_out(found: Mapping[str, str]) -> str:
    return _table([(clean(n), clean(why)) for n, why in found.items()], ("not measured", "reason"))


def _seconds(value: float) -> str:
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.2f} s"


def _mib(value: float | None) -> str:
    return "" if value is None else f"{value:.0f} MiB"
