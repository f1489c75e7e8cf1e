"""Units that broadcasting copies, written out as copies, which are followed."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .mixtures import PRODUCTS_OF_UNITS, QUOTIENTS, SUMS
from .rule_table import history_of, is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    **dict.fromkeys(PRODUCTS_OF_UNITS, torch.mul),
    **dict.fromkeys(QUOTIENTS, torch.div),
    **{name: torch.sub if "sub" in name else torch.add for name in SUMS},
    "rsub": torch.rsub,
    "masked_fill": torch.masked_fill,
}


def written_with_copies(name: str, args: Sequence[Any]) -> Callable[..., Tensor] | None:
    """What carries out a function of which an argument is broadcast to that of another, else None.

    In a product of two energies each copy is multiplied by another unit, and so is another one.
    What is copied to other channels of its place meets no copy in a mean over places.
    """
    terms = [t for t in args[:2] if isinstance(t, Tensor)]
    energies = [t for t in terms if is_energy(t)]
    if name not in _FUNCTIONS or not energies:
        return None
    if len(energies) > 1 and name in PRODUCTS_OF_UNITS | QUOTIENTS:
        return None
    shape = torch.broadcast_shapes(*(t.shape for t in terms))
    if all(t.shape == shape or _to_channels(t, shape) for t in energies):
        return None
    return partial(_copied, _FUNCTIONS[name], shape)


def _to_channels(t: Tensor, shape: Sequence[int]) -> bool:
    """Whether a map (batch, 1, rows, columns) is copied to channels of `shape` alone."""
    history = history_of(t)
    return (
        history is not None
        and t.ndim == len(shape) == 4
        and tuple(t.shape) == (shape[0], 1, *history.grid)
        and history.grid == tuple(shape[2:])
    )


def _copied(
    function: Callable[..., Tensor], shape: Sequence[int], *args: Any, **kwargs: Any
) -> Tensor:
    return function(*(a.expand(shape) if is_energy(a) else a for a in args), **kwargs)
