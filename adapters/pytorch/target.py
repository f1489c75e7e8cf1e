"""Find the target of a module: the layer whose output is the last spatial feature map."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError, NotApplicableError, PerimetryError, UnknownNameError, unknown
from ..feature_grid import Grid, find_grid
from ..input_spec import InputSpec
from ..meta_forward import quickly
from .inputs import why_refused
from .tensors import first_float

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence


FEATURES = "forward_features"
"""Name of the target of timm models, and of any module with the same two methods."""


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised by the hook at the target to end the forward pass there."""


def locate(
    modules: Iterable[Callable[[], nn.Module]],
    spec: InputSpec,
    name: str | None,
    prefix: int | None,
    reference: str,
) -> tuple[Grid | None, bool]:
    """Find the target on the first of `modules` that runs: the layer `name`, else the last grid.

    Also return whether the module, the last of `modules`, takes one image at a time only. Raises
    `InputError`, which names the model by `reference`, when none accepts the size of `spec`.
    """
    failure, module = Exception(), nn.Module()

    def find(count: int, height: int, width: int) -> Grid | None:
        x = blank_input(module, replace(spec, height=height, width=width))[:count]
        with torch.no_grad():
            if name is None:
                return quickly(partial(find_module_target, module, x, prefix))
            return quickly(partial(named_module_target, module, x, name, prefix))

    for make in modules:
        module = make()
        try:
            return find(2, spec.height, spec.width), False
        except PerimetryError:
            raise
        except Exception as error:  # a foreign forward may raise anything
            failure = error
    with contextlib.suppress(Exception):
        return find(1, spec.height, spec.width), True
    why = why_refused(module, spec, failure, partial(find, 2))
    raise InputError(f"{reference} {why}") from failure


def blank_input(module: nn.Module, spec: InputSpec) -> Tensor:
    """Return two uniform inputs of the size, type and device of `module`."""
    first = first_float(module, torch.empty(0))
    shape = (2, spec.channels, spec.height, spec.width)
    return laid_out(torch.zeros(shape, dtype=first.dtype, device=first.device), spec)


def laid_out(x: Tensor, spec: InputSpec) -> Tensor:
    """Return `x` (batch, channels, height, width) in the order of axes of the module's input."""
    return x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x


def find_module_target(module: nn.Module, x: Tensor, prefix: int | None = None) -> Grid | None:
    """Find the last spatial feature map of `module` by one pass over `x`.

    It is the output of `forward_features` if the module has that method, else of the last module
    call, in order of completion, whose output is a grid of units.
    """
    size = (x.shape[2], x.shape[3])
    if callable(getattr(module, FEATURES, None)):
        raw = module.forward_features(x)  # type: ignore[operator]
        grid = find_grid(FEATURES, raw, size, prefix) if isinstance(raw, Tensor) else None
        if grid is not None and not _few_channels(grid):
            return grid
    found: list[Grid] = []

    def note(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _args: Any, out: Any) -> None:
            grid = find_grid(name, out, size, prefix) if isinstance(out, Tensor) else None
            if grid is not None and not _is_class_token(grid, found):
                found.append(grid)

        return hook

    with _hooks({m: note(name) for name, m in module.named_modules()}):
        module(x)
    return found[-1] if found else None


MAX_CLASS_TOKENS = 2
"""Most tokens (class, distillation) that a network gives in place of its map."""


def _few_channels(grid: Grid) -> bool:
    """Whether `grid` may be class tokens (batch, tokens, channels), their channels read as units.

    256 channels would be 16 x 16 units.
    """
    return grid.kind == "NCL" and grid.channels <= MAX_CLASS_TOKENS


def _is_class_token(grid: Grid, before: Sequence[Grid]) -> bool:
    """Whether a map in `before` has as many channels as `grid`, of few channels, has units."""
    units = grid.height * grid.width + grid.prefix
    return _few_channels(grid) and any(g.channels == units for g in before)


def named_module_target(module: nn.Module, x: Tensor, name: str, prefix: int | None = None) -> Grid:
    """Return the grid that is the output of the layer `name` for `x`.

    Raises `UnknownNameError` when there is no such layer, `NotApplicableError` when its output is
    not a grid.
    """
    if name == FEATURES and hasattr(module, FEATURES):
        raw = module.forward_features(x)  # type: ignore[operator]
    else:
        layers = dict(module.named_modules())
        if name not in layers:
            raise UnknownNameError(unknown("layer", name, layers))
        raw, _ = run_to(module, x, name, to_end=False)
    grid = find_grid(name, raw, (x.shape[2], x.shape[3]), prefix)
    if grid is None:
        raise NotApplicableError(
            f"layer {name!r} gives a tensor of shape {tuple(raw.shape)}, not a grid of units "
            f"over a {x.shape[2]} x {x.shape[3]} input; name another layer as the target"
        )
    return grid


def run_target(module: nn.Module, x: Tensor, grid: Grid) -> Tensor:
    """The raw target tensor of one pass, stopped there."""
    if grid.name == FEATURES:
        raw: Tensor = module.forward_features(x)  # type: ignore[operator]
        return raw
    return run_to(module, x, grid.name, to_end=False)[0]


def run_both(module: nn.Module, x: Tensor, grid: Grid) -> tuple[Tensor, Any]:
    """The raw target tensor and the output of one pass."""
    if grid.name == FEATURES:
        raw: Tensor = module.forward_features(x)  # type: ignore[operator]
        return raw, module.forward_head(raw)  # type: ignore[operator]
    return run_to(module, x, grid.name, to_end=True)


def run_to(module: nn.Module, x: Tensor, name: str, *, to_end: bool) -> tuple[Tensor, Any]:
    """Run `module` and return the last output of the layer `name`; with `to_end` also its own."""
    seen: list[Tensor] = []

    def hook(_module: nn.Module, _args: Any, out: Any) -> None:
        seen.append(out)
        if not to_end:
            raise _Reached

    out = None
    with _hooks({module.get_submodule(name): hook}), contextlib.suppress(_Reached):
        out = module(x)
    if not seen:
        raise NotApplicableError(f"layer {name!r} is never called in a forward pass")
    return seen[-1], out


@contextlib.contextmanager
def _hooks(hooks: Mapping[nn.Module, Callable[..., None]]) -> Iterator[None]:
    """Register forward hooks, and remove them at the end."""
    handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def first_logits(out: Any) -> Tensor | None:
    """Return the first (batch, classes) tensor in a module's output, or None."""
    if isinstance(out, Tensor):
        return out if out.ndim == 2 else None
    if dataclasses.is_dataclass(out) and not isinstance(out, dict):
        out = vars(out)
    values = out.values() if isinstance(out, dict) else out if isinstance(out, tuple | list) else ()
    return next((v for v in values if isinstance(v, Tensor) and v.ndim == 2), None)
