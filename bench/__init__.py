"""Records, their store, the runner, the leaderboard and the command line.

Read the chapters in the order given in tests/test_layers.py. The public functions are those of the
package `perimetry`; `from perimetry.bench import audit` gives the same ones.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    front = import_module("perimetry")
    if name not in front.__all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(front, name)
