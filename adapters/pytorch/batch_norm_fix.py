"""Input gradients of norms at batch 1, which torch's CPU kernels can get wrong.

Batch and instance norm return wrong input gradients at batch 1 when the incoming gradient is
strided (seen with torch 2.13 and 2.15), and when it is contiguous but the step from image to image
of a channels-last input is not the size of one, as where images were folded into the channels (seen
with torch 2.14).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from ..torch_calls import FunctionMode

if TYPE_CHECKING:
    from torch import Tensor


_NORMS = (F.batch_norm, torch.batch_norm, F.instance_norm, torch.instance_norm)


class _ContiguousNormGradients(FunctionMode):
    """Makes the gradient that reaches a norm's backward contiguous, and its input where needed."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the gradient contiguous if `func` is a norm, and an input of folded images."""
        if func not in _NORMS:
            return func(*args, **kwargs)
        if args and len(args[0]) == 1 and args[0].stride(0) != args[0].numel():
            args = (args[0].clone(memory_format=torch.contiguous_format), *args[1:])
        out = func(*args, **kwargs)
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient.contiguous())
        return out


def contiguous_norm_gradients(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Return a guard for a pass over `x` (batch, ...) where torch's gradients can be wrong."""
    at_risk = x.requires_grad and x.shape[0] == 1 and x.device.type == "cpu"
    return _ContiguousNormGradients() if at_risk else contextlib.nullcontext()
