"""Norms written out: what a root is taken of are squares as a statistic, whatever else they are.

The square of rectified units is an activation, and so is a product of units with themselves; under
a root both are the mean square by which a norm divides. It is found out only at the root, so that
tensors made of such squares remember how to compute them as statistics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .compact import alias
from .mixtures import BOUNDED, LARGEST, MEANS, POOLS, SCALES, SUMS
from .nonnegative import is_square
from .own_names import POWERS
from .rule_table import (
    MOVES,
    constant_share,
    history_of,
    is_energy,
    with_constant_share,
    with_history,
)
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_STATISTIC = "as_statistic"

_KEPT_BY = MEANS | SUMS | SCALES | BOUNDED | LARGEST | MOVES | POOLS
"""Functions of squares of which a root is that of a norm."""


def note_squares(
    call: Callable[..., Any],
    name: str,
    func: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    out: Any,
) -> None:
    """Remember of the result `out` of `func` how it is computed as a statistic, by `call`."""
    if not isinstance(out, Tensor) or not is_energy(out):
        return
    if is_square(name, args):
        setattr(out, _STATISTIC, lambda: call(torch.square, (_plain(args[0]),), {}))
        return
    energies = [t for t in tensors_in((args, kwargs)) if is_energy(t)]
    if name in _KEPT_BY and all(hasattr(t, _STATISTIC) for t in energies):
        setattr(out, _STATISTIC, lambda: call(func, *tree_map(_as_statistic, (args, kwargs))))


def under_root(name: str, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """The arguments of a root, with squares as statistics; those of other functions as they are."""
    if args and (name in {"sqrt", "rsqrt"} or (name in POWERS and args[1:] in ((0.5,), (-0.5,)))):
        return (_as_statistic(args[0]), *args[1:])
    return args


def _plain(x: Tensor) -> Tensor:
    """`x` without marks, such as that it was rectified."""
    return with_constant_share(with_history(alias(x), history_of(x)), constant_share(x))


def _as_statistic(t: Any) -> Any:
    return getattr(t, _STATISTIC)() if hasattr(t, _STATISTIC) else t
