"""Functions of torch that are written out by others, which have energy rules.

Their terms may share units. Each takes the arguments of the torch function, and its calls of torch
are carried out like those of the network.
"""

from __future__ import annotations

from dataclasses import replace
from math import pi, prod
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...adapters.errors import NotApplicableError
from ...adapters.torch_calls import Attention
from .rule_table import is_energy
from .written_moves import MOVES_WRITTEN_OUT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def _sum(a: Any, b: Any, beta: float, alpha: float) -> Tensor:
    """`beta` a + `alpha` b."""
    found: Tensor = torch.add(torch.mul(a, beta), torch.mul(b, alpha))
    return found


def _plus_product(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _sum(x, torch.matmul(a, b), beta, alpha)


def _plus_products(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _sum(x, torch.sum(torch.matmul(a, b), 0), beta, alpha)


def _plus_outer(x: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    return _sum(x, _outer(a, b), beta, alpha)


def _plus_scaled(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return _sum(x, torch.mul(a, b), 1, value)


def _plus_quotient(x: Tensor, a: Tensor, b: Tensor, *, value: float = 1) -> Tensor:
    return _sum(x, torch.div(a, b), 1, value)


def _between(a: Tensor, b: Tensor, weight: Any) -> Tensor:
    rest = torch.rsub(weight, 1) if isinstance(weight, Tensor) else 1 - weight
    return torch.add(torch.mul(a, rest), torch.mul(b, weight))


def _with_mean(statistic: Callable[..., Any]) -> Callable[..., Any]:
    """The statistic and the mean along the same axes."""

    def both(x: Tensor, dim: Any = None, *rest: Any, keepdim: bool = False, **_: Any) -> Any:
        kept = bool(rest[1]) if len(rest) > 1 else keepdim
        return statistic(x, dim, keepdim=kept), torch.mean(x, dim, kept)

    return both


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return torch.mul(a.unsqueeze(1), b)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    if not a.ndim or not b.ndim:
        return torch.mul(a, b)
    found: Tensor = torch.tensordot(a, b, dims=([-1], [-1]))
    return found


def _tensordot(a: Tensor, b: Tensor, dims: Any = 2, **_: Any) -> Tensor:
    """A product of two matrices, to which the axes that are summed are moved last and first."""
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        dims = (list(range(a.ndim - dims, a.ndim)), list(range(dims)))
    first, second = ([d % t.ndim for d in axes] for t, axes in zip((a, b), dims, strict=True))
    left = [d for d in range(a.ndim) if d not in first]
    right = [d for d in range(b.ndim) if d not in second]
    count = prod(a.shape[d] for d in first)
    rows = a.permute(*left, *first).reshape(-1, count)
    columns = b.permute(*second, *right).reshape(count, -1)
    return torch.matmul(rows, columns).reshape(
        [*(a.shape[d] for d in left), *(b.shape[d] for d in right)]
    )


def _product_of_all(tensors: Sequence[Tensor]) -> Tensor:
    found, *others = tensors
    for other in others:
        found = torch.matmul(found, other)
    return found


def _kronecker(a: Tensor, b: Tensor) -> Tensor:
    axes = max(a.ndim, b.ndim)
    one, two = (t.reshape([1] * (axes - t.ndim) + list(t.shape)) for t in (a, b))
    for d in range(axes):
        one, two = one.unsqueeze(2 * d + 1), two.unsqueeze(2 * d)
    found = torch.mul(one, two)
    return found.reshape([prod(found.shape[2 * d : 2 * d + 2]) for d in range(axes)])


def _diff(x: Tensor, n: int = 1, dim: int = -1, prepend: Any = None, append: Any = None) -> Tensor:
    parts = [t for t in (prepend, x, append) if t is not None]
    x = torch.cat(parts, dim) if len(parts) > 1 else x
    for _ in range(n):
        count = x.shape[dim] - 1
        x = torch.sub(x.narrow(dim, 1, count), x.narrow(dim, 0, count))
    return x


def _along(x: Tensor, dim: int, matrix: Tensor) -> Tensor:
    """The lines of `x` along `dim` times a matrix (inputs, outputs) or a vector (inputs,)."""
    found = torch.matmul(x.movedim(dim, -1), matrix)
    return found.movedim(-1, dim) if matrix.ndim > 1 else found


def _integral(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.trapezoid` and such, at places that are the same for all lines."""

    def integrated(y: Tensor, x: Any = None, *, dx: float = 1, dim: int = -1) -> Tensor:
        if x is not None and (is_energy(x) or x.ndim > 1):
            raise NotApplicableError("its steps depend on the image, or differ from line to line")
        steps = {"dx": dx} if x is None else {"x": x.to(torch.float64)}
        units = torch.eye(y.shape[dim], dtype=torch.float64)  # (inputs, lines)
        return _along(y, dim, function(units, **steps))

    return integrated


def _gradient(x: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> list[Tensor]:
    if not isinstance(spacing, int | float):
        raise NotApplicableError("its steps are not one number")
    found = []
    for d in range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim:
        units = torch.eye(x.shape[d], dtype=torch.float64)
        (matrix,) = torch.gradient(units, spacing=spacing, dim=-1, edge_order=edge_order)
        found.append(_along(x, d, matrix))
    return found


def _sum_to_size(x: Tensor, *size: Any) -> Tensor:
    size = tuple(size[0]) if len(size) == 1 and not isinstance(size[0], int) else size
    first = x.ndim - len(size)
    axes = [d for d in range(x.ndim) if d < first or size[d - first] != x.shape[d]]
    return torch.sum(x, axes, keepdim=True).reshape(size) if axes else x


def attention_of_groups(*args: Any, **kwargs: Any) -> Tensor:
    """Attention in which several heads of queries read one of keys and values."""
    call = Attention(*args, **kwargs)
    heads = call.query.shape[-3]
    key, value = (t.repeat_interleave(heads // t.shape[-3], -3) for t in (call.key, call.value))
    alike = replace(call, key=key, value=value, enable_gqa=False)
    return F.scaled_dot_product_attention(**vars(alike))


WRITTEN_OUT: dict[str, Callable[..., Any]] = {
    "addmm": _plus_product,
    "addmv": _plus_product,
    "baddbmm": _plus_product,
    "addbmm": _plus_products,
    "addr": _plus_outer,
    "addcmul": _plus_scaled,
    "addcdiv": _plus_quotient,
    "lerp": _between,
    "var_mean": _with_mean(torch.var),
    "std_mean": _with_mean(torch.std),
    "negative": lambda x: torch.neg(x),
    "deg2rad": lambda x: torch.mul(x, pi / 180),
    "rad2deg": lambda x: torch.mul(x, 180 / pi),
    "outer": _outer,
    "ger": _outer,
    "inner": _inner,
    "dot": _inner,
    "vdot": _inner,
    "mv": lambda x, vec: torch.matmul(x, vec),
    "linalg_matmul": lambda x, other: torch.matmul(x, other),
    "linalg_multi_dot": _product_of_all,
    "linalg_vecdot": lambda x, y, dim=-1: torch.sum(torch.mul(x, y), dim),
    "tensordot": _tensordot,
    "kron": _kronecker,
    "trace": lambda x: torch.sum(torch.diagonal(x)),
    "nansum": lambda x, *args, **named: torch.sum(x, *args, **named),
    "nanmean": lambda x, *args, **named: torch.mean(x, *args, **named),
    "sum_to_size": _sum_to_size,
    "diff": _diff,
    "trapezoid": _integral(torch.trapezoid),
    "trapz": _integral(torch.trapezoid),
    "cumulative_trapezoid": _integral(torch.cumulative_trapezoid),
    "gradient": _gradient,
    "softmin": lambda x, dim=None, **_: F.softmax(torch.neg(x), dim),
    **MOVES_WRITTEN_OUT,
}
"""By the name of the function in torch, without underscores at its ends."""
