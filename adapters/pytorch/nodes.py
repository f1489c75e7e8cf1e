"""A pass of a torch module layer by layer: every output, and every layer by itself.

A node is a call of a layer that gives one tensor of floats; calls of one layer are distinguished by
their number (`relu`, `relu#2`). A container whose output is that of its last layer is left out.
What is computed between layers (sums of residual blocks, attention) belongs to the layer around it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..model import NodeOutput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def node_outputs(module: nn.Module, run: Callable[[], Any]) -> dict[str, NodeOutput]:
    """The output of every call of a layer in `run()`, a pass of `module`, in execution order."""
    found: dict[str, NodeOutput] = {}
    last: list[Any] = [None, None]

    def read(name: str, layer: nn.Module, out: Tensor) -> None:
        if out is last[0] and torch.equal(out, last[1]):
            return
        last[:] = out, out.detach().clone()
        found[name] = NodeOutput(type(layer).__name__, last[1].float().cpu())

    _watch(module, run, read)
    return found


def fed_outputs(
    module: nn.Module, run: Callable[[], Any], values: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """The outputs of the calls in `values`, each of which hands its value there on."""
    found: dict[str, Tensor] = {}

    def swap(name: str, _layer: nn.Module, out: Tensor) -> Tensor | None:
        if name not in values:
            return None
        found[name] = out.detach().float().cpu().clone()
        return values[name].to(out.device, out.dtype, copy=True).reshape(out.shape)

    _watch(module, run, swap)
    return found


def _watch(
    module: nn.Module,
    run: Callable[[], Any],
    read: Callable[[str, nn.Module, Tensor], Tensor | None],
) -> None:
    """Call `read(call, layer, output)` after every call; what it returns replaces the output."""
    calls: Counter[str] = Counter()

    def hook_of(name: str) -> Callable[..., Tensor | None]:
        def hook(layer: nn.Module, _args: Any, out: Any) -> Tensor | None:
            if not isinstance(out, Tensor) or not out.is_floating_point():
                return None
            calls[name] += 1
            call = name if calls[name] == 1 else f"{name}#{calls[name]}"
            return read(call, layer, out)

        return hook

    handles = [
        layer.register_forward_hook(hook_of(name or "output"))
        for name, layer in module.named_modules()
    ]
    try:
        with torch.no_grad():
            run()
    finally:
        for handle in handles:
            handle.remove()
