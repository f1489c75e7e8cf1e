"""Weights that one pass applies more than once, as a loop over one layer does.

Their squares do not multiply, or add up, where a unit is read through the same weights twice: they
are counted as independent ones, with a note.
"""

from __future__ import annotations

from itertools import starmap
from typing import TYPE_CHECKING, Any

from .chains import chain_of
from .compact import node_of, nodes_behind
from .places import Roots, common_places, overlap
from .uneven_weights import read_parameters

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

REPEATED = "weights that are applied more than once are independent each time"
"""What is assumed."""


class Applications:
    """What random weights were applied to in one pass, and what they returned."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, int], list[tuple[Roots, Any]]] = {}
        self._kept: list[Tensor] = []  # so that no other tensor gets their ids

    def repeated(self, weights: Sequence[Tensor], x: Tensor, out: Tensor) -> bool:
        """Whether `weights`, of which `x` makes `out`, were applied to units of `x` before."""
        self._kept += weights
        roots = chain_of(x).roots
        owners = {n for weight in weights for n in read_parameters(weight)}
        before = [pair for number in owners for pair in self._known.get(number, [])]
        for number in owners:
            self._known.setdefault(number, []).append((roots, node_of(out)))
        if not before:
            return False
        behind = nodes_behind([x])
        return any(node in behind or _meet(read, roots) for read, node in before)


def _meet(a: Roots, b: Roots) -> bool:
    """Whether two tensors with these roots may have a unit in common."""
    return any(starmap(overlap, common_places(a, b)))
