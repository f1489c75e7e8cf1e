"""Watching the operators of one pass of a torch module, by the layers that call them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Watch(TorchDispatchMode):
    """Calls `read(step, output, random)` after every operator."""

    def __init__(self, layers: list[str], read: Callable[[str, Tensor, bool], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers = layers
        self.read = read

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        del types
        out = func(*args, **(kwargs or {}))
        first = out[0] if isinstance(out, tuple | list) and out else out
        if isinstance(first, Tensor):
            random = torch.Tag.nondeterministic_seeded in func.tags
            name = func.overloadpacket.__name__
            self.read(f"operator {name} of {self.layers[-1]}", first, random)
        return out


@contextlib.contextmanager
def watched(module: nn.Module, read: Callable[[str, Tensor, bool], None]) -> Iterator[None]:
    """Call `read(step, output, random)` for every operator of the passes in this context.

    `step` names the operator and the layer that calls it, `output` is its first output; `random`
    says whether it draws random numbers.
    """
    layers = [f"the forward of {type(module).__name__}"]

    def enter(name: str) -> Callable[..., None]:
        return lambda layer, _args: layers.append(f"layer {name!r} ({type(layer).__name__})")

    def leave(*_: Any) -> None:
        layers.pop()

    handles = []
    for name, layer in module.named_modules():
        if name:
            handles.append(layer.register_forward_pre_hook(enter(name)))
            handles.append(layer.register_forward_hook(leave))
    try:
        with _Watch(layers, read):
            yield
    finally:
        for handle in handles:
            handle.remove()
