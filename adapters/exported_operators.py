"""Operators of exported programs (`torch.export`) as the torch functions that have rules.

A program calls overloads of ATen operators, `aten.conv2d.default`. Most have the name and the
order of arguments of a function that torch generates from the same schema; the others are written
here. What has neither is left as it is, so that it is refused by its name.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

    Given = dict[str, Any]
    Called = tuple[Any, tuple[Any, ...], dict[str, Any]]

_GENERATED = (
    *(getattr(torch._C, name) for name in ("_VariableFunctions", "_nn", "_linalg", "_fft")),
    Tensor,
)
"""Where torch keeps the functions that it generates from the schemas of operators."""

_SEVERAL = frozenset(
    """
    max min var_mean chunk split split_with_sizes tensor_split unbind
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Operators of several results whose functions return as many."""


def as_torch_function(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Called:
    """The function of torch, and its arguments, that `func` is if it is an overload of ATen's."""
    if not isinstance(func, torch._ops.OpOverload) or func.namespace != "aten":
        return func, args, kwargs
    name = func.overloadpacket.__name__
    arguments = func._schema.arguments
    given = dict(zip((a.name for a in arguments), args, strict=False)) | kwargs
    if given.get("stride") == []:  # a pool's, which is then that of its kernel
        given["stride"] = None
    if name in _WRITTEN:
        every = {a.name: a.default_value for a in arguments if a.has_default_value()}
        return _WRITTEN[name](every | given)
    found = _generated(name)
    if found is None or (len(func._schema.returns) > 1 and name not in _SEVERAL):
        return func, args, kwargs
    named = {a.name for a in arguments if a.kwarg_only}
    by_place = [a for a in arguments if not a.kwarg_only]
    last = max((i for i, a in enumerate(by_place) if a.name in given), default=-1)
    places = tuple(given.get(a.name, a.default_value) for a in by_place[: last + 1])
    return found, places, {k: v for k, v in given.items() if k in named and v is not None}


@cache
def _generated(name: str) -> Callable[..., Any] | None:
    found = (getattr(place, name, None) for place in _GENERATED)
    return next((one for one in found if one is not None), None)


def _named(function: Callable[..., Any], *names: str) -> Callable[[Given], Called]:
    """`function`, which takes the operator's arguments of these `names` in this order."""
    return lambda given: (function, tuple(given[name] for name in names), {})


def _resized(mode: str, *, antialias: bool = False) -> Callable[[Given], Called]:
    """An interpolation; that to a size may tell the scales which it comes from."""

    def called(given: Given) -> Called:
        named = {"size": given["output_size"], "scale_factor": given.get("scale_factors")}
        if named["scale_factor"] is None:
            scales = [given.get(k) for k in ("scales_d", "scales_h", "scales_w", "scales")]
            known = [s for s in scales if s is not None]
            if known:
                named = {"size": None, "scale_factor": known}
        if "align_corners" in given:
            named["align_corners"] = given["align_corners"]
        if antialias:
            named["antialias"] = True
        return F.interpolate, (given.get("input", given.get("self")),), {**named, "mode": mode}

    return called


def _padded(mode: str) -> Callable[[Given], Called]:
    return lambda given: (F.pad, (given["self"], given.get("pad", given.get("padding")), mode), {})


def _sliced(given: Given) -> Called:
    """`x[..., start:end:step]`; ends that a program writes out are left out again."""
    x, axis = given["self"], given["dim"]
    start, end = given["start"] or None, given["end"]
    if end is not None and isinstance(end, int) and end >= sys.maxsize:
        end = None
    step = None if given["step"] == 1 else given["step"]
    before = (slice(None),) * (axis % x.ndim)
    return Tensor.__getitem__, (x, (*before, slice(start, end, step))), {}


def _indexed(given: Given) -> Called:
    index = tuple(slice(None) if i is None else i for i in given["indices"])
    return Tensor.__getitem__, (given["self"], index), {}


def _convolved(given: Given) -> Called:
    """Of any number of axes, transposed or not."""
    axes = given["weight"].ndim - 2
    first = tuple(given[name] for name in ("input", "weight", "bias", "stride", "padding"))
    if given["transposed"]:
        rest = tuple(given[name] for name in ("output_padding", "groups", "dilation"))
        return getattr(F, f"conv_transpose{axes}d"), (*first, *rest), {}
    return getattr(F, f"conv{axes}d"), (*first, given["dilation"], given["groups"]), {}


def _sampled(given: Given) -> Called:
    named = {
        "mode": ("bilinear", "nearest", "bicubic")[given["interpolation_mode"]],
        "padding_mode": ("zeros", "border", "reflection")[given["padding_mode"]],
        "align_corners": given["align_corners"],
    }
    return F.grid_sample, (given["input"], given["grid"]), named


def _converted(given: Given) -> Called:
    """To a type, a device or both; the layout of a program's tensors is that of all."""
    args = (given["other"],) if "other" in given else ()
    kept = {k: given[k] for k in ("device", "dtype", "memory_format") if given.get(k) is not None}
    if given.get("copy"):
        kept["copy"] = True
    return Tensor.to, (given["self"], *args), kept


_STATISTICS = ("running_mean", "running_var", "weight", "bias")

_WRITTEN: dict[str, Callable[[Given], Called]] = {
    "batch_norm": _named(F.batch_norm, "input", *_STATISTICS, "training", "momentum", "eps"),
    "instance_norm": _named(
        F.instance_norm, "input", *_STATISTICS, "use_input_stats", "momentum", "eps"
    ),
    "layer_norm": _named(F.layer_norm, "input", "normalized_shape", "weight", "bias", "eps"),
    "group_norm": _named(F.group_norm, "input", "num_groups", "weight", "bias", "eps"),
    "convolution": _convolved,
    "im2col": _named(F.unfold, "self", "kernel_size", "dilation", "padding", "stride"),
    "col2im": _named(F.fold, "self", "output_size", "kernel_size", "dilation", "padding", "stride"),
    "constant_pad_nd": lambda given: (
        F.pad,
        (given["self"], given["pad"], "constant", given["value"]),
        {},
    ),
    **{f"reflection_pad{n}d": _padded("reflect") for n in (1, 2, 3)},
    **{f"replication_pad{n}d": _padded("replicate") for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": _resized("nearest") for n in (1, 2, 3)},
    **{f"_upsample_nearest_exact{n}d": _resized("nearest-exact") for n in (1, 2, 3)},
    "upsample_linear1d": _resized("linear"),
    "upsample_bilinear2d": _resized("bilinear"),
    "upsample_bicubic2d": _resized("bicubic"),
    "upsample_trilinear3d": _resized("trilinear"),
    "_upsample_bilinear2d_aa": _resized("bilinear", antialias=True),
    "_upsample_bicubic2d_aa": _resized("bicubic", antialias=True),
    **{f"grid_sampler{end}": _sampled for end in ("", "_2d", "_3d")},
    "slice": _sliced,
    "index": _indexed,
    "alias": lambda given: (Tensor.__getitem__, (given["self"], ...), {}),
    "einsum": lambda given: (torch.einsum, (given["equation"], *given["tensors"]), {}),
    "to": _converted,
    "_to_copy": _converted,
    "lift_fresh_copy": _named(torch.clone, "self"),
    "_unsafe_view": _named(Tensor.view, "self", "size"),
    "sym_size": _named(Tensor.size, "self", "dim"),
    "_assert_tensor_metadata": _named(torch.is_tensor, "a"),  # energies have types of their own
}
"""Operators whose function has another name or order of arguments."""
