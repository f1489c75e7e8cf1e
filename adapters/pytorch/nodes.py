"""A pass of a torch module, layer by layer and operator by operator.

`layer_outputs` gives every output, `fed_layer_outputs` every layer by itself, `record_stages` the
maps by resolution; `watched` shows every operator.

A node is a call of a layer that gives one tensor of floats; calls of one layer are distinguished by
their number (`relu`, `relu#2`). A container whose output is that of its last layer is left out.
What is computed between layers (sums of residual blocks, attention) belongs to the layer around it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ..feature_grid import Grid, StageCollector, find_grid
from ..model import NodeOutput, Outputs
from ..torch_calls import running_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


def layer_outputs(module: nn.Module, run: Callable[[], Any]) -> dict[str, NodeOutput]:
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


def fed_layer_outputs(
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

    def count(name: str, layer: nn.Module, out: Any) -> Tensor | None:
        if not isinstance(out, Tensor) or not out.is_floating_point():
            return None
        name = name or "output"
        calls[name] += 1
        return read(name if calls[name] == 1 else f"{name}#{calls[name]}", layer, out)

    with _reading(module, count), torch.no_grad():
        run()


@contextlib.contextmanager
def _reading(
    module: nn.Module, read: Callable[[str, nn.Module, Any], Tensor | None]
) -> Iterator[None]:
    """Call `read(name, layer, output)` after every forward; what it returns replaces the output."""

    def hook_of(name: str) -> Callable[..., Tensor | None]:
        return lambda layer, _args, out: read(name, layer, out)

    handles = [layer.register_forward_hook(hook_of(name)) for name, layer in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def layers_by_image(module: nn.Module, run: Callable[[int], Any]) -> frozenset[str]:
    """Names of the layers that give one entry per image; `run` passes `count` images.

    A bias table has a first axis, too, which may be as long as one batch, but not as two.
    """
    return _layers_as_long(module, run, 2) & _layers_as_long(module, run, 3)


def _layers_as_long(module: nn.Module, run: Callable[[int], Any], count: int) -> frozenset[str]:
    """Names of the layers that give `count` entries for `count` images."""
    names: set[str] = set()

    def note(name: str, _layer: nn.Module, out: Any) -> None:
        if isinstance(out, Tensor) and out.ndim and len(out) == count:
            names.add(name)

    with _reading(module, note), torch.no_grad():
        run(count)
    return frozenset(names)


def record_stages(
    module: nn.Module,
    run: Callable[[], Outputs],
    x: Tensor,
    target: Grid,
    layers: frozenset[str] | None,
) -> dict[str, Tensor]:
    """Maps (batch, channels, height, width) by layer name; see `Model.stages`.

    `run` passes `x` (batch, channels, height, width) through `module` up to `target`. Outputs of
    `layers` are read, or of all.
    """
    found: StageCollector[tuple[str, Tensor]] = StageCollector()

    def note(name: str, _layer: nn.Module, out: Any) -> None:
        known = layers is None or name in layers
        if known and isinstance(out, Tensor) and len(out) == len(x):
            grid = find_grid(name, out, (x.shape[2], x.shape[3]))
            if grid is not None:
                found.add(grid, (name, grid.read(out)))

    with _reading(module, note), torch.no_grad():
        out = run().target
    assert out is not None  # noqa: S101 - there is a target
    return dict(found.end(target, (target.name, out)))


def module_filters(module: nn.Module) -> dict[str, Tensor]:
    """Weights (out, in per group, rows, columns) of the 2-D convolutions of `module`, by name."""
    return {
        name: layer.weight.detach().to("cpu", torch.float32, copy=True)
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Conv2d)
    }


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
