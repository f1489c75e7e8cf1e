"""Functions that are sums and products of others, written out: their terms may share units.

Each takes the function that carries out a call, and then the arguments of the torch function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    Call = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]


def _sum(call: Call, *terms: tuple[Any, Any]) -> Tensor:
    """The sum of two tensors, each times its factor."""
    one, other = (call(torch.mul, term, {}) for term in terms)
    out: Tensor = call(torch.add, (one, other), {})
    return out


def _plus_product(
    call: Call, x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1
) -> Tensor:
    return _sum(call, (x, beta), (call(torch.matmul, (a, b), {}), alpha))


def _plus_scaled(call: Call, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return _sum(call, (x, 1), (call(torch.mul, (a, b), {}), value))


def _plus_quotient(call: Call, x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return _sum(call, (x, 1), (call(torch.div, (a, b), {}), value))


def _rest(call: Call, weight: Any) -> Any:
    return call(torch.rsub, (weight, 1), {}) if isinstance(weight, torch.Tensor) else 1 - weight


def _between(call: Call, a: Tensor, b: Tensor, weight: Any) -> Tensor:
    return _sum(call, (a, _rest(call, weight)), (b, weight))


WRITTEN_OUT: dict[str, Callable[..., Tensor]] = {
    "addmm": _plus_product,
    "baddbmm": _plus_product,
    "addcmul": _plus_scaled,
    "addcdiv": _plus_quotient,
    "lerp": _between,
}
"""By the name of the function in torch, without underscores at its ends."""
