"""Weights of a module: their hash, and the seeded initial state made fit for auditing."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn


def tensors_digest(module: nn.Module) -> str:
    """Sha256 over names, types, shapes and bytes of all entries of the state dict."""
    digest = hashlib.sha256()
    for name, value in module.state_dict().items():
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)};".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()


def set_scales_to_one(module: nn.Module) -> None:
    """Set norm and layer scales to 1, so that zero-initialised residual branches do not hide.

    A scale is a parameter with at most one axis, not a bias, whose entries are all the same.
    """
    with torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.modules.conv._ConvNd | nn.Linear):
                continue
            for name, p in layer.named_parameters(recurse=False):
                if p.ndim <= 1 and "bias" not in name and bool((p == p.flatten()[0]).all()):
                    p.fill_(1.0)


def calibrate_norms(module: nn.Module, x: Tensor) -> None:
    """Set the running statistics of every batch norm to those of `x` (batch, ...), in one pass."""
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    try:
        with torch.no_grad():
            module(x)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.eval()
            norm.momentum = momentum
