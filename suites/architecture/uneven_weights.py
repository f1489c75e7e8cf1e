"""Weights whose entries are not alike: masked, written to, padded, joined or added ones.

Of random weights only the shape is known, and every entry has the second moment 1 / fan-in. Where a
network computes what it multiplies by (`weight * mask`, `weight[:, :, 0] = 0`, a 1 x 1 kernel that
is padded and added to a 3 x 3 one), the second moments of the entries are followed: factors count
relative to the largest, zeros stay zeros, and moments of different weights add up.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from ...adapters.errors import NotApplicableError
from ...adapters.skeleton_marks import KERNEL_DOUBT, SECOND_MOMENTS
from .in_place import whole_and_place
from .mixtures import STACKS, SUMS
from .rule_table import MOVES, is_weight
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_UNKNOWN, _ROOTS, _SUMMED = "moments_unknown_behind", "made_of", "sums_of"

_LEVEL = "moment_of_origin"
"""Of a part or view of weights: the second moment of an entry of these."""

_ALIKE = frozenset(
    """
    to type type_as float double cpu cuda clone contiguous detach neg abs positive requires_grad
    get weight_norm normalize parameter
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that keep the entries of their first argument, up to a factor for all."""

_PLACING = MOVES | {
    *("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "pad"),
    *("tril", "triu", "where", "masked_fill"),
}
"""Functions that move entries, or put constants in their place."""

_WRITING = frozenset({"setitem", "zero", "fill", "copy"})
"""Functions that write into their first argument."""

_FACTORS = frozenset({"mul", "imul", "rmul", "multiply", "div", "truediv", "itruediv", "divide"})

_REDUCING = frozenset(
    """
    sum mean var std var_mean norm linalg_norm linalg_vector_norm vector_norm amax amin max min
    """.split()  # noqa: SIM905 - easier to read than a column of names
)

_MIXING = frozenset(
    """
    interpolate conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d
    avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool2d cumsum grid_sample fold
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions whose results mix entries unevenly, also such as are alike."""

_PRODUCTS = frozenset({"matmul", "rmatmul", "mm", "bmm", "einsum", "tensordot", "linear", "addmm"})
"""Functions that mix entries unevenly by a fixed matrix, such as a basis of filters."""

_ODD = frozenset(
    """
    tanh sin erf sign round clamp clip dropout hardtanh batch_norm layer_norm group_norm rms_norm
    instance_norm
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that leave a mean of 0."""


def moments_of_entries(weight: Any) -> Tensor | None:
    """Second moments of the entries of random weights; None if they are alike.

    Raises `NotApplicableError` if they are not alike, and unknown.
    """
    behind = getattr(weight, _UNKNOWN, None)
    if behind is not None:
        raise NotApplicableError(f"weights that are not alike pass {behind!r}")
    found: Tensor | None = getattr(weight, SECOND_MOMENTS, None)
    return None if found is None else found * (_own_level(weight) / _level(weight))


def relative_moments(weight: Any) -> Tensor | None:
    """`moments_of_entries`, 1 for the largest."""
    found = moments_of_entries(weight)
    return None if found is None else found / found.amax().clamp(min=1e-300)


def turned(weight: Tensor) -> Tensor:
    """The transposed matrix, with what is known of its entries."""
    found = weight.mT
    for name in (SECOND_MOMENTS, _UNKNOWN):
        if hasattr(weight, name):
            value = getattr(weight, name)
            setattr(found, name, value.mT if name == SECOND_MOMENTS else value)
    if is_weight(weight):
        found.random = True  # type: ignore[attr-defined]
        setattr(found, _LEVEL, _level(weight))
    return found


def read_entries(weight: Tensor) -> Tensor | None:
    """Which entries of a weight or filter are read (bool); None for all."""
    if is_weight(weight):
        moments = moments_of_entries(weight)
        return None if moments is None else moments != 0
    return None if weight.is_meta or bool((weight != 0).all()) else weight != 0


def follow_moments(name: str, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """Set what is known of the entries of `out`, computed from weights and constants alone."""
    weights = [t for t in tensors_in((args, kwargs)) if is_weight(t)]
    uneven = [t for t in weights if hasattr(t, SECOND_MOMENTS) or hasattr(t, _UNKNOWN)]
    if name in _WRITING:
        if weights:
            _write(args[0], 0.0 if name == "zero" else args[-1], args[1] if len(args) > 2 else ...)
        return out
    if not weights or not isinstance(out, Tensor | list | tuple):
        return out
    unknown = next((getattr(t, _UNKNOWN) for t in uneven if hasattr(t, _UNKNOWN)), None)
    if name in _REDUCING:
        return _reduced(name, func, args, kwargs, out)
    if unknown is None and (uneven or name in _FACTORS | SUMS | (_PLACING - MOVES)):
        unknown = _set(name, func, args, kwargs, out)
    for t in tensors_in(out):
        if unknown is not None:
            setattr(t, _UNKNOWN, unknown)
        setattr(t, _ROOTS, frozenset().union(*map(parameters_of, weights)))
        known = [getattr(w, KERNEL_DOUBT, None) for w in _whole(weights)]
        doubts = [_doubt(name, weights, (args, kwargs), t), *known]
        doubt = next((d for d in doubts if d is not None), None)
        if doubt is not None:
            setattr(t, KERNEL_DOUBT, doubt)
        if name in MOVES | _FACTORS | _ALIKE:
            setattr(t, _LEVEL, _level(weights[0]))
    if out is args[0] and is_weight(out):
        _write_whole(out)
    return out


def _doubt(name: str, weights: Sequence[Tensor], given: Any, out: Tensor) -> str | None:
    """What is assumed of weights that a function computes from others, in words."""
    beside = [t for t in tensors_in(given) if not is_weight(t) and t.numel() > 1]
    by_fixed = name in _PRODUCTS and any(t.is_floating_point() for t in beside)
    if name in _MIXING or by_fixed:
        return f"the entries of weights that {name!r} computes are alike"
    owners = frozenset[tuple[int, int]]().union(*map(parameters_of, weights))
    if name in STACKS and out.numel() > sum(size for _, size in owners) > 0:
        return "weights that are joined are independent"
    known = (_ALIKE - {"abs"}) | _PLACING | _WRITING | _FACTORS | SUMS | _PRODUCTS | _ODD
    if name in known or out.shape != weights[0].shape or not out.is_floating_point():
        return None
    return f"the weights that {name!r} computes have a mean of 0"


def _whole(weights: Sequence[Tensor]) -> Sequence[Tensor]:
    """The weights that are no sums or statistics, as those that standardise others; else all."""
    return [w for w in weights if not hasattr(w, _SUMMED)] or weights


def _reduced(name: str, func: Any, args: Any, kwargs: Any, out: Any) -> Any:
    """The result of a sum or statistic of weights; only of a sum the second moments are known."""
    weights = [t for t in tensors_in((args, kwargs)) if is_weight(t)]
    for t in tensors_in(out):
        setattr(t, _SUMMED, frozenset().union(*map(parameters_of, weights)))
    moments = getattr(weights[0], SECOND_MOMENTS, None)
    if name == "sum" and moments is not None and isinstance(out, Tensor):
        with torch.no_grad():
            _keep(out, func(moments, *args[1:], **kwargs))
        setattr(out, KERNEL_DOUBT, f"the entries of weights that {name!r} computes are independent")
    elif name == "mean" and isinstance(out, Tensor):
        setattr(
            out, KERNEL_DOUBT, f"the weights that {name!r} computes have a variance of 1 / fan-in"
        )
    return out


def _set(name: str, func: Any, args: Any, kwargs: Any, out: Any) -> str | None:
    """Set the second moments of `out`; the name of the function if they are unknown."""
    rule = _rule(name)
    if rule is None:
        return name
    with torch.no_grad():
        found = rule(name, func, args, kwargs)
    for t, moments in zip(tensors_in(out), tensors_in(found), strict=True):
        if moments.shape != t.shape:
            return name
        _keep(t, moments)
    if name in SUMS and _shared(args):
        doubt = "the weights that are added to or subtracted from each other are independent"
        setattr(out, KERNEL_DOUBT, doubt)
    return None


def _rule(name: str) -> Callable[..., Any] | None:
    if name in _FACTORS:
        return _scaled
    if name in SUMS:
        return _added
    if name in _PLACING:
        return _placed
    return _same if name in _ALIKE else None


def _keep(t: Tensor, moments: Tensor) -> None:
    """Remember `moments`, or that all are alike."""
    alike = moments.numel() > 0 and bool((moments == moments.flatten()[0]).all())
    if not alike or not bool(moments.any()):
        setattr(t, SECOND_MOMENTS, moments)
        return
    vars(t).pop(SECOND_MOMENTS, None)
    if whole_and_place(t)[0] is not t:
        setattr(t, _LEVEL, float(moments.flatten()[0]))


def _dense(t: Any) -> Any:
    """The second moments of a weight, or the squares of a constant."""
    if not isinstance(t, Tensor):
        return t
    if not is_weight(t):
        return t.to(torch.float64) ** 2 if t.is_floating_point() else t
    found: Tensor | None = getattr(t, SECOND_MOMENTS, None)
    return torch.full(t.shape, _level(t), dtype=torch.float64) if found is None else found


def _own_level(t: Tensor) -> float:
    """1 / fan-in by the shape of `t`."""
    return 1 / (math.prod(t.shape[1:]) or 1)


def _level(t: Tensor) -> float:
    """The second moment of an entry of the weights that `t` is made of."""
    found: float = getattr(t, _LEVEL, _own_level(t))
    return found


def _placed(_name: str, func: Any, args: Any, kwargs: Any) -> Any:
    inplace = func.__name__.endswith("_") and not func.__name__.endswith("__")
    function = getattr(Tensor, func.__name__.strip("_")) if inplace else func
    found = tree_map(_dense, (args, kwargs))
    if inplace and isinstance(found[0][0], Tensor):
        return function(found[0][0].clone(), *found[0][1:], **found[1])
    return function(*found[0], **found[1])


def _same(name: str, func: Any, args: Any, _kwargs: Any) -> Any:
    return func(_dense(args[0])) if name == "get" else _dense(args[0])


def _scaled(name: str, _func: Any, args: Any, _kwargs: Any) -> Any:
    """Weights times a constant, relative to the largest factor, or times other weights."""
    a, b = args[:2]
    if name in {"div", "truediv", "itruediv", "divide"}:
        b = 1 / b if isinstance(b, Tensor) and not is_weight(b) else 1.0
    if whole_and_place(a)[0] is not a and not isinstance(b, Tensor):
        return _dense(a) * abs(args[1]) ** (-2 if "div" in name else 2)
    first, second = (_relative(t) for t in (a, b))
    scale = max((float(_dense(t).amax()) for t in (a, b) if is_weight(t)), default=1.0)
    return first * second * scale


def _relative(t: Any) -> Any:
    """Second moments relative to the largest, 1 for a number."""
    if not isinstance(t, Tensor):
        return 1.0 if t else 0.0
    if t.is_meta and not is_weight(t):
        return 1.0
    found = _dense(t).to(torch.float64)
    largest = found.amax() if found.numel() else found.new_ones(())
    return found / largest if bool(largest) else found


def _added(_name: str, _func: Any, args: Any, kwargs: Any) -> Any:
    """Moments of weights add up; a constant adds none: it is no weight."""
    a, b = (
        _dense(t)
        if isinstance(t, Tensor) and is_weight(t)
        else torch.zeros(getattr(t, "shape", ()))
        for t in args[:2]
    )
    return a + b * abs(kwargs.get("alpha", 1)) ** 2


def parameters_of(t: Tensor) -> frozenset[tuple[int, int]]:
    """The parameters that `t` was computed from, entry by entry: their ids and sizes."""
    if isinstance(t, nn.Parameter):
        return frozenset({(id(t), t.numel())})
    found: frozenset[tuple[int, int]] = getattr(t, _ROOTS, frozenset())
    return found


def read_parameters(t: Tensor) -> frozenset[tuple[int, int]]:
    """The parameters that `t` was computed from in any way, or its own id."""
    summed: frozenset[tuple[int, int]] = getattr(t, _SUMMED, frozenset())
    return parameters_of(t) | summed or frozenset({(id(t), t.numel())})


def _shared(args: Any) -> bool:
    """Whether two terms are made of the same weights."""
    first, second = (parameters_of(t) if isinstance(t, Tensor) else frozenset() for t in args[:2])
    return not first.isdisjoint(second)


def _write(x: Tensor, value: Any, index: Any) -> None:
    """Write `value` into `x`, and so into what `x` is a part of; a constant becomes a weight."""
    moments = _dense(x).expand(x.shape).clone()
    value = _dense(value)
    moments[index] = value if isinstance(value, Tensor) else float(value) ** 2
    x.random = True  # type: ignore[attr-defined]
    _keep(x, moments)
    _write_whole(x)


def _write_whole(x: Tensor) -> None:
    """Write the part `x` into the weight that it is a part of."""
    whole, place = whole_and_place(x)
    if whole is not x:
        _write(whole, x, place)
