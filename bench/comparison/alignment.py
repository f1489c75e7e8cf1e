"""Pairing the nodes of two graphs in execution order: by shape, values and name.

A global alignment (Needleman and Wunsch 1970): of all ways to pair nodes that keep the order of
both graphs, the one with the largest sum of scores.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...adapters.model import NodeOutput
    from ...suites.base import Array

BUCKETS = 128
"""Entries of the sketches by which tensors are paired."""

BY_SHAPE = 0.05
"""What a pair of one shape counts in the alignment; equal values count 1 more."""

BY_NAME = 0.1
"""What equal names count."""


def flat_array(value: Tensor) -> Array:
    """The values of a tensor, as one row."""
    found: Array = value.double().flatten().numpy()
    return found


@dataclass
class _Sketches:
    """Count sketches of tensors, with the same signs for one size."""

    signs: dict[int, Array] = field(default_factory=dict)

    def of(self, value: Tensor) -> Array:
        flat = flat_array(value)
        if flat.size not in self.signs:
            rng = np.random.default_rng(flat.size)
            self.signs[flat.size] = rng.choice([-1.0, 1.0], flat.size)
        signed = np.nan_to_num(flat * self.signs[flat.size])
        padded = np.concatenate([signed, np.zeros(-signed.size % BUCKETS)])
        found: Array = padded.reshape(-1, BUCKETS).sum(0)
        return found


def align(one: Mapping[str, NodeOutput], other: Mapping[str, NodeOutput]) -> list[tuple[str, str]]:
    """Pairs of names, both in execution order, with the largest sum of scores."""
    gains = _gains(one, other)
    rows, columns = gains.shape
    best = np.zeros((rows + 1, columns + 1))
    for i in range(rows):
        with_pair = best[i, :-1] + gains[i]
        best[i + 1, 1:] = np.maximum(best[i, 1:], with_pair)
        best[i + 1] = np.maximum.accumulate(best[i + 1])
    pairs = []
    i, j = rows, columns
    names = list(one), list(other)
    while i and j:
        if best[i, j] == best[i - 1, j]:
            i -= 1
        elif best[i, j] == best[i, j - 1]:
            j -= 1
        else:
            i, j = i - 1, j - 1
            pairs.append((names[0][i], names[1][j]))
    return pairs[::-1]


def _gains(one: Mapping[str, NodeOutput], other: Mapping[str, NodeOutput]) -> Array:
    """What a pair of each node of one and of the other counts; 0 for other shapes."""
    sketches = _Sketches()
    prints = [[sketches.of(node.value) for node in nodes.values()] for nodes in (one, other)]
    shapes = [[tuple(node.value.shape) for node in nodes.values()] for nodes in (one, other)]
    gains = np.zeros((len(one), len(other)))
    for i, a in enumerate(one):
        size = float(np.linalg.norm(prints[0][i]))
        for j, b in enumerate(other):
            if shapes[0][i] == shapes[1][j]:
                gap = float(np.linalg.norm(prints[1][j] - prints[0][i]))
                near = max(0.0, 1 - gap / size) if size else float(gap == 0)
                gains[i, j] = BY_SHAPE + near + (BY_NAME if a == b else 0.0)
    return gains
