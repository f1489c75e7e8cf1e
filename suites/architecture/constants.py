"""Functions of constants and of weights, which read no energy.

Constants are kept as amplitudes, equal entries of which are stored once; of weights only the shape
is known, on the `meta` device.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from .compact import equal_axes, gather_compact, reshape_compact
from .mixtures import SUMS
from .tags import CREATIONS, tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable

SAME_SHAPE = frozenset({"to", "type_as", "cpu", "cuda", "contiguous", "batch_norm", "clone"})
"""Functions that leave the shape of a weight as it is."""

VECTOR_PRODUCTS = frozenset(
    {"matmul", "rmatmul", "mv", "dot", "inner", "tensordot", "linalg_vecdot", "einsum"}
)
"""Functions in which a parameter of one axis is no scale, but random weights."""


def learned_vector(x: Any) -> Any:
    """`x` as random weights if it is a parameter of one axis, else `x` itself."""
    if not isinstance(x, nn.Parameter) or x.ndim != 1:
        return x
    found = x.detach()
    found.random = True  # type: ignore[attr-defined]
    return found


def is_scale(t: Any) -> bool:
    """Whether `t` is a learned scale: a parameter that is not fixed, or computed from such ones."""
    if not isinstance(t, Tensor) or t.is_meta or hasattr(t, "fixed"):
        return False
    return isinstance(t, nn.Parameter) or hasattr(t, "learned_scale")


SCALES_OF_ONE = SUMS | frozenset(
    """
    sigmoid hardsigmoid tanh hardtanh exp exp2 expm1 log log1p softplus gelu silu elu sqrt rsqrt pow
    square sin cos clamp clip clamp_min clamp_max
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions of learned scales that give learned scales, such as 1 - a of a mixture of two."""


def as_scales(name: str, args: tuple[Any, ...], out: Any) -> Any:
    """The result `out` of a function of constants: ones, if these are learned scales and numbers.

    Scales count as ones whatever their values are, and so does what is computed from them. A fixed
    tensor of several numbers keeps its values, as do products, sums over axes and softmaxes.
    """
    tensors = tensors_in(args)
    if not any(map(is_scale, tensors)) or not isinstance(out, Tensor):
        return out
    others = [t for t in tensors if not is_scale(t) and t.numel() > 1]
    if not out.is_floating_point() or (others and name in SCALES_OF_ONE):
        return out
    if name in SCALES_OF_ONE:
        out = torch.ones_like(out)
    out.learned_scale = True
    return out


def weighs_a_constant(name: str, args: tuple[Any, ...]) -> bool:
    """Whether random weights are applied to a constant, such as a learned query."""
    return (
        name in {"conv1d", "conv2d", "conv3d", "linear", "matmul"}
        and len(args) > 1
        and not args[0].is_meta
        and args[1].is_meta
    )


def _unchanged(func: Any, x: Tensor, *rest: Any, **named: Any) -> Any:
    """A compact constant needs no copy."""
    return x if equal_axes(x) else func(x, *rest, **named)


def _reshaped(func: Any, x: Tensor, *shape: Any, **named: Any) -> Any:
    if not equal_axes(x) or isinstance(shape[0], torch.dtype):
        return func(x, *shape, **named)
    return reshape_compact(x, shape[0] if isinstance(shape[0], tuple | list) else shape)


def _looked_up(func: Any, x: Tensor, index: Any) -> Any:
    """A look-up in the table of a learned position bias, whose entries are equal."""
    whole = (
        isinstance(index, Tensor) and not index.is_floating_point() and index.dtype != torch.bool
    )
    return gather_compact(x, index) if whole and x.is_floating_point() else func(x, index)


ON_COMPACT_CONSTANTS: dict[str, Callable[..., Any]] = {
    "contiguous": _unchanged,
    "reshape": _reshaped,
    "view": _reshaped,
    "getitem": _looked_up,
}
"""Functions of constants that keep them compact."""


def run_natively(func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """Run the function itself; in-place ones need a copy of constants that share storage."""
    try:
        return func(*args, **kwargs)
    except RuntimeError:
        if not (args and isinstance(args[0], Tensor) and equal_axes(args[0])):
            raise
        return func(args[0].contiguous(), *args[1:], **kwargs)


def on_cpu(value: Any) -> Any:
    """The CPU in place of the `meta` device, on which weights are: constants keep their values."""
    is_meta = isinstance(value, torch.device | str) and str(value) == "meta"
    return torch.device("cpu") if is_meta else value


def run_on_shapes(name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Any:
    """Run functions of weights on the `meta` device."""
    if name == "clone":  # what is written into it later is not written into the weight
        copy = args[0].clone()
        vars(copy).update(vars(args[0]))
        return copy
    if name in SAME_SHAPE and isinstance(args[0], Tensor) and args[0].is_meta:
        return args[0]

    if name == "setitem":  # which changes no shape
        return None
    if name in {"to", "type_as"} and not args[0].is_meta:
        return args[0]
    if name in CREATIONS:
        like = torch.empty(args[0].shape, dtype=args[0].dtype)
        return func(like, *map(on_cpu, args[1:]), **{k: on_cpu(v) for k, v in kwargs.items()})

    def to_meta(t: Any) -> Any:
        if not isinstance(t, Tensor):
            return t
        return t.to("meta", torch.float64) if t.is_floating_point() else t.to("meta")

    return func(*tree_map(to_meta, args), **tree_map(to_meta, kwargs))
