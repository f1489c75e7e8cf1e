"""Numbers that are added to units, which count where units are multiplied: (1 + a) b.

A constant that is added vanishes from an energy, as no pixel reaches it. In a product with other
units it is a path of its own, beside that through a: the square of c + a has the mean c^2 + e for a
of mean 0 and energy e. FiLM, adaptive norms and linear attention multiply by 1 + a. A factor exp(a)
is its own derivative, whatever the energy of a is, and counts as 1 for both.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .compact import compress, compress_uniform, forget
from .constants import is_scale
from .mixtures import PRODUCTS_OF_UNITS, QUOTIENTS, SUMS, summed_axes
from .nonnegative import is_not_negative
from .rule_table import MOVES, is_energy
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OFFSET, _EXPONENTIAL, _SKEWED = "offset", "exponential", "skewed"

_KEEPING = MOVES | frozenset(
    """
    contiguous clone to type type_as float double half bfloat16 cpu cuda positive mean interpolate
    upsample dropout dropout1d dropout2d dropout3d
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that return c where all that they read is c."""

_OF_MATRICES = frozenset({"matmul", "bmm", "mm"})

_SOFTPLUS_OF_0 = math.log(2)


def offset_of(x: Tensor) -> float:
    """The number that was added to the units `x` stands for; 0 if none was."""
    found: float = getattr(x, _OFFSET, 1.0 if hasattr(x, _EXPONENTIAL) else 0.0)
    return found


def second_moment(x: Tensor, energy: Tensor) -> Tensor:
    """The mean of squares of units of this `energy`, to which numbers may have been added."""
    if hasattr(x, _EXPONENTIAL):
        return 1 + energy - energy.detach()
    offset = offset_of(x)
    return energy + offset**2 if offset else energy


def rectified(x: Tensor, energy: Tensor) -> Tensor:
    """The energy of max(0, c + u) for normal u of this `energy` and the number c added to them.

    It passes the share of u above -c: half of it without a number, or if u was rectified before.
    """
    offset = offset_of(x)
    if not offset or hasattr(x, _SKEWED):
        return energy / 2
    deviation = energy.detach().clamp(min=1e-30).sqrt()
    passed = torch.special.ndtr(offset / deviation)
    density = torch.exp(-0.5 * (offset / deviation) ** 2) / math.sqrt(2 * math.pi)
    constant = offset**2 * passed + offset * deviation * density
    found: Tensor = energy * passed + constant.clamp(min=0)
    return found


def squared_offset(a: Tensor, b: Tensor) -> float:
    """The square of what is added to a product of units: no part of its energy."""
    return (offset_of(a) * offset_of(b)) ** 2


def multiplies_exponentials(name: str, args: Sequence[Any]) -> bool:
    """Whether the function multiplies units by exponentials of units."""
    return (
        name in PRODUCTS_OF_UNITS
        and all(map(is_energy, args[:2]))
        and any(hasattr(a, _EXPONENTIAL) for a in args[:2])
    )


def multiplies_skewed(name: str, args: Sequence[Any]) -> bool:
    """Whether a factor of units is a number plus units that are not negative, as a softplus is.

    These have a mean of their own, which is not followed: the number counts alone.
    """
    return (
        name in PRODUCTS_OF_UNITS | _OF_MATRICES
        and all(map(is_energy, args[:2]))
        and any(offset_of(a) and (hasattr(a, _SKEWED) or is_not_negative(a)) for a in args[:2])
    )


def mark_offset(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the results `out` which number was added to them."""
    energies = [t for t in tensors_in((args, kwargs)) if is_energy(t)]
    offset = _after(name, energies, args, kwargs) if energies else None
    for t in filter(is_energy, tensors_in(out)):
        if any(t is other for other in energies):
            continue
        forget(t, _OFFSET, _EXPONENTIAL, _SKEWED)
        if offset:
            setattr(t, _OFFSET, offset)
        if offset and any(is_not_negative(e) or hasattr(e, _SKEWED) for e in energies):
            setattr(t, _SKEWED, True)
        if name == "exp" or (name in MOVES and any(hasattr(e, _EXPONENTIAL) for e in energies)):
            setattr(t, _EXPONENTIAL, True)


def _after(
    name: str, energies: Sequence[Tensor], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> float | None:
    """The offset of what a function returns, 0 or None if it has none that is known."""
    first = offset_of(energies[0])
    if name == "softplus":
        return None if first else _SOFTPLUS_OF_0
    if name in SUMS and len(args) > 1:
        one, other = (_number(a) for a in args[:2])
        if one is None or other is None:
            return None
        sign = -1 if "sub" in name else 1
        factor = sign * float(kwargs.get("alpha", 1))
        return other - one if name == "rsub" else one + factor * other
    if name in PRODUCTS_OF_UNITS | _OF_MATRICES and len(energies) == len(args) == 2:
        terms = args[0].shape[-1] if name in _OF_MATRICES else 1
        return first * offset_of(energies[1]) * terms
    if not first:
        return None
    if name == "neg":
        return -first
    if name == "sum":
        axes = summed_axes(args, kwargs)
        shape = energies[0].shape
        return first * math.prod(shape if axes is None else [shape[a] for a in axes])
    if name in PRODUCTS_OF_UNITS | QUOTIENTS and len(energies) == 1 and len(args) > 1:
        times = 1.0 if any(map(_is_learned, args)) else _number(args[args[0] is energies[0]])
        if not times or (name in QUOTIENTS and args[0] is not energies[0]):
            return None
        return first / times if name in QUOTIENTS else first * times
    return first if name in _KEEPING else None


def _is_learned(a: Any) -> bool:
    """Whether `a` is learned, as scales and the biases that are stored in a file are."""
    if not isinstance(a, Tensor) or is_energy(a):
        return False
    return a.is_meta or is_scale(a) or hasattr(a, "stored")


def _number(a: Any) -> float | None:
    """The offset of an energy, 0 for what is learned, or a number; None for unlike ones."""
    if isinstance(a, int | float):
        return float(a)
    if not isinstance(a, Tensor) or not (is_energy(a) or a.is_floating_point()):
        return None
    if is_energy(a):
        return offset_of(a)
    if _is_learned(a):
        return 0.0
    small = compress_uniform(compress(a))
    return float(small) if small.numel() == 1 else None
