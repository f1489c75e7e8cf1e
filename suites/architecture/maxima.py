"""Maxima of maxima, and max-pools of max-pools, which are counted together.

Each of n entries is the largest with probability 1/n. The maximum of a and of the maximum of b and
c is the largest of three, and not of two; and a unit that two overlapping windows share is one
entry of the pool behind them. So the second function is replaced by one of all that the first read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...adapters.torch_calls import MaxPool
from .in_place import latest
from .mixtures import BOUNDED, LARGEST, MAX_POOLS, MAXIMA_OF_UNITS, SMALLEST
from .rule_table import is_energy
from .windows import pool_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

MAXIMA = MAX_POOLS | MAXIMA_OF_UNITS
"""Functions that keep one of several entries."""

_MADE = "largest_of"


@dataclass(frozen=True)
class _Largest:
    """What a tensor is the largest, or smallest, of: `sources` at these versions."""

    kind: frozenset[str]
    sources: tuple[Tensor, ...]
    versions: tuple[int, ...]
    pool: MaxPool | None = None

    def current(self) -> bool:
        """Whether no source has been changed in place since."""
        kept = all(latest(t, [t]) is t for t in self.sources)
        return kept and self.versions == tuple(t._version for t in self.sources)


@dataclass(frozen=True)
class OneCall:
    """The name and arguments of one function in place of two; `written` if torch has none."""

    name: str
    args: tuple[Any, ...]
    written: Callable[..., Tensor] | None = None


def mark_largest(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the result `out` of the function `name` what it is the largest of."""
    if name not in MAXIMA or not isinstance(out, Tensor) or not is_energy(out):
        return
    pool = MaxPool(*args, **kwargs) if name in MAX_POOLS else None
    kind, sources = _compared(name, args, kwargs) if pool is None else (MAX_POOLS, (pool.input,))
    if sources:
        versions = tuple(t._version for t in sources)
        setattr(out, _MADE, _Largest(kind, sources, versions, pool))


def counted_together(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[OneCall | None, str | None]:
    """What takes the place of a call; or what is assumed if it stays, although it follows one."""
    if name in MAX_POOLS:
        return _pools(name, MaxPool(*args, **kwargs))
    return _maxima(name, *_compared(name, args, kwargs))


def _made(x: Any) -> _Largest | None:
    return getattr(x, _MADE, None)


def _compared(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[frozenset[str], tuple[Tensor, ...]]:
    """The kind of a maximum and its energies; none if an argument is no energy."""
    kind = SMALLEST if name in SMALLEST else LARGEST
    given = (*args, *kwargs.values())
    if name in BOUNDED:
        x, low, high = (*args, None, None)[:3]
        low, high = kwargs.get("min", low), kwargs.get("max", high)
        kind = LARGEST if high is None else SMALLEST
        given = (x, *(bound for bound in (low, high) if bound is not None))
        given = given if len(given) == 2 else ()
    return kind, given if len(given) > 1 and all(map(is_energy, given)) else ()


def _pools(name: str, call: MaxPool) -> tuple[OneCall | None, str | None]:
    before = _made(call.input)
    if before is None or before.pool is None:
        return None, None
    axes = call.input.ndim - 2
    first, second = pool_windows(before.pool, axes), pool_windows(call, axes)
    if not any(w.overlap for w in first):
        return None, None  # no unit is read twice
    if all(w.stride == w.dilation == 1 for w in (*first, *second)) and before.current():
        pairs = list(zip(first, second, strict=True))
        kernel = [a.kernel + b.kernel - 1 for a, b in pairs]
        padding = [a.before + b.before for a, b in pairs]
        return OneCall(name, (*before.sources, kernel, 1, padding)), None
    return None, "a max-pool finds no unit twice in the overlapping windows of the one before it"


def _maxima(
    name: str, kind: frozenset[str], compared: tuple[Tensor, ...]
) -> tuple[OneCall | None, str | None]:
    found = [(t, made) for t in compared if (made := _made(t)) and made.pool is None]
    if not found:
        return None, None
    if not all(made.kind is kind and made.current() for _, made in found):
        return (
            None,
            f"each argument of {name!r} is as likely, also the one that was compared before",
        )
    known = {id(t): made.sources for t, made in found}
    sources = {id(s): s for t in compared for s in known.get(id(t), (t,))}
    largest = "maximum" if kind is LARGEST else "minimum"
    return OneCall(largest, tuple(sources.values()), _largest), None


def _largest(*sources: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(*sources)).amax(0)
