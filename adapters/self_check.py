"""Checks of an installation for `perimetry doctor` that use internals of the adapters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from .onnx.session import Session, providers
from .pytorch.batch_norm_fix import contiguous_norm_gradients

if TYPE_CHECKING:
    import onnx


def onnx_providers(proto: onnx.ModelProto, output: str, device: str) -> tuple[str, str]:
    """The execution provider that audits request for `device`, and the one onnxruntime uses.

    `proto` is a graph to open, `output` the name of a tensor of it.
    """
    place = torch.device(device)
    return providers(place)[0], Session(proto, [output], device=place).provider


def batch_norm_gradient_error(*, guarded: bool) -> float:
    """Relative error of a batch norm's input gradient at batch 1, for a strided incoming gradient.

    The right answer is known: in evaluation the norm multiplies each channel by a constant. With
    `guarded` the pass has the fix that every pass of a model has.
    """
    made = torch.Generator().manual_seed(0)
    x = torch.randn(1, 16, 7, 7, generator=made).requires_grad_()
    variance = torch.rand(16, generator=made) + 0.5
    with contiguous_norm_gradients(x if guarded else x.detach()):
        y = F.batch_norm(x, torch.zeros(16), variance, None, None, False, 0.0, 0.0)
    incoming = torch.randn(1, 49, 16, generator=made).transpose(1, 2).reshape(1, 16, 7, 7)
    (found,) = torch.autograd.grad(y, x, incoming)
    right = incoming / variance.sqrt().view(1, -1, 1, 1)
    return float((found - right).norm() / right.norm())
