"""Watching the operators of one pass of a torch module, by the layers that call them."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..torch_calls import running_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class _Watch(TorchDispatchMode):
    """Calls `read(step, output, random)` after every operator."""

    def __init__(
        self, layers: list[tuple[str, nn.Module]], read: Callable[[str, Tensor, bool], None]
    ) -> None:
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
            of, layer = self.layers[-1][0], type(self.layers[-1][1]).__name__
            where = f"layer {of!r} ({layer})" if of else f"the forward of {layer}"
            self.read(f"operator {name} of {where}", first, random)
        return out


@contextlib.contextmanager
def watched(module: nn.Module, read: Callable[[str, Tensor, bool], None]) -> Iterator[None]:
    """Call `read(step, output, random)` for every operator of the passes in this context.

    `step` names the operator and the layer that calls it, `output` is its first output; `random`
    says whether it draws random numbers.
    """
    layers: list[tuple[str, nn.Module]] = [("", module)]
    with running_layers(module, layers), _Watch(layers, read):
        yield
