"""The weight sets of a torch model: one is selected; the others are kept if memory allows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .tensors import copy_module

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor, nn


KEPT_BYTES = 2**30
"""Built and calibrated weight sets stay in memory as long as they take at most this many bytes."""


class WeightSets:
    """`count` weight sets, of which `live` is the selected one; None before the first selection."""

    def __init__(self, count: int, live: nn.Module | None = None) -> None:
        self.count = count
        self.live = live
        self._kept: dict[int, tuple[nn.Module, Tensor]] = {}

    def select(
        self,
        member: int,
        x: Tensor,
        make: Callable[[int], nn.Module],
        calibrate: Callable[[nn.Module], None],
    ) -> None:
        """Select weight set `member`, calibrated on `x` (images, ...).

        `make(member)` builds a set; it is called, and the set is calibrated, only if none is kept.
        """
        kept = self._kept.get(member)
        if kept is not None and _same(kept[1], x):
            self.live = kept[0]
            return
        if self.live is None or self.count > 1:
            self.live = kept[0] if kept is not None else make(member)
        calibrate(self.live)
        if _size(self.live) * (len(self._kept) + 1) > KEPT_BYTES:
            self._kept.clear()
        self._kept[member] = (self.live, x)

    def copy(self, *, own: bool) -> WeightSets:
        """Return weight sets that start with the selected one; with `own`, with a copy of it."""
        return WeightSets(
            self.count, copy_module(self.live) if own and self.live is not None else self.live
        )


def _size(module: nn.Module) -> int:
    """Bytes of all parameters."""
    return sum(p.nbytes for p in module.parameters())


def _same(a: Tensor, b: Tensor) -> bool:
    return a.device == b.device and torch.equal(a, b)
