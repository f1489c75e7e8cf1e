"""How many channels the image of a module has, if nobody says so: what its first layer takes.

The first layer is the first one with weights that the image reaches, whatever the order in which
layers are registered. Tried are three channels and one, then those of the module's convolutions;
the first convolution's before all others if they are one of these two numbers.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from .float_types import cast_inputs, other_types
from .inputs import SIZES, fix_module_inputs, guess_spec
from .target import blank_input
from .tensors import cast_module, copy_module, frozen_copy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from ..input_spec import InputSpec

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)

MOST_TRIED = 8
"""Different numbers of channels of convolutions that are tried."""


class _Reached(Exception):  # noqa: N818 - a signal, not an error
    """Raised when the first layer has taken the image."""


def pick_spec(
    module: nn.Module,
    size: tuple[int, int] | None,
    declare: Callable[[InputSpec], InputSpec] = lambda spec: spec,
) -> InputSpec:
    """`guess_spec` with what `declare` states, and channels that the first layer of `module` takes.

    The size is guessed too, so that other sizes are tried where no number of channels passes.
    Raises what `declare` raises for the number of channels that is taken.
    """
    specs = []
    for channels in _tried(module):
        try:
            spec = declare(guess_spec(module, size, channels))
        except InputError:  # a mean of other numbers of channels
            continue
        if spec.channels != channels:  # it is declared
            return spec
        if _takes(module, spec, spec.height, spec.width):
            return spec
        specs.append(spec)
    for spec in specs:
        if any(_takes(module, spec, side, side) for side in SIZES):
            return spec
    spec = declare(guess_spec(module, size))
    return replace(spec, guessed=tuple(dict.fromkeys((*spec.guessed, "channels"))))


def module_input(
    module: nn.Module,
    size: tuple[int, int] | None,
    image: str | None,
    fixed: Mapping[str, Any],
    declare: Callable[[InputSpec], InputSpec],
) -> InputSpec:
    """The input that `model.wrap` would give `module`, which is not changed."""
    frozen = frozen_copy(getattr(module, "_orig_mod", module))
    others = other_types(frozen, torch.float32)
    frozen = cast_module(frozen, torch.device("cpu"), torch.float32)
    fix_module_inputs(frozen, image, fixed)
    return settle_types(frozen, others, lambda: pick_spec(frozen, size, declare))


def settle_types(
    module: nn.Module, others: Mapping[str, torch.dtype], pick: Callable[[], InputSpec]
) -> InputSpec:
    """The input that `pick` gives, for which the layers `others` cast theirs if need be.

    They do if `module`, whose layers have one type by now, does not run without.
    """
    spec = pick()
    if not others or _runs(module, spec):
        return spec
    cast_inputs(module, others)
    return pick()


def _runs(module: nn.Module, spec: InputSpec) -> bool:
    with contextlib.suppress(Exception), torch.no_grad():  # a foreign forward may raise anything
        tried = copy_module(module)
        tried(blank_input(tried, spec)[:1])
        return True
    return False


def _tried(module: nn.Module) -> list[int]:
    """Numbers of channels, the likeliest first."""
    layers = [m for m in module.modules() if isinstance(m, CONVOLUTIONS)]
    first = [m.in_channels for m in layers if isinstance(m, nn.Conv2d)][:1]
    usual = [n for n in first if n in (1, 3)]
    others = sorted({m.in_channels for m in layers})[:MOST_TRIED]
    return list(dict.fromkeys([*usual, 3, 1, *first, *others, 4, 2]))


def _takes(module: nn.Module, spec: InputSpec, height: int, width: int) -> bool:
    """Whether the first layer of `module` with weights takes a blank image; all of it if unseen."""
    x = blank_input(module, spec, (height, width))[:1].requires_grad_()

    def reached(_layer: nn.Module, arguments: tuple[Any, ...], _out: Any) -> None:
        if any(isinstance(a, Tensor) and a.requires_grad for a in arguments):
            raise _Reached

    handles = [layer.register_forward_hook(reached) for layer in _weighted(module)]
    try:
        with torch.enable_grad():
            module(x.clone())  # not a leaf, so that it may be changed in place
    except _Reached:
        return True
    except Exception:  # a foreign forward may raise anything
        return False
    finally:
        for handle in handles:
            handle.remove()
    return True


def _weighted(module: nn.Module) -> Iterator[nn.Module]:
    """The layers without layers of their own that have weights of more than one axis."""
    for layer in module.modules():
        if not [*layer.children()] and any(p.ndim > 1 for p in layer.parameters()):
            yield layer
