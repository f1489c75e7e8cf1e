"""The size of a model: its parameters, and the multiply-accumulate operations of one image.

MACs are those of convolutions and of matrix products, attention included, as torch's
`FlopCounterMode` counts them (two operations each); norms, activations and pools count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.flop_counter import FlopCounterMode

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Complexity:
    """Numbers of parameters and of MACs for one image of the measured size; None if unknown."""

    parameters: int | None = None
    macs: int | None = None


class _NoLayers:
    """In place of torch's tracker of layers, whose hooks are on every module of the process."""

    parents = ("Global",)

    def __enter__(self) -> None:
        """Watch nothing."""

    def __exit__(self, *_: object) -> None:
        """Leave nothing behind."""


class OperationCounter(FlopCounterMode):
    """Counts the floating-point operations of this thread's passes, in all and not by layer."""

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _NoLayers()


def count_macs(run: Callable[[], object]) -> int | None:
    """The MACs of `run`, a pass over one image; None if it fails."""
    try:
        with torch.no_grad(), OperationCounter() as counter:
            run()
    except Exception:  # a foreign forward may raise anything; the number is only informative
        return None
    return int(counter.get_total_flops()) // 2
