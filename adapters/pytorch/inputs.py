"""Inputs of modules: one is the image, which is guessed if it is not stated; others have values.

Also why a module refuses its input.
"""

from __future__ import annotations

import contextlib
import inspect
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import check_name
from ..input_spec import IMAGENET_MEAN, IMAGENET_STD, InputSpec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


SIZES = (224, 256, 384, 512, 32, 64, 128, 28, 299)
"""Sides of square inputs that are tried to tell a wrong size from other faults."""

CHANNELS_GUESSED = (
    "; that it takes {} channels is a guess: if it takes others, say so with --input channels=1 or "
    "3, in Python with InputSpec(height, width, channels=...)"
)

IMAGES = ("image", "img", "pixel", "sample")
"""Parts of the names that images have among several inputs."""


@dataclass(frozen=True)
class FixedInputs:
    """A forward pre-hook that passes the image as the input `image`, and the others by name.

    Lists become tensors; a first axis of 1 is repeated to the batch.
    """

    image: str
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, _module: nn.Module, args: Any, _kwargs: Any) -> tuple[tuple[()], Any]:
        """Return the arguments with which the module is called instead."""
        (x,) = args
        return (), {self.image: x, **{n: _value(v, x) for n, v in self.fixed.items()}}


def _value(given: Any, x: Tensor) -> Any:
    if not isinstance(given, list | tuple | Tensor):
        return given
    value = torch.as_tensor(given).to(x.device)
    value = value.to(x.dtype) if value.is_floating_point() else value
    single = value.ndim > 0 and len(value) == 1
    return value.expand(len(x), *value.shape[1:]) if single else value


def fix_module_inputs(module: nn.Module, image: str | None, fixed: Mapping[str, Any]) -> None:
    """Let `module` be called with the image alone. Raises `UnknownNameError` for other names."""
    names = list(inspect.signature(module.forward).parameters)
    for name in (*([image] if image else []), *fixed):
        check_name("input of the module", name, names)
    first = image or next((n for n in names if n not in fixed), "")
    if image or fixed:
        module.register_forward_pre_hook(
            FixedInputs(first, dict(fixed)), prepend=True, with_kwargs=True
        )


def why_refused(
    module: nn.Module, spec: InputSpec, failure: Exception, attempt: Callable[[int, int], Any]
) -> str:
    """Say why `module` failed with `failure` on the input of `spec`.

    `attempt(height, width)` passes an input of another size; the size is at fault only if one
    passes.
    """
    shape = f"{spec.channels} x {spec.height} x {spec.width} (channels x height x width)"
    said = f"{type(failure).__name__}: {failure}"
    fixed_already = any(isinstance(h, FixedInputs) for h in module._forward_pre_hooks.values())
    names = [] if fixed_already else required_arguments(module.forward)
    if len(names) > 1:
        image = next((n for n in names if any(word in n for word in IMAGES)), names[0])
        fixed = ", ".join(f"{n!r}: 0" for n in names if n != image)
        return (
            f"takes {len(names)} inputs ({', '.join(names)}), and was given one of {shape}; name "
            f"the image and give the others values, such as inputs={{'image': {image!r}, 'fixed': "
            f"{{{fixed}}}}}"
        )
    if not fixed_already and not _takes_position(module.forward):
        return f"{_by_keyword(names)}; it was given an image of {shape} by position: {said}"
    asked = None if fixed_already else _asked_of_table(module)
    if asked is not None:
        return (
            f"takes a table of inputs, of which its forward reads {asked!r}, and was given an "
            f"image of {shape}; give a module whose forward takes the image alone and calls this "
            f"one with {{{asked!r}: image}}"
        )
    sizes = [n for n in SIZES if (n, n) != (spec.height, spec.width) and _passes(attempt, n)][:2]
    if sizes:
        passing = " and ".join(f"{n} x {n}" for n in sizes)
        return f"refuses an input of {shape}: {said}; {passing} passes: give the size it needs"
    text = f"fails on an input of {shape}, and of other sizes: {said}"
    return text + CHANNELS_GUESSED.format(spec.channels) * ("channels" in spec.guessed)


def guess_spec(
    module: nn.Module, size: tuple[int, int] | None = None, channels: int | None = None
) -> InputSpec:
    """Return ImageNet's usual input, with `channels`, else those of the first convolution.

    What neither the module nor `size` (height, width) says is marked as guessed.
    """
    first = next((m.in_channels for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    channels = channels or first or 3
    guessed = ["mean", "std", "value_range", "interpolation", "crop_pct"]
    guessed += ["channel_order"] * (channels == 3) + ["channels"] * (channels != first)
    guessed += [] if size else ["height", "width"]
    spec = InputSpec(*(size or (224, 224)), guessed=tuple(guessed))
    if channels == 3:
        return replace(spec, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    return replace(spec, channels=channels, mean=(0.0,) * channels, std=(1.0,) * channels)


def required_arguments(function: Callable[..., Any]) -> list[str]:
    """The arguments that have no default; none of a function that does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return []
    return [
        p.name
        for p in parameters
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]


def _takes_position(function: Callable[..., Any]) -> bool:
    """Whether an argument may be given by position; True of a function that does not tell."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD) for p in parameters)


def _by_keyword(names: list[str]) -> str:
    if not names:
        return (
            "takes its inputs by names that its forward does not list; give a module whose forward "
            "takes the image alone and calls this one"
        )
    return (
        f"takes its input by name alone ({names[0]}); name it: inputs={{'image': {names[0]!r}}} in "
        f"Python, --input image={names[0]} on the command line"
    )


class _Table(dict[str, Any]):
    """An empty table that remembers the first key it was asked for."""

    asked: str | None = None

    def __missing__(self, key: Any) -> Any:
        self.asked = self.asked or str(key)
        raise KeyError(key)


def _asked_of_table(module: nn.Module) -> str | None:
    """The key that the forward of `module` reads if it is given a table; None if it reads none."""
    table = _Table()
    with contextlib.suppress(Exception), torch.no_grad():  # a foreign forward may raise anything
        module(table)
    return table.asked


def _passes(attempt: Callable[[int, int], Any], side: int) -> bool:
    try:
        attempt(side, side)
    except Exception:  # a foreign forward may raise anything
        return False
    return True
