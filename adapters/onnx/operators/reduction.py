"""Reductions, sorting and cumulative sums as ONNX defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..graph import OperatorCall, integers

if TYPE_CHECKING:
    from collections.abc import Callable


def reducing(function: Callable[[Tensor, tuple[int, ...], bool], Tensor]) -> Callable[..., Tensor]:
    """An operator that reduces over `axes`, given as attribute or as input; all when absent."""

    def operator(call: OperatorCall, x: Tensor, axes: Tensor | None = None) -> Tensor:
        over = integers(axes if axes is not None else call.get("axes"))
        if not over and call.get("noop_with_empty_axes"):  # each element is reduced by itself
            return function(x, (), True) if x.ndim == 0 else function(x.unsqueeze(-1), (-1,), False)
        keep = bool(call.get("keepdims", 1))
        chosen = tuple(a % max(x.ndim, 1) for a in over) if over else tuple(range(x.ndim))
        return function(x, chosen, keep)

    return operator


def product(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    """Product over several axes; torch has it for one only."""
    for axis in sorted(axes, reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def reduce_mean(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    """Mean; that of integers is cut towards zero."""
    if x.is_floating_point():
        return x.mean(axes, keep)
    return x.double().mean(axes, keep).trunc().to(x.dtype)


def total(x: Tensor, axes: tuple[int, ...], keep: bool) -> Tensor:
    """Sum in the type of x."""
    return x.sum(axes, keep, dtype=x.dtype) if axes else x


def arg_max(call: OperatorCall, x: Tensor) -> Tensor:
    """Index of the maximum along an axis, the first or the last of equal ones."""
    axis, keep = call.get("axis", 0), bool(call.get("keepdims", 1))
    if not call.get("select_last_index"):
        return x.argmax(axis, keepdim=keep)
    from_end = x.flip(axis).argmax(axis, keepdim=keep)
    return torch.sub(x.shape[axis] - 1, from_end)


def top_k(call: OperatorCall, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k largest (or smallest) along an axis and their indices."""
    count = int(call.get("k") if k is None else k)
    largest = bool(call.get("largest", 1))
    values, places = torch.sort(x, dim=call.get("axis", -1), descending=largest, stable=True)
    axis = call.get("axis", -1)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def cumulative_sum(call: OperatorCall, x: Tensor, axis: Tensor) -> Tensor:
    """Running sum, optionally from the end, optionally without the element itself."""
    dim = int(axis)
    x = x.flip(dim) if call.get("reverse") else x
    y = torch.cumsum(x, dim, dtype=x.dtype)
    y = y - x if call.get("exclusive") else y
    return y.flip(dim) if call.get("reverse") else y


REDUCE: dict[str, Callable[..., Any]] = {
    "ReduceMean": reducing(reduce_mean),
    "ReduceSum": reducing(total),
    "ReduceMax": reducing(lambda x, axes, keep: x.amax(axes, keep)),
    "ReduceMin": reducing(lambda x, axes, keep: x.amin(axes, keep)),
    "ReduceProd": reducing(product),
    "ReduceL1": reducing(lambda x, axes, keep: total(x.abs(), axes, keep)),
    "ReduceL2": reducing(lambda x, axes, keep: total(x.square(), axes, keep).sqrt()),
    "ReduceSumSquare": reducing(lambda x, axes, keep: total(x.square(), axes, keep)),
    "ReduceLogSum": reducing(lambda x, axes, keep: total(x, axes, keep).log()),
    "ReduceLogSumExp": reducing(lambda x, axes, keep: torch.logsumexp(x, axes, keep)),
    "ArgMax": arg_max,
    "ArgMin": lambda call, x: arg_max(call, -x),
    "TopK": top_k,
    "CumSum": cumulative_sum,
}
