"""What the numbers of a stored matrix say: fixed by design, or random weights with a doubt.

A file does not say which of its matrices were learned. Training gives no matrix without negative
numbers whose rows have equal sums (a mean, a blur, a permutation), and none whose rows are alike:
these are taken as fixed. A matrix with many zeros may be pruned or a mask, and one of few different
numbers of few bits or a Fourier transform: it counts as random weights. A note names either.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..graph import Graph, Node

if TYPE_CHECKING:
    from torch import Tensor

MATRICES = {"MatMul", "Gemm", "Einsum", "com.microsoft:FusedMatMul"}
"""Operators whose stored matrices are looked at."""

MANY_ZEROS = 0.1
"""Share of zeros from which on a note says so; those of 8 bits round to as many as half."""

MANY_ZEROS_ROUNDED = 0.5

LEVELS = 16
"""Most levels of one scale that are too few for a quantised matrix to be like any other."""

CORNER = 64

ROUNDING, STEP = 1e-5, 0.05
"""Difference over the largest number within which two are one; that from a whole step."""

TOLERANCE = 1e-4
"""Relative, of sums of numbers in half precision."""


def fixed_by_design(value: Tensor) -> str | None:
    """What shows that a stored matrix (..., rows, columns) was never learned, or None."""
    if not _is_matrix(value):
        return None
    corner = value[..., :CORNER, :CORNER]  # most matrices show there what they are
    for axis in (-1, -2):
        if all(bool((v == v.narrow(axis, 0, 1)).all()) for v in (corner, value)):
            return "whose rows or columns are alike"
    if not all(bool((v >= 0).all()) for v in (corner, value)):
        return None
    for axis in (-1, -2):
        sums = value.sum(axis, dtype=torch.float64)
        if bool((sums - sums.mean()).abs().amax() <= TOLERANCE * sums.mean()):
            return "without negative numbers, whose rows or columns have equal sums"
    return None


def doubtful_weights(value: Tensor) -> str | None:
    """What makes it doubtful that a stored matrix is random weights, or None."""
    if not _is_matrix(value):
        return None
    few = max(value.shape[-2:]) + 2
    levels = _levels(value, value.flatten()[: 8 * few])
    if len(levels) <= few < value.numel() // 2:
        levels = _levels(value, value)
    rounded = len(levels) > LEVELS and _of_one_scale(levels)
    zeros = 1 - float(value.count_nonzero()) / value.numel()
    if zeros >= (MANY_ZEROS_ROUNDED if rounded else MANY_ZEROS):
        return f"with zeros in {zeros:.0%} of its places"
    if len(levels) <= few < value.numel() // 2 and not rounded:
        return "of few different numbers"
    return None


def _is_matrix(value: Tensor) -> bool:
    whole = value.ndim > 1 and min(value.shape[-2:]) > 1 and value.is_floating_point()
    return whole and bool(value.any()) and bool(value.isfinite().all())


def _levels(value: Tensor, part: Tensor) -> Tensor:
    """The different absolute numbers in a `part` of `value`, over the largest of all, sorted."""
    scaled = part.abs().double() / float(value.abs().amax())
    levels: Tensor = (scaled / ROUNDING).round().unique()
    return levels * ROUNDING


def _of_one_scale(levels: Tensor) -> bool:
    """Whether all levels are whole multiples of the least difference between two."""
    count = (1 / levels.diff().amin()).round()
    steps = levels * count
    return float(count) * ROUNDING < STEP and bool((steps - steps.round()).abs().amax() < STEP)


def with_factors(graph: Graph) -> Graph:
    """Return `graph` with a Mul in place of each Einsum with a stored factor of units."""
    constants = dict(graph.constants)
    nodes = tuple(
        _as_product(node, constants) if node.op == "Einsum" else node for node in graph.nodes
    )
    return replace(graph, nodes=nodes, constants=constants)


def _as_product(node: Node, constants: dict[str, Tensor]) -> Node:
    """The product of a tensor and a constant that an Einsum sums over no axis; else `node`."""
    terms, arrow, output = node.attributes["equation"].replace(" ", "").partition("->")
    letters = terms.split(",")
    if not arrow or len(letters) != 2 or "." in terms or output not in letters:
        return node
    place = 1 if letters[0] == output else 0
    axes, name = letters[place], node.inputs[place]
    value = constants.get(name)
    if value is None or len({*axes}) < len(axes) or not {*axes} <= {*output}:
        return node
    order = sorted(range(len(axes)), key=lambda d: output.index(axes[d]))
    shape = [value.shape[axes.index(c)] if c in axes else 1 for c in output]
    factor = f"{name}/factor of {node.outputs[0]}"
    constants[factor] = value.permute(order).reshape(shape)
    inputs = (node.inputs[1 - place], factor)
    return replace(node, op="Mul", inputs=inputs, attributes={}, constant=frozenset({factor}))
