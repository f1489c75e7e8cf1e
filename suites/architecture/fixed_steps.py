"""What fixed linear functions do to amplitudes, as their energy rules do it to energies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .compact import compress, equal_axes
from .in_place import works_in_place
from .mixtures import (
    FILTERS,
    JOINS,
    MIXTURES,
    PRODUCTS,
    PRODUCTS_OF_UNITS,
    QUOTIENTS,
    SUMS,
    argument,
)
from .rule_table import MOVES, constant_share, is_energy, is_weight
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    FixedStep = Callable[[Sequence[Tensor]], Tensor]
    """From the amplitudes of the energies that a function takes to those of its result."""

RESHAPES = frozenset({"reshape", "view", "unsafe_view", "expand"})
LIKE = {"view_as": "reshape", "reshape_as": "reshape", "expand_as": "expand"}
FITTED = JOINS | PRODUCTS | {"gather", "take_along_dim"}
"""Functions of constants that may have been made for one number of images and channels."""
STATISTICS = frozenset({"batch_norm", "instance_norm"})
ROUNDING = 1e-8


def step_of(
    name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> FixedStep | None:
    """The step of a function of the energies `inputs`; None if it is not known.

    What it returns may have another number of images or channels, or fail, if the function was made
    for one number of them.
    """
    others = [t for t in tensors_in((args, kwargs)) if not is_energy(t)]
    if any(map(is_weight, others)):
        return None
    if name in SUMS:
        return _sum_step(name, args, kwargs, inputs)
    if name in PRODUCTS_OF_UNITS | QUOTIENTS:
        return _product_step(name, args, inputs)
    if name == "setitem":
        return _writing_step(args, inputs)
    if name in FILTERS:
        return _filter_step(name, func, args, kwargs)
    if name == "grid_sample":
        return _sampling_step(func, args, kwargs)
    if name in RESHAPES | LIKE.keys():
        return _reshaping_step(name, args, kwargs)
    if works_in_place(func, args, dict(kwargs)) or name not in MOVES | JOINS | MIXTURES | {"pad"}:
        return None
    return _call_step(name, func, args, kwargs, inputs)


def _call_step(
    name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> FixedStep:
    """The function itself; what a concatenation or a choice adds to the energies counts as 0."""
    zeros = name in JOINS

    def step(values: Sequence[Tensor]) -> Tensor:
        own = {id(t): value for t, value in zip(inputs, values, strict=True)}

        def put(a: Any) -> Any:
            if id(a) in own:
                return own[id(a)]
            if not isinstance(a, Tensor) or name not in FITTED:
                return a
            constant = fitted(a, inputs[0], values[0])
            return torch.zeros_like(constant) if zeros and a.is_floating_point() else constant

        terms = args
        if name == "where":
            terms = (args[0], *(0.0 if not isinstance(a, Tensor) else a for a in args[1:]))
        out: Tensor = func(*tree_map(put, terms), **tree_map(put, dict(kwargs)))
        return out

    return step


def fitted(constant: Tensor, x: Tensor, value: Tensor) -> Tensor:
    """`constant`, made for `x`, for a `value` of another number of images or channels.

    Raises `ValueError` if it differs between them.
    """
    constant = constant.to(torch.float64) if constant.is_floating_point() else constant
    for axis in range(-1, -1 - min(constant.ndim, x.ndim, value.ndim), -1):
        size = constant.shape[axis]
        if size != x.shape[axis] or size == value.shape[axis]:
            continue
        first = constant.narrow(axis, 0, 1)
        if axis % constant.ndim not in equal_axes(constant) and bool((constant != first).any()):
            raise ValueError("a constant differs between channels")
        shape = list(constant.shape)
        shape[axis] = value.shape[axis]
        constant = first.expand(shape)
    return constant


def _sum_step(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], inputs: Sequence[Tensor]
) -> FixedStep | None:
    """A sum of two energies, or of an energy and a constant, which vanishes."""
    alpha = kwargs.get("alpha", 1)
    signs = {"add": (1, alpha), "sub": (1, -alpha)}.get(
        name.removeprefix("i").removesuffix("tract"), (1, 1)
    )
    if name == "rsub":
        signs = (-alpha, 1)
    factors = [s for s, a in zip(signs, args, strict=False) if is_energy(a)]
    if len(factors) != len(inputs):
        return None
    shape = torch.broadcast_shapes(*(a.shape for a in args if isinstance(a, Tensor)))
    if len(inputs) == 1 and shape != inputs[0].shape:
        return None
    return lambda values: sum(
        (f * v for f, v in zip(factors[1:], values[1:], strict=True)), factors[0] * values[0]
    )


def _product_step(name: str, args: tuple[Any, ...], inputs: Sequence[Tensor]) -> FixedStep | None:
    """A product with a constant, or a quotient by one."""
    x = inputs[0]
    constant = args[1] if args[0] is x else args[0]
    if len(inputs) > 1 or (name in QUOTIENTS and args[0] is not x):
        return None

    def step(values: Sequence[Tensor]) -> Tensor:
        (value,) = values
        known = fitted(constant, x, value) if isinstance(constant, Tensor) else constant
        return value / known if name in QUOTIENTS else value * known

    return step


def _writing_step(args: tuple[Any, ...], inputs: Sequence[Tensor]) -> FixedStep | None:
    """Writing a value into a part of a tensor; what was constant counts as 0."""
    whole, index, value = args
    if not isinstance(value, Tensor):
        return None

    def step(values: Sequence[Tensor]) -> Tensor:
        own = {id(t): v for t, v in zip(inputs, values, strict=True)}
        base = own[id(whole)].clone() if id(whole) in own else None
        if base is None:
            base = torch.zeros(_sizes(whole.shape, value, own[id(value)]), dtype=torch.float64)
        base[index] = own.get(id(value), 0.0)
        return base

    return step


def _reshaping_step(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> FixedStep | None:
    """A reshaping whose sizes name the number of images and channels."""
    x, *sizes = args
    if kwargs or (sizes and isinstance(sizes[0], torch.dtype)):
        return None
    if name in LIKE:
        name, sizes = LIKE[name], [sizes[0].shape]
    if len(sizes) == 1 and not isinstance(sizes[0], int):
        sizes = list(sizes[0])
    resize = torch.Tensor.expand if name == "expand" else torch.Tensor.reshape
    return lambda values: resize(values[0], _sizes(sizes, x, values[0]))


def _sizes(sizes: Sequence[int], x: Tensor, value: Tensor) -> list[int]:
    """`sizes`, in which those of images and channels of `x` are replaced by those of `value`."""
    found = [int(n) for n in sizes]
    for axis in (0, 1, -1):
        if -len(found) <= axis < min(len(found), x.ndim) and found[axis] == x.shape[axis]:
            found[axis] = value.shape[axis]
    return found


def _filter_step(
    name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> FixedStep | None:
    """A convolution with one fixed filter for every channel."""
    call = FILTERS[name](*args, **kwargs)
    weight = call.weight
    if hasattr(weight, "tap_energy") or weight.shape[1] != 1:
        return None
    if bool((weight != weight[:1]).any()) or call.groups != len(weight):
        return None
    one = weight[:1].to(torch.float64)

    def step(values: Sequence[Tensor]) -> Tensor:
        (t,) = values
        filters = one.expand(t.shape[1], *one.shape[1:])
        own = replace(call, input=t, weight=filters, bias=None, groups=t.shape[1])
        out: Tensor = func(**vars(own))
        return out

    return step


def _sampling_step(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> FixedStep:
    """`grid_sample` at the places of the first image, which are those of all."""
    grid = argument(args, kwargs, 1, "grid")
    options = {k: v for k, v in kwargs.items() if k not in ("input", "grid")}

    def step(values: Sequence[Tensor]) -> Tensor:
        (t,) = values
        places = grid[:1].to(torch.float64).expand(len(t), -1, -1, -1)
        out: Tensor = func(t, places, *args[2:], **options)
        return out

    return step


def amplitude_of(name: str, args: Sequence[Any], out: Tensor) -> Tensor | None:
    """The number (batch,) by which a function multiplied all units of an energy, if it is one."""
    x = next(t for t in args if is_energy(t))
    share = constant_share(x)
    if x.shape != out.shape or (name in STATISTICS and share is not None and bool(share.any())):
        return None  # such a norm has another factor for the gradient
    sign, x, out = _sign(name, args), x.detach(), out.detach()
    equal = [d for d in equal_axes(x) if d and d in equal_axes(out)]
    have, found = compress(x, equal), compress(out, equal)
    batch = len(have) if have.ndim else 1
    factor = found.reshape(batch, -1).mean(1) / have.reshape(batch, -1).mean(1)
    scaled = have * factor.view(-1, *(1,) * (have.ndim - 1))
    off = (scaled - found).abs() > ROUNDING * (found.abs() + found.abs().mean())
    same = bool(factor.isfinite().all()) and not bool(off.any())
    return sign * factor.to(torch.float64).sqrt() if same and sign is not None else None


def _sign(name: str, args: Sequence[Any]) -> int | None:
    """The sign of all factors of a function that multiplies each unit; None if they differ."""
    if name in ("neg", "rsub") or (name in SUMS and not is_energy(args[0]) and "sub" in name):
        return -1
    if name not in PRODUCTS_OF_UNITS | QUOTIENTS:
        return 1
    constant = next(a for a in args if not is_energy(a))
    if isinstance(constant, Tensor):
        if constant.is_meta:
            return 1
        small = compress(constant)
        return 1 if bool((small >= 0).all()) else -1 if bool((small <= 0).all()) else None
    return 1 if constant >= 0 else -1
