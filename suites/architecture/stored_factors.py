"""Factors stored in a file, where learned scales and fixed masks of the map look alike.

A file does not say which of its numbers were learned. Scales of channels are learned, and count as
ones. A factor that differs between the places of the map, such as a mask or a window, is taken as
fixed, as a buffer of a module is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .rule_table import history_of, is_energy
from .tags import MAX_PREFIX_TOKENS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def as_stored(args: Sequence[Any]) -> tuple[tuple[Any, ...], bool]:
    """The factors `args` with the values of those that are masks; and whether one may be one."""
    energy = next((a for a in args if is_energy(a)), None)
    if energy is None:
        return tuple(args), False
    found, unclear = [], False
    for factor in args:
        values = getattr(factor, "stored", None)
        spread = None if values is None else differs_between_places(values, energy)
        unclear = unclear or (values is not None and spread is None)
        found.append(values if spread else factor)
    return tuple(found), unclear


def differs_between_places(values: Tensor, x: Tensor) -> bool | None:
    """Whether `values` differ between places of the map in `x`; None if that is not known."""
    first = x.ndim - values.ndim
    varied = {
        first + axis
        for axis, size in enumerate(values.shape)
        if size > 1 and bool((values != values.narrow(axis, 0, 1)).any())
    }
    history = history_of(x)
    if not varied or history is None:
        return False
    rows, columns = history.grid
    count, shape = rows * columns, x.shape
    maps = [{d, d + 1} for d in range(1, x.ndim - 1) if shape[d : d + 2] == (rows, columns)]
    maps += [{d} for d in range(1, x.ndim) if 0 <= shape[d] - count <= MAX_PREFIX_TOKENS]
    of_map = [bool(varied & axes) for axes in maps]
    if all(of_map) and maps:
        return True
    if not any(of_map) and (maps or len(varied) == 1):
        return False
    return None
