"""Kernels with taps that are 0 in every filter: a mask that was multiplied into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def count_zero_taps(weight: Tensor) -> str | None:
    """What is to be said of a stored kernel (out, in, *taps) in which some taps are always 0."""
    if weight.ndim < 3 or weight.is_meta or not weight.numel():
        return None
    zero = (weight.detach().flatten(2) == 0).flatten(0, 1).all(0)
    count = int(zero.sum())
    if not 0 < count < len(zero):
        return None
    return f"a kernel of which {count} of {len(zero)} taps are 0 in every filter is random weights"
