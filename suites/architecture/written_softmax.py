"""Softmaxes that are written out, as exponentials over their sum, and masks of attention.

Both are constants, as attention is. A mask takes the energy of logits; so does a key that is zero,
as where a map was padded, which a softmax reads like others. Tensors remember whether some of their
zeros may be a mask's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from .compact import forget
from .mixtures import PRODUCTS_OF_UNITS, QUOTIENTS, SUMS, argument, summed_axes
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_EXPONENTIAL, _SUM = "exponential_at", "sum_of_exponentials"

_MASKED = "masked"

_MASKING = frozenset({"masked_fill", "where", "setitem", "tril", "triu"})
"""Functions that may take the energy of some logits."""


def is_masked(logits: Tensor) -> bool:
    """Whether zeros among the `logits` may be those of a mask."""
    return hasattr(logits, _MASKED)


def mark_masked(logits: Tensor) -> Tensor:
    """Remember that zeros among the `logits` may be those of a mask; return them."""
    setattr(logits, _MASKED, True)
    return logits


def pass_on_masks(name: str, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Remember of the `results` of a function of `tensors` whether they may be masked."""
    if name in _MASKING or any(map(is_masked, tensors)):
        for out in filter(is_energy, results):
            mark_masked(out)


def mark_softmax(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the result `out` whether it holds exponentials, or their sums along an axis."""
    x = args[0] if args else None
    if not isinstance(out, Tensor) or not isinstance(x, Tensor) or not is_energy(x) or out is x:
        return
    forget(out, _EXPONENTIAL, _SUM)
    exponential = getattr(x, _EXPONENTIAL, None) == x._version
    masked = exponential and _masks(name, args)
    if masked:
        mark_masked(out)
    if name == "exp" or masked:
        setattr(out, _EXPONENTIAL, out._version)
    elif name == "sum" and exponential:
        axes = summed_axes(args, kwargs)
        kept = argument(args, kwargs, 2, "keepdim")
        if axes and len(axes) == 1:
            setattr(out, _SUM, (x, x._version, axes[0], bool(kept)))
    elif hasattr(x, _SUM):
        source, version, axis, kept = getattr(x, _SUM)
        widened = name in {"unsqueeze", "getitem"} and out.ndim == source.ndim and not kept
        same = name in SUMS and not any(map(is_energy, args[1:])) and out.shape == x.shape
        if same or (widened and out.shape[axis] == 1):
            setattr(out, _SUM, (source, version, axis, kept or widened))


def _masks(name: str, args: Sequence[Any]) -> bool:
    """Whether the function leaves some exponentials out, and keeps the others as they are."""
    if name == "masked_fill":
        return len(args) > 2 and isinstance(args[2], int | float) and args[2] == 0
    mask = args[1] if len(args) > 1 else None
    if name not in PRODUCTS_OF_UNITS or not isinstance(mask, Tensor) or mask.is_meta:
        return False
    return not is_energy(mask) and bool(((mask == 0) | (mask == 1)).all())


def as_softmax(name: str, args: Sequence[Any]) -> Callable[..., Tensor] | None:
    """The softmax in place of a quotient of exponentials and their sum."""
    x, divisor = args[:2] if len(args) > 1 else (None, None)
    source, version, axis, kept = getattr(divisor, _SUM, (None, 0, 0, False))
    if name not in QUOTIENTS or source is None or source is not x or not kept:
        return None
    return (lambda t, _: F.softmax(t, axis)) if version == x._version else None
