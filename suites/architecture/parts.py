"""Tensors whose slices along one axis are parts of their own, as where tensors are stacked.

A sum over that axis is one of the parts: it reads a unit twice only if two of them do.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from .chains import Parts, chain_of
from .mixtures import (
    CONCATENATIONS,
    MAXIMA_OF_UNITS,
    MEANS,
    UNIT_BY_UNIT,
    argument,
    summed_axes,
)
from .places import ANYWHERE, Roots, all_ways, chosen, within

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from .chains import Sharing

SPLITTING = frozenset({"view", "reshape", "unsafe_view", "unflatten"})
"""Moves that may split an axis in two."""


def parts_after(
    name: str,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    inputs: Sequence[Tensor],
    out: Tensor,
    shared: Sharing,
    channels: int,
) -> Parts | None:
    """The parts of the result of a call of the energies `inputs`; None if it has none.

    `shared` is what units of the inputs share, and `channels` the axis of their channels.
    """
    first, roots = inputs[0], [chain_of(t).roots for t in inputs]
    if name == "stack" or name in CONCATENATIONS:
        axis = (argument(args, kwargs, 1, "dim") or 0) % out.ndim
        each = out.shape[axis] == len(inputs)  # no constants and one slice of each tensor
        return Parts(axis, tuple(roots), shared, channels) if each else None
    if len(inputs) > 1:
        return None
    if name in SPLITTING:
        split = _split_axis(first.shape, out.shape)
        if split is None:
            return None
        size = out.shape[split + 1]
        slices = [_slice(first, roots[0], split, n * size, size) for n in range(out.shape[split])]
        return Parts(split, tuple(slices), shared, channels)
    found = chain_of(first).parts
    same = name in UNIT_BY_UNIT | MAXIMA_OF_UNITS and out.shape == first.shape
    return found if same else None


def _split_axis(have: Sequence[int], give: Sequence[int]) -> int | None:
    """The axis behind the first that is split in two; None if there is none."""
    for axis in range(1, len(have)):
        if (*have[:axis], *have[axis + 1 :]) == (*give[:axis], *give[axis + 2 :]):
            split = len(give) == len(have) + 1 and give[axis] * give[axis + 1] == have[axis]
            return axis if split and give[axis] > 1 else None
    return None


def _slice(x: Tensor, roots: Roots, axis: int, start: int, size: int) -> Roots:
    """The roots of `size` entries of `x` along `axis`."""
    taken = chosen(x, lambda numbers: numbers.narrow(axis, start, size))
    return {
        key: replace(root, ways=tuple(within(places, taken) for places in root.ways))
        for key, root in roots.items()
    }


def summed_parts(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> Parts | None:
    """The parts that a call sums or takes the mean of, if it does no more; else None."""
    if name not in MEANS or len(inputs) > 1:
        return None
    parts = chain_of(inputs[0]).parts
    return parts if parts and summed_axes(args, kwargs) == (parts.axis,) else None


def joined_roots(parts: Parts, *, known: bool) -> Roots:
    """The roots of the sum of the parts; their places only if they are `known`."""
    roots = {key: root for part in parts.roots for key, root in part.items()}
    each = {key: [part[key].ways for part in parts.roots if key in part] for key in roots}
    return {
        key: replace(root, ways=all_ways(each[key]) if known else (ANYWHERE,))
        for key, root in roots.items()
    }
