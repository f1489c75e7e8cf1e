"""Feature maps of a torch module by resolution, and the kernels of its convolutions."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..feature_grid import Grid, StageCollector, find_grid
from ..model import Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def _every_grid(
    module: nn.Module, x: Tensor, found: StageCollector[tuple[str, Tensor]]
) -> Iterator[None]:
    """Record every layer whose output is a grid of units for each image of `x`."""
    size = (x.shape[2], x.shape[3])

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            if isinstance(out, Tensor) and len(out) == len(x):
                grid = find_grid(name, out, size)
                if grid is not None:
                    found.add(grid, (name, grid.read(out)))

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def record_stages(
    module: nn.Module, run: Callable[[], Outputs], x: Tensor, target: Grid
) -> dict[str, Tensor]:
    """Maps (batch, channels, height, width) by layer name; see `Model.stages`.

    `run` passes `x` (batch, channels, height, width) through `module` up to `target`.
    """
    found: StageCollector[tuple[str, Tensor]] = StageCollector()
    with _every_grid(module, x, found), torch.no_grad():
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
