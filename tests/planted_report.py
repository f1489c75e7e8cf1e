"""Planted records, and the report that `perimetry show` prints of them."""

from __future__ import annotations

import numpy as np

from perimetry.bench.model_report.case import Case
from perimetry.bench.model_report.report import report
from perimetry.bench.output.layout import WIDTH
from perimetry.bench.records.parts import ImagesInfo, ModelInfo, Value
from perimetry.bench.records.record import Record
from perimetry.suites.registry import SUITES

SPEC = {"height": 64, "width": 64, "channels": 3}
GRID = {"name": "layer4", "kind": "NCHW", "channels": 8, "height": 16, "width": 16, "prefix": 0}
ENVIRONMENT = {
    "python": "3.12",
    "platform": "planet",
    "libraries": {"torch": "2"},
    "device": "cpu",
    "device_name": "abacus",
    "precision": {},
    "threads": {},
}


def record(suite, metrics, *, fill="none", count=8, **changes):
    """A finished record of `suite` with planted metrics: numbers, (value, half), or a reason."""
    made = Record(
        key=f"{suite}{fill}{changes.get('protocol', '')}",
        status=changes.pop("status", "ok"),
        model=changes.pop("model", None) or model(fill=fill),
        fill=fill,
        suite=suite,
        protocol=changes.pop("protocol", None) or next(iter(SUITES[suite].protocols)),
        version="1",
        settings=changes.pop("settings", {}),
        seed=0,
        images=ImagesInfo(name="dead-leaves", count=count) if SUITES[suite].random else None,
        metrics={name: value(planted) for name, planted in metrics.items()},
        environment=ENVIRONMENT,
        created="2026-01-02T03:04:05+00:00",
        tables=changes.pop("tables", {}),
        notes=changes.pop("notes", []),
        reason=changes.pop("reason", None),
        error=changes.pop("error", None),
    )
    return made.attach((changes.pop("maps", {}), changes.pop("draws", {})))


def model(name="toy:model", *, fill="none", members=1, **source):
    layers = [{"name": "stem", "kernel": [3, 3], "padded_kernel": [4, 4], "stride": [2, 2]}]
    treatment = None if fill == "none" else {"fill": fill, "layers": layers, "left": {}}
    return ModelInfo(
        reference=name, source=source, spec=SPEC, target=GRID, members=members, treatment=treatment
    )


def value(planted):
    if isinstance(planted, str):
        return Value(value=None, reason=planted)
    if isinstance(planted, tuple):
        middle, half = planted
        return Value(value=middle, low=middle - half, high=middle + half)
    return Value(value=planted)


def case_of(*records, fill="none"):
    """The case of `records`, distinguished by their kernel padding."""
    by_fill = {}
    for one in records:
        by_fill.setdefault(one.fill, []).append(one)
    return Case("toy:model", fill, by_fill.pop(fill), by_fill, dict(SUITES))


def report_of(*records, fill="none", width=WIDTH):
    """The report on `records` with every run of white space as one space."""
    return " ".join(report(case_of(*records, fill=fill), width=width).split())


def profile(smallest, at, shape=(4, 4)):
    """A phase profile whose smallest value is `smallest`, at the phase `at`."""
    values = np.full(shape, 1.1)
    values[at] = smallest
    return values


def layer(name, kernel=3, coverage=((2, 1), (2, 1)), stride=2):
    return {
        "name": name,
        "kernel": [kernel, kernel],
        "stride": [stride, stride],
        "padding_before": [1, 1],
        "padding_after": [0, 0],
        "input": [64, 64],
        "output": [32, 32],
        "coverage": coverage,
    }


def culprit(name, **numbers):
    return {"name": name, "kernel": [3, 3], "stride": [2, 2], **numbers}
