"""Which energies stand for units that are not negative, of which a ReLU passes all.

Units behind a ReLU are not, and neither are means, sums, maxima and moved ones of such units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from ...adapters.torch_calls import Interpolation, Padding
from .compact import forget
from .mixtures import (
    ACTIVATIONS,
    ADAPTIVE,
    ADAPTIVE_MAXIMA,
    ADDITIONS,
    CONCATENATIONS,
    LARGEST,
    MAX_POOLS,
    MEANS,
    NORM_POOLS,
    ODD,
    POOLS,
    PRODUCTS_OF_UNITS,
    QUOTIENTS,
    SMALLEST,
    STACKS,
)
from .own_names import POWERS
from .rule_table import MOVES, is_energy
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_MARK, _PARTLY = "not_negative", "partly_not_negative"

RECTIFIERS = frozenset(
    {"relu", "relu6", "leaky_relu", "rrelu", "elu", "celu", "threshold", "prelu"}
)
"""Activations that return positive numbers as they are (some up to a bound)."""

_MAKING = frozenset({"relu", "relu6", "abs", "square", "softplus", *NORM_POOLS})

_KEEPING = (
    MOVES
    | MAX_POOLS
    | POOLS
    | ADAPTIVE
    | ADAPTIVE_MAXIMA
    | MEANS
    | STACKS
    | ADDITIONS
    | frozenset(
        """
        mul imul rmul multiply div truediv itruediv divide maximum minimum
        fmax fmin max min amax amin dropout dropout2d contiguous clone positive to float double
        interpolate upsample pad relu relu6 leaky_relu rrelu elu celu
        """.split()  # noqa: SIM905 - easier to read than a column of names
    )
)
"""Functions of which the result is not negative if all that they read is not."""

_BOUNDS = frozenset({"clamp", "clip", "clamp_min"})


def rectifies(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the function returns positive numbers as they are, and not negative ones."""
    return name in RECTIFIERS or _bounds_at_zero(name, args, kwargs)


def is_not_negative(x: Any) -> bool:
    """Whether `x` stands for units of which none is negative."""
    return hasattr(x, _MARK)


def is_partly_not_negative(x: Any) -> bool:
    """Whether `x` joins such units to others."""
    return hasattr(x, _PARTLY)


def activates_again(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether the function is an activation of what an activation returned, or is not negative."""
    x = args[0] if args else None
    activates = name in ACTIVATIONS - ODD or rectifies(name, args, kwargs)
    return activates and (hasattr(x, "rectified") or is_not_negative(x))


def prefers_one(name: str, args: Sequence[Any]) -> bool:
    """Whether the function keeps the largest of two units of which one alone is activated."""
    if name not in LARGEST | SMALLEST or not all(map(is_energy, args[:2])):
        return False
    return len({is_not_negative(x) or hasattr(x, "rectified") for x in args[:2]}) > 1


def mark_sign(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the results `out` whether they are not negative."""
    made = name in _MAKING or _bounds_at_zero(name, args, kwargs) or is_square(name, args)
    energies = [t for t in tensors_in((args, kwargs)) if is_energy(t)]
    marked = [hasattr(t, _MARK) for t in energies]
    for t in filter(is_energy, tensors_in(out)):
        if not any(t is other for other in energies):
            forget(t, _MARK, _PARTLY)
    if name in CONCATENATIONS and isinstance(out, Tensor) and any(marked) and not all(marked):
        setattr(out, _PARTLY, True)
    if made or (name in _KEEPING and _keeps(name, args, kwargs)):
        for t in filter(is_energy, tensors_in(out)):
            setattr(t, _MARK, True)


def _keeps(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Whether nothing that the function reads is negative, or may make its result so."""
    tensors = tensors_in((args, kwargs))
    if not all(hasattr(t, _MARK) for t in tensors if is_energy(t)):
        return False
    if name in {"interpolate", "upsample"}:
        return Interpolation(*args, **kwargs).mode not in {"bicubic"}
    if name == "pad":
        call = Padding(*args, **kwargs)
        return call.mode != "constant" or not (call.value or 0) < 0
    if name in MOVES:
        return True
    numbers = [a for a in args if isinstance(a, int | float) and not isinstance(a, bool)]
    scaled = name in PRODUCTS_OF_UNITS | QUOTIENTS | ADDITIONS
    constants = [t for t in tensors if not is_energy(t)]
    return not scaled or (not constants and all(n >= 0 for n in numbers))


def _bounds_at_zero(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if name not in _BOUNDS:
        return False
    low = kwargs.get("min", args[1] if len(args) > 1 else None)
    return isinstance(low, int | float) and low == 0


def is_square(name: str, args: Sequence[Any]) -> bool:
    """Whether the function squares its first argument, by itself or as a product."""
    if name in PRODUCTS_OF_UNITS:
        return len(args) > 1 and args[0] is args[1]
    two = len(args) > 1 and not isinstance(args[1], Tensor) and args[1] == 2
    return name == "square" or (name in POWERS and two)
