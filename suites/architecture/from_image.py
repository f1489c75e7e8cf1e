"""Filters, biases and scales of norms that a network computes from the image, written out.

Most are parameters. Those of dynamic and hyper-networks, cross-correlations and adaptive norms
depend on the image, and so are factors and terms like other units.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .mixtures import FILTERS
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_STATISTICS = ("input", "running_mean", "running_var", "weight", "bias")
_NORMS = {
    "batch_norm": (*_STATISTICS, "training", "momentum", "eps"),
    "instance_norm": (*_STATISTICS, "use_input_stats", "momentum", "eps"),
    "layer_norm": ("input", "normalized_shape", "weight", "bias", "eps"),
    "rms_norm": ("input", "normalized_shape", "weight", "eps"),
    "group_norm": ("input", "num_groups", "weight", "bias", "eps"),
}
"""The arguments of torch's norms, in order."""


def written_apart(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[..., Tensor] | None:
    """What carries out a layer of which a bias, scale or matrix depends on the image, else None."""
    if not any(map(is_energy, (*args[1:], *kwargs.values()))):
        return None
    if name in FILTERS:
        bias = FILTERS[name](*args, **kwargs).bias
        return (lambda *a, **k: _with_bias(name, *a, **k)) if is_energy(bias) else None
    if name in _NORMS:
        return lambda *a, **k: _normed(name, *a, **k)
    return _linear if name == "linear" else None


def _with_bias(name: str, *args: Any, **kwargs: Any) -> Tensor:
    call = FILTERS[name](*args, **kwargs)
    out = getattr(F, name)(**vars(replace(call, bias=None)))
    return torch.add(out, call.bias.reshape(-1, *[1] * (call.weight.ndim - 2)))


def _linear(input: Tensor, weight: Tensor, bias: Any = None) -> Tensor:  # noqa: A002 - torch's name
    out = torch.matmul(input, weight.mT) if is_energy(weight) else F.linear(input, weight)
    return out if bias is None else torch.add(out, bias)


def _normed(name: str, *args: Any, **kwargs: Any) -> Tensor:
    given = dict(zip(_NORMS[name], args, strict=False)) | kwargs
    x, scale, shift = given["input"], given.pop("weight", None), given.pop("bias", None)
    out: Tensor = getattr(F, name)(**given)
    axes = 0 if "normalized_shape" in given else x.ndim - 2
    if scale is not None:
        out = torch.mul(out, scale.reshape(*scale.shape, *[1] * axes))
    return out if shift is None else torch.add(out, shift.reshape(*shift.shape, *[1] * axes))
