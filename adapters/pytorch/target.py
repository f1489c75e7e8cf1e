"""Find the target of a module, by the rule of `adapters.target_rule` or by name, and run to it."""

from __future__ import annotations

import contextlib
import dataclasses
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from ..blocks import Blocks, find_blocks
from ..errors import InputError, NotApplicableError, PerimetryError, UnknownNameError, unknown
from ..feature_grid import Grid, TargetChoice, find_grid
from ..input_spec import InputSpec
from ..meta_forward import quickly
from ..target_rule import Way, named_by_user
from .capture import base_name, capture
from .checkpointing import without_checkpointing
from .float_types import cast_clause
from .inputs import why_refused
from .tensors import first_float
from .trace_steps import Trace, trace_way

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


FEATURES = "forward_features"
"""Name of the target of timm models, and of any module with the same two methods."""


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
        with torch.no_grad(), without_checkpointing():
            if name is None:
                return quickly(partial(find_module_target, module, x, (height, width), prefix))
            return quickly(partial(named_module_target, module, x, (height, width), name, prefix))

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
    why = why_refused(module, spec, failure, partial(find, 2)) + cast_clause(module)
    raise InputError(f"{reference} {why}") from failure


def module_way(
    modules: Iterable[Callable[[], nn.Module]], spec: InputSpec, prefix: int | None, count: int
) -> Way | None:
    """The steps of a pass of the first of `modules` that runs on `count` images, or None."""
    for make in modules:
        module = make()
        x = blank_input(module, spec)[:count]
        with contextlib.suppress(Exception), torch.no_grad():
            trace = partial(trace_way, module, x, (spec.height, spec.width), prefix)
            return quickly(trace).way
    return None


def module_blocks(
    modules: Iterable[Callable[[], nn.Module]],
    spec: InputSpec,
    grid: Grid,
    prefix: int | None,
    count: int,
) -> Blocks:
    """The blocks of the first of `modules` that runs on `count` images; of none, `grid` alone."""
    size = (spec.height, spec.width)

    def trace(module: nn.Module, x: Tensor) -> Blocks:
        if grid.name == FEATURES:
            way = _features(module, x, size, prefix).way
            return find_blocks(way, next(iter(way.outputs), None), grid)
        found = trace_way(module, x, size, prefix, until=grid.name)
        return find_blocks(found.way, found.places.get(grid.name), grid)

    for make in modules:
        module = make()
        x = blank_input(module, spec)[:count]
        with contextlib.suppress(Exception), torch.no_grad():
            return quickly(partial(trace, module, x))
    return Blocks((grid,), grid)


def blank_input(module: nn.Module, spec: InputSpec, size: tuple[int, int] | None = None) -> Tensor:
    """Return two uniform inputs of the type and device of `module`, `size` being that of `spec`."""
    first = first_float(module, torch.empty(0))
    height, width = size or (spec.height, spec.width)
    shape = 2, spec.channels, height, width
    return laid_out(torch.zeros(shape, dtype=first.dtype, device=first.device), spec)


def laid_out(x: Tensor, spec: InputSpec) -> Tensor:
    """Return `x` (batch, channels, height, width) in the order of axes of the module's input."""
    return x.permute(0, 2, 3, 1) if spec.layout == "NHWC" else x


def find_module_target(
    module: nn.Module, x: Tensor, size: tuple[int, int], prefix: int | None = None
) -> Grid | None:
    """Choose the target of `module` by one pass over `x`, by the rule of `adapters.target_rule`.

    `size` is (height, width) in pixels. Where the module has `forward_features`, its result is
    taken if nothing on the way to it is coarser.
    """
    if callable(getattr(module, FEATURES, None)):
        grid = _features_grid(_features(module, x, size, prefix))
        if grid is not None:
            return replace(grid, name=FEATURES, reason=OWN_FEATURES, choice=TargetChoice.RULE)
    trace = trace_way(module, x, size, prefix)
    return trace.way.target() or _image_itself(trace)


def _image_itself(trace: Trace) -> Grid | None:
    """The grid of a module that returns its input, as `nn.Identity` does."""
    raw, way = trace.out, trace.way
    if not isinstance(raw, Tensor) or len(way.outputs) != 1 or raw.ndim != 4:
        return None
    grid = find_grid("", raw, way.size, way.prefix)
    unchanged = grid is not None and grid.kind == "NCHW" and raw.shape[2:] == way.size
    if grid is None or not unchanged:
        return None
    return replace(grid, reason="the input, which the model returns", choice=TargetChoice.RULE)


def _features(module: nn.Module, x: Tensor, size: tuple[int, int], prefix: int | None) -> Trace:
    run = cast("Callable[[Tensor], Any]", module.forward_features)
    return trace_way(module, x, size, prefix, run)


OWN_FEATURES = (
    "the result of the model's own forward_features, the last map of the coarsest resolution "
    "before its head"
)


def _features_grid(trace: Trace) -> Grid | None:
    """The grid that `forward_features` returns; None where a stage before it is coarser.

    A stage has at most a quarter of the units. Class tokens (batch, tokens, channels), whose
    channels could be read as units, are no grid.
    """
    way, raw = trace.way, trace.out
    if not isinstance(raw, Tensor) or len(way.outputs) != 1:
        return None
    grid = way.read.float_grids[way.outputs[0]] or find_grid(FEATURES, raw, way.size, way.prefix)
    if grid is None or (grid.kind == "NCL" and grid.channels <= MAX_CLASS_TOKENS):
        return None
    coarsest = min((g.height * g.width for g in way.maps.values()), default=0)
    return grid if grid.height * grid.width < 4 * max(coarsest, 1) else None


MAX_CLASS_TOKENS = 2
"""Most tokens (class, distillation) that a network gives in place of its map."""


def named_module_target(
    module: nn.Module, x: Tensor, size: tuple[int, int], name: str, prefix: int | None = None
) -> Grid:
    """Return the grid that is the output of the layer `name` for `x`.

    Of a layer that is called several times, `name#k` is the k-th call and `name` the last one.
    Raises `UnknownNameError` when there is no such layer, `NotApplicableError` when its output is
    not a grid.
    """
    if name == FEATURES and hasattr(module, FEATURES):
        trace = _features(module, x, size, prefix)
        raw, place = trace.out, next(iter(trace.way.outputs), None)
    else:
        known = dict.fromkeys(n for n, _ in module.named_modules())
        trace = trace_way(module, x, size, prefix, until=name)
        if base_name(name) not in known and name not in trace.places:
            raise UnknownNameError(unknown("layer", name, known))
        calls = trace.calls.get(name, 0)
        name = f"{name}#{calls}" if calls > 1 else name
        raw, place = capture(module, x, [name], to_end=False)[0][name], trace.places.get(name)
    grid = trace.way.read.float_grids[place] if place is not None else None
    grid = grid or find_grid(name, raw, size, prefix)
    if grid is None:
        raise NotApplicableError(
            f"layer {name!r} gives a tensor of shape {tuple(raw.shape)}, not a grid of units "
            f"over a {size[0]} x {size[1]} input; name another layer as the target"
        )
    return named_by_user(replace(grid, name=name))


def run_target(module: nn.Module, x: Tensor, grid: Grid) -> Tensor:
    """The raw target tensor of one pass, stopped there."""
    return run_several(module, x, [grid], to_end=False)[0][0]


def run_several(
    module: nn.Module, x: Tensor, grids: Sequence[Grid], *, to_end: bool
) -> tuple[list[Tensor], Any]:
    """The raw tensors of `grids` in one pass, stopped at the last of them unless `to_end`.

    The second result is the output of the module, if the pass went to its end.
    """
    names = [grid.name for grid in grids]
    if names == [FEATURES]:
        raw: Tensor = module.forward_features(x)  # type: ignore[operator]
        return [raw], module.forward_head(raw) if to_end else None  # type: ignore[operator]
    own = FEATURES in names
    with _kept_features(module, keep=own) as kept:
        layers = [name for name in dict.fromkeys(names) if name != FEATURES]
        found, out = capture(module, x, layers, to_end=to_end or own)
    return [found.get(name, kept[0] if kept else x) for name in names], out


@contextlib.contextmanager
def _kept_features(module: nn.Module, *, keep: bool) -> Iterator[list[Tensor]]:
    """Within it, what the model's own `forward_features` gives is put into the list."""
    kept: list[Tensor] = []
    if not keep:
        yield kept
        return
    original = cast("Callable[..., Any]", module.forward_features)

    def forward_features(*arguments: Any, **options: Any) -> Any:
        kept.append(original(*arguments, **options))
        return kept[-1]

    module.__dict__["forward_features"] = forward_features
    try:
        yield kept
    finally:
        del module.__dict__["forward_features"]


def first_logits(module: nn.Module, out: Any) -> Tensor | None:
    """Return the first (batch, classes) tensor of numbers in the output of `module`, or None.

    True and false are 1 and 0. A module with `num_classes = 0`, as timm's without a classifier
    have, gives pooled features.
    """
    if getattr(module, "num_classes", None) == 0:
        return None
    if dataclasses.is_dataclass(out) and not isinstance(out, dict):
        out = vars(out)
    several = out.values() if isinstance(out, dict) else out
    values = several if isinstance(out, dict | tuple | list) else (out,)
    found = next((v for v in values if isinstance(v, Tensor) and _are_logits(v)), None)
    return found.float() if found is not None and found.dtype == torch.bool else found


def _are_logits(value: Tensor) -> bool:
    """Whether a tensor can be (batch, classes): of numbers that have an order, and of any."""
    dense = value.layout == torch.strided
    return dense and value.ndim == 2 and value.numel() > 0 and not value.is_complex()
