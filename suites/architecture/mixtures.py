"""Which functions of torch mix or copy units, as `fixed_functions` has to know.

Names are those of functions without the underscores at their ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...adapters.torch_calls import (
    Convolution,
    Interpolation,
    MaxPool,
    MeanPool,
    NormPool,
    Padding,
    TransposedConvolution,
    each_axis,
)
from .rule_table import MOVES
from .tags import tensors_in
from .windows import conv_windows, pool_windows

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

POOLS = frozenset({"avg_pool1d", "avg_pool2d", "avg_pool3d", "dilated_avg_pool2d"})
FILTERS: dict[str, Callable[..., Convolution | TransposedConvolution]] = {
    **{f"conv{axes}d": Convolution for axes in (1, 2, 3)},
    **{f"conv_transpose{axes}d": TransposedConvolution for axes in (1, 2, 3)},
}
RESAMPLINGS = frozenset({"interpolate", "upsample", "grid_sample"})
ADAPTIVE = frozenset({f"adaptive_avg_pool{axes}d" for axes in (1, 2, 3)})
ADAPTIVE_MAXIMA = frozenset({f"adaptive_max_pool{axes}d" for axes in (1, 2, 3)})
MEANS = frozenset({"mean", "sum"})
MATRIX_PRODUCTS = frozenset({"matmul", "rmatmul", "mm", "bmm", "einsum"})
"""Functions that sum products of the entries of two tensors."""
PRODUCTS = MATRIX_PRODUCTS | {"linear"}
"""Functions that may mix units by a fixed matrix."""
MIXTURES = POOLS | FILTERS.keys() | RESAMPLINGS | ADAPTIVE | MEANS | PRODUCTS | {"cumsum", "fold"}
MAX_POOLS = frozenset(
    f"max_pool{axes}d{places}" for axes in (1, 2, 3) for places in ("", "_with_indices")
)
NORM_POOLS = frozenset({"lp_pool2d", "dilated_lp_pool2d"})
SPATIAL = POOLS | MAX_POOLS | NORM_POOLS | FILTERS.keys() | RESAMPLINGS | ADAPTIVE | {"pad"}
"""Functions that may work on each channel by itself, where the channels are the second axis."""
COPIES = frozenset(
    """
    expand expand_as gather take_along_dim pad repeat_interleave repeat tile index_select getitem
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that may copy units, as padding with reflected ones does."""
ADDITIONS = frozenset({"add", "iadd", "radd"})
SUMS = ADDITIONS | {"sub", "isub", "subtract", "rsub"}
CONCATENATIONS = frozenset({"cat", "concat", "concatenate"})
STACKS = CONCATENATIONS | {"stack"}
JOINS = SUMS | STACKS | {"where", "setitem"}
"""Fixed functions of several tensors."""
PRODUCTS_OF_UNITS = frozenset("mul imul rmul multiply".split())  # noqa: SIM905
QUOTIENTS = frozenset("div idiv truediv itruediv true_divide divide".split())  # noqa: SIM905
NORMS = frozenset(
    """
    batch_norm native_batch_norm group_norm layer_norm rms_norm instance_norm normalize
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that divide units by a statistic of them."""
SCALES = (
    PRODUCTS_OF_UNITS
    | QUOTIENTS
    | NORMS - {"native_batch_norm", "normalize"}
    | frozenset(
        """
        neg contiguous clone nan_to_num to type type_as float double half bfloat16 cpu cuda
        positive dropout
        """.split()  # noqa: SIM905 - easier to read than a column of names
    )
)
"""Functions that multiply each unit by a constant."""
ATTENTION = frozenset({"scaled_dot_product_attention", "multi_head_attention_forward"})
"""Functions of queries, keys and values."""
ODD = frozenset({"tanh", "hardtanh", "softsign", "hardshrink", "softshrink"})
"""Activations without a mean."""
ACTIVATIONS = ODD | frozenset(
    """
    relu relu6 silu gelu hardswish leaky_relu rrelu mish elu selu celu softplus threshold prelu
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions of one unit that pass a share of its amplitude, whatever its sign."""
EXPONENTIALS = frozenset({"exp", "expm1"})
LARGEST = frozenset({"maximum", "fmax", "max", "clamp_min"})
SMALLEST = frozenset({"minimum", "fmin", "min", "clamp_max"})
BOUNDED = frozenset({"clamp", "clip"})
MAXIMA_OF_UNITS = LARGEST | SMALLEST | BOUNDED
"""Functions that may keep one of several units of the same place."""
LARGEST_OF_AXES = frozenset({"amax", "amin", "max", "min"})
"""Functions that may keep one of the units along an axis."""
UNIT_BY_UNIT = (
    SCALES
    | SUMS
    | ACTIVATIONS
    | {"abs", "exp", "expm1", "log1p", "where", "masked_fill", "tril", "triu"}
)
"""Functions that read the units of the same place."""
CHOOSE_ONE = MAX_POOLS | NORM_POOLS | MAXIMA_OF_UNITS | LARGEST_OF_AXES
"""Functions that pass one of several units, or a share of each, as their values have it."""
KEEPS = MOVES | UNIT_BY_UNIT | JOINS | MIXTURES | CHOOSE_ONE | {"pad"}
"""Functions whose results have something in common with what their inputs come from."""
REORDERINGS = MOVES & frozenset(
    """
    permute transpose swapaxes swapdims movedim moveaxis t unsqueeze squeeze unflatten flatten
    reshape view unsafe_view reshape_as view_as unbind select roll flip rot90 fliplr flipud
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Moves that copy no unit."""
CHOOSING = MOVES & {"chunk", "split", "split_with_sizes", "getitem", "narrow", "index_select"}
"""Moves that may choose entries along axes."""


def mixes(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether a unit of the result reads several units, and whether several read one.

    The function is of one tensor, and has no random weights. One that keeps the largest of several
    units reads a single one, and one that is in several windows may be the largest in each.
    """
    if name in PRODUCTS | {"cumsum", "fold"}:
        return True, True
    if name in MEANS:
        axes = summed_axes(args, kwargs)
        return axes is None or any(a > 1 for a in axes), False
    if name in ADAPTIVE:
        count = int(name[-2])
        sides = each_axis(argument(args, kwargs, 1, "output_size"), count)
        have = args[0].shape[-count:]
        uneven = any(n is not None and h % n for h, n in zip(have, sides, strict=True))
        return True, uneven
    if name in RESAMPLINGS:
        if name == "grid_sample":
            mode = argument(args, kwargs, 2, "mode") or "bilinear"
        else:
            mode = Interpolation(*args, **kwargs).mode
        return "nearest" not in mode, True
    return _windows(name, args, kwargs)


def _windows(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[bool, bool]:
    """As `mixes`, of pools and fixed filters."""
    axes = int(name[-2]) if name.endswith(("1d", "3d")) else 2
    if name in FILTERS:
        return _filters(name, FILTERS[name](*args, **kwargs))
    for names, call in ((POOLS, MeanPool), (MAX_POOLS, MaxPool), (NORM_POOLS, NormPool)):
        if name in names:
            windows = pool_windows(call(*args, **kwargs), axes)
            several = any(w.kernel > 1 for w in windows) and name not in MAX_POOLS
            return several, any(w.overlap for w in windows)
    return False, False


def _filters(name: str, call: Convolution | TransposedConvolution) -> tuple[bool, bool]:
    """As `mixes`, of filters."""
    outputs, inputs = call.weight.shape[:2]
    windows = conv_windows(call)
    reads = inputs > 1 or any(w.kernel > 1 for w in windows)
    spreads = outputs > call.groups or any(w.overlap for w in windows)
    return (spreads, reads) if "transpose" in name else (reads, spreads)


def copies(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any], x: Tensor, out: Tensor
) -> bool:
    """Whether a move gives more units than it reads, other than zeros around them."""
    if name not in COPIES or (name == "pad" and Padding(*args, **kwargs).mode == "constant"):
        return False
    if out.ndim != x.ndim:
        return False
    more = out.numel() * len(x) > x.numel() * len(out)
    chosen = [t for t in tensors_in((args[1:], kwargs)) if not t.is_meta and t.dtype != torch.bool]
    lists = args[1] if name == "getitem" and isinstance(args[1], tuple) else args[1:]
    chosen += [torch.tensor(places) for places in lists if name == "getitem" and _is_list(places)]
    return more or name == "pad" or any(t.unique().numel() < t.numel() for t in chosen)


def _is_list(index: Any) -> bool:
    """Whether an index is a list of places."""
    return isinstance(index, list) and all(type(i) is int for i in index)


def summed_axes(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[int, ...] | None:
    """The axes of a mean or a sum, from 0; None for all."""
    axes = argument(args, kwargs, 1, "dim")
    return None if axes is None else tuple(a % args[0].ndim for a in each_axis(axes, 1))


def argument(args: Sequence[Any], kwargs: Mapping[str, Any], place: int, name: str) -> Any:
    """An argument by its place or its name."""
    return args[place] if len(args) > place else kwargs.get(name)
