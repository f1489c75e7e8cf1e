"""Copies of a module, the types of its tensors and their memory order."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


M = TypeVar("M", bound=nn.Module)

COMPLEX = {torch.float32: torch.complex64, torch.float64: torch.complex128}
"""The complex type that goes with a float type."""


def copy_module(module: M, memo: dict[int, Any] | None = None) -> M:
    """Return a deep copy of `module`; tensors computed by a pass with gradients are detached.

    `torch.nn.utils.weight_norm`, `spectral_norm` and caches of activations leave such tensors,
    which `copy.deepcopy` refuses (https://github.com/pytorch/pytorch/issues/28594).
    """
    memo = {} if memo is None else memo
    for layer in module.modules():
        for tensor in _computed(vars(layer)):
            memo.setdefault(id(tensor), tensor.detach().clone())
    return copy.deepcopy(module, memo)


def frozen_copy(module: nn.Module) -> nn.Module:
    """A copy on the CPU, in evaluation. Raises `InputError` if it cannot be copied."""
    try:
        copied = copy_module(module)
    except Exception as error:
        raise InputError(
            f"{type(module).__name__} cannot be copied ({type(error).__name__}: {error}); an audit "
            "works on a copy, so that the module stays as it is"
        ) from error
    if {*map(id, copied.modules())} & {*map(id, module.modules())}:
        raise InputError(
            f"a copy of {type(module).__name__} has layers of the original; an audit needs a copy "
            "of its own: give it a __deepcopy__ that copies its layers"
        )
    return copied.cpu().eval().requires_grad_(False)


def _computed(value: Any) -> Iterator[Tensor]:
    """The tensors in `value`, and in lists and tables there, that are results of a graph."""
    if isinstance(value, Tensor):
        if not value.is_leaf:
            yield value
    elif isinstance(value, dict | list | tuple | set):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _computed(item)


def cast_module(module: M, device: torch.device, dtype: torch.dtype) -> M:
    """Move `module` to `device`; floats become `dtype`, complex numbers its complex counterpart.

    (`module.to(device, dtype)` drops the imaginary parts.)
    """

    def cast(tensor: Tensor) -> Tensor:
        if tensor.is_complex():
            return tensor.to(device, COMPLEX[dtype])
        return tensor.to(device, dtype) if tensor.is_floating_point() else tensor.to(device)

    _apply(module, cast)
    return module


def has_complex(module: nn.Module) -> bool:
    """Whether a parameter or a buffer of `module` is complex."""
    return any(t.is_complex() for t in (*module.parameters(), *module.buffers()))


def first_float(module: nn.Module, default: Tensor) -> Tensor:
    """The first parameter, else buffer, of real floats: its device and type are the input's."""
    tensors = (*module.parameters(), *module.buffers())
    return next((t for t in tensors if t.is_floating_point()), default)


def order_kernels(module: nn.Module, order: torch.memory_format) -> None:
    """Store all parameters and buffers with four axes in the memory order `order`, in place."""
    _apply(module, lambda t: t.contiguous(memory_format=order) if t.ndim == 4 else t)


def _apply(module: Any, change: Callable[[Tensor], Tensor]) -> None:
    """Replace every tensor of `module`, as `module.to` does."""
    module._apply(change)
