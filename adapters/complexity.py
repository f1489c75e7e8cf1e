"""The size of a model: its parameters, and the multiply-accumulate operations of one image.

MACs are those of convolutions and of matrix products, attention included, as torch's
`FlopCounterMode` counts them (two operations each); norms, activations and pools count nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Complexity:
    """Numbers of parameters and of MACs for one image of the measured size; None if unknown."""

    parameters: int | None = None
    macs: int | None = None


def count_macs(run: Callable[[], object], images: int = 1) -> int | None:
    """The MACs of `run`, a pass over `images` images, for each of them; None if it fails."""
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            run()
    except Exception:  # a foreign forward may raise anything; the number is only informative
        return None
    return int(counter.get_total_flops()) // (2 * images)
