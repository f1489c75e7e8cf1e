"""Records, their store, the runner, the leaderboard and the command line.

`from perimetry.bench import audit, leaderboard, Record` is the front door. What lies behind it is
imported on first use, so that `perimetry --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .comparison.compare import compare
    from .execution.audit import audit
    from .ranking.board import leaderboard
    from .records.record import Record
    from .regression.check import check


__all__ = ["Record", "audit", "check", "compare", "leaderboard"]


_HOMES = {
    "Record": ".records.record",
    "audit": ".execution.audit",
    "check": ".regression.check",
    "compare": ".comparison.compare",
    "leaderboard": ".ranking.board",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)
