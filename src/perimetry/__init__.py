"""Audit vision models: receptive fields, dead pixels, padding bias, small perturbations.

`audit` measures one model, `load_records` reads stored results, `leaderboard` ranks them, `compare`
sets models side by side, `check` compares models with a baseline. docs/python.md has an example of
each. They are imported on first use, so that `import perimetry` does not wait for torch.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .bench.comparison.compare import compare
    from .bench.execution.audit import audit
    from .bench.ranking.view import leaderboard
    from .bench.records.record import Record
    from .bench.records.selection import load_records
    from .bench.regression.check import check

    __version__: str

TELEMETRY_OFF = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""Variables that stop onnxruntime, huggingface_hub (and so timm) and Ray from reporting usage."""

NEEDED = (
    *("PIL", "jinja2", "matplotlib", "numpy", "onnx", "onnxruntime", "onnxscript", "packaging"),
    *("pandas", "pydantic", "rich", "safetensors", "scipy", "tabulate", "timm", "torch", "typer"),
    "yaml",
)
"""The packages that are imported sooner or later."""


def _refuse_files_that_hide(packages: Iterable[str]) -> None:
    """Raise `ImportError` for a file that Python would import in place of one of `packages`.

    A script `onnx.py` is what `import onnx` finds, also from within another package. What follows
    is an error about some other name in the middle of an audit, or the script once more.
    """
    for package in packages if sys.path else ():
        file = f"{sys.path[0] or os.curdir}{os.sep}{package}.py"
        if os.access(file, os.R_OK):
            raise ImportError(
                f"{file} hides the package {package}, which perimetry needs: "
                f"give the file another name"
            )


_refuse_files_that_hide(NEEDED)

# These libraries read the variables when they are first imported, so no later place is early
# enough. Worker processes inherit them. A value that the user has set stays.
for _variable, _value in TELEMETRY_OFF.items():
    os.environ.setdefault(_variable, _value)

__all__ = ["Record", "__version__", "audit", "check", "compare", "leaderboard", "load_records"]

_MODULES = {
    "Record": ".bench.records.record",
    "audit": ".bench.execution.audit",
    "check": ".bench.regression.check",
    "compare": ".bench.comparison.compare",
    "leaderboard": ".bench.ranking.view",
    "load_records": ".bench.records.selection",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("perimetry")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
