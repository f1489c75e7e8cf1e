"""Whether logits name a class."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def why_no_class(logits: Tensor) -> str | None:
    """Why the largest of `logits` (images, classes) means nothing, or None where it does.

    The arg-max of NaN, and of equal numbers, is a class all the same: agreement with itself.
    """
    if not bool(logits.isfinite().all()):
        return "the logits are not finite (NaN or infinite), so they name no class"
    if logits.shape[1] > 1 and bool((logits == logits[:, :1]).all()):
        return "the logits are the same for all classes, so they name no class"
    if len(logits) > 1 and bool((logits == logits[:1]).all()):
        return "the logits are the same for all images, so they say nothing of them"
    return None
