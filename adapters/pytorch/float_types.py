"""Modules that cast by themselves: layers of several float types, between which `forward` casts.

All layers of an audited module have one type. A cast to another one in `forward` then meets weights
that have it no more: such layers cast their input back to the type of their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from .tensors import first_float

if TYPE_CHECKING:
    from collections.abc import Mapping


MOST_NAMES = 4


@dataclass(frozen=True)
class CastInput:
    """A forward pre-hook that gives a layer its input in the type of its weights.

    `given` is the type that the layer had before the audit.
    """

    given: torch.dtype

    def __call__(self, layer: nn.Module, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Return the arguments with which the layer is called instead."""
        own = first_float(layer, torch.empty(0)).dtype

        def cast(value: Any) -> Any:
            real = isinstance(value, Tensor) and value.is_floating_point()
            return value.to(own) if real and value.dtype != own else value

        return tuple(map(cast, args)), {name: cast(value) for name, value in kwargs.items()}


def other_types(module: nn.Module, dtype: torch.dtype) -> dict[str, torch.dtype]:
    """The layers with weights or buffers of another float type than `dtype`, by name."""
    found = {}
    for name, layer in module.named_modules():
        own = chain(layer.parameters(recurse=False), layer.buffers(recurse=False))
        types = [t.dtype for t in own if t.is_floating_point() and t.dtype != dtype]
        if types:
            found[name] = types[0]
    return found


def cast_inputs(module: nn.Module, others: Mapping[str, torch.dtype]) -> None:
    """Let the layers `others` of `module`, whose types are those they had, cast their input."""
    for name, given in others.items():
        module.get_submodule(name).register_forward_pre_hook(CastInput(given), with_kwargs=True)


def cast_note(module: nn.Module, dtype: torch.dtype) -> list[str]:
    """A note on the layers that had another type and cast their input; none if there are none."""
    named = _cast_layers(module)
    return [f"computed in {_name(dtype)}, as all layers are: {named}"] if named else []


def cast_clause(module: nn.Module) -> str:
    """What is said of such a module that does not run; nothing of others."""
    named = _cast_layers(module)
    if not named:
        return ""
    return (
        f"; all layers are computed in one float type, and {named} had another: if its forward "
        "casts by itself, give a module whose layers have one type, and whose forward does not cast"
    )


def _cast_layers(module: nn.Module) -> str:
    """The layers that cast their input, and the types that they had."""
    found = [
        f"{name or type(layer).__name__} ({_name(hook.given)})"
        for name, layer in module.named_modules()
        for hook in layer._forward_pre_hooks.values()
        if isinstance(hook, CastInput)
    ]
    more = f" and {len(found) - MOST_NAMES} more" if len(found) > MOST_NAMES else ""
    return ", ".join(found[:MOST_NAMES]) + more


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
