"""Energy rules of norms, statistics and sums over axes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ..compact import alias, compress, pointwise, widen
from ..rule_table import (
    constant_amplitude,
    constant_share,
    is_energy,
    rule,
    with_constant_share,
)
from .elementwise import maximum_rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..trace import EnergyTrace


@rule("pow", "ipow", "square", "float_power")
def _power(trace: EnergyTrace, x: Any, exponent: Any = 2) -> Tensor:
    """A square is treated as a statistic: the energy, as a constant. Other powers: identity.

    The square of a rectified x, r(x)^2, is an activation: of normal x with the energy e, which r
    halves, the squared derivative 4 x^2 of the positive half has the mean 4 e, relative to r's.
    """
    if not is_energy(x):
        return constant_amplitude(exponent, 1.0)
    if isinstance(exponent, Tensor) or exponent != 2:
        return _other_power(trace, x, exponent)
    if not hasattr(x, "rectified"):
        return statistic(trace, x)
    return alias(x) if trace.paths else pointwise(lambda r: r * 8 * r.detach(), x)


def _other_power(trace: EnergyTrace, x: Tensor, exponent: Any) -> Tensor:
    """The identity; an exponent of several numbers, or a learned one, begins at 1."""
    if isinstance(exponent, Tensor) or exponent == 1:
        return x
    out = pointwise(torch.clone, x)
    trace.assume(out, f"the power {exponent:g} passes all of the energy")
    return out


@rule("sqrt", "rsqrt", "reciprocal")
def _root(trace: EnergyTrace, x: Tensor) -> Tensor:
    return statistic(trace, x)


def statistic(trace: EnergyTrace, x: Tensor) -> Tensor:
    """The energy of `x`, as a constant."""
    if trace.paths:
        return constant_amplitude(x, 1.0)
    trace.read_as_constants.append(x)
    return widen(compress(x).detach(), x.shape)


@rule("var")
def _var(
    trace: EnergyTrace, x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Tensor:
    return average(statistic(trace, x), axes_of(x, dim), keepdim=keepdim)


@rule("std")
def _std(
    trace: EnergyTrace, x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Tensor:
    return _var(trace, x, dim, keepdim=keepdim).sqrt()


@rule("norm", "linalg_norm", "linalg_vector_norm", "vector_norm")
def _norm(
    trace: EnergyTrace, x: Tensor, *args: Any, dim: Any = None, keepdim: bool = False, **named: Any
) -> Tensor:
    """The norm of units of the mean energy along the axes, as a constant."""
    axes = axes_of(x, args[1] if len(args) > 1 else dim)
    keepdim = args[2] if len(args) > 2 else keepdim
    count = math.prod(x.shape[a] for a in axes)
    mean = average(statistic(trace, x), axes, keepdim=keepdim)
    order = args[0] if args else named.get("p", named.get("ord"))
    return (mean * (1 if trace.paths else _squared_norm(order, count))).sqrt()


@rule("normalize")
def _normalize(
    trace: EnergyTrace, x: Tensor, p: float = 2.0, dim: Any = 1, *_: Any, **__: Any
) -> Tensor:
    axes = axes_of(x, dim)
    count = math.prod(x.shape[a] for a in axes)
    return _normed(trace, x, axes, scale=1 / _squared_norm(p, count))


def _squared_norm(order: Any, count: int) -> float:
    """Square of the norm of `count` units of energy 1: sum of squares, or of absolute values.

    These have the mean sqrt(2 / pi) for normal units.
    """
    if order in (None, 2, "fro"):
        return count
    if order != 1:
        raise NotApplicableError(f"its norm is {order}, and not 1 or 2")
    return 2 / math.pi * count**2


@rule("layer_norm", "rms_norm")
def _layer_norm(trace: EnergyTrace, x: Tensor, shape: Sequence[int], *_: Any, **__: Any) -> Tensor:
    return _normed(trace, x, range(x.ndim - len(shape), x.ndim))


@rule("batch_norm", "native_batch_norm")
def _batch_norm(trace: EnergyTrace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """As `_instance_norm`, with the parts of a map that are entries of the batch as one map."""
    entries, count = len(trace.padded), x.shape[0]
    if trace.paths or x.ndim < 3 or count <= entries or count % entries:
        return _instance_norm(trace, x)
    whole = torch.unflatten(x, 0, (entries, -1)).transpose(1, 2)  # (variants, channels, parts, ...)
    whole = with_constant_share(whole, constant_share(x))
    out = _instance_norm(trace, whole)
    parts = out.transpose(1, 2).flatten(0, 1)
    return with_constant_share(parts, constant_share(out))


@rule("instance_norm")
def _instance_norm(trace: EnergyTrace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Divide each channel by its variance over the map, which excludes the constant share.

    Entries of the batch are variants and are normalised separately.
    """
    entries = len(trace.padded)
    share = constant_share(x)
    if trace.paths or share is None:
        return _normed(trace, x, range(2, x.ndim) if x.ndim > 2 else (0,))
    slope = 1 / (1 - share).clamp(min=1e-6)
    if x.ndim == 2 and x.shape[0] % entries == 0:
        split = torch.unflatten(x, 0, (entries, -1))
        out = _normed(trace, split, (1,), slope=slope[:, None, None]).flatten(0, 1)
    else:
        each = slope.repeat_interleave(max(1, x.shape[0] // entries))[: x.shape[0]]
        derivatives = each.view(-1, *[1] * (x.ndim - 1))
        out = _normed(trace, x, range(2, x.ndim), slope=derivatives)
    return with_constant_share(out, torch.zeros_like(share))


@rule("group_norm")
def _group_norm(trace: EnergyTrace, x: Tensor, groups: int, *_: Any, **__: Any) -> Tensor:
    if compress(x).shape[1] == 1 or groups == 1:
        return _normed(trace, x, range(1, x.ndim))
    split = x.unflatten(1, (groups, -1))
    return _normed(trace, split, range(2, split.ndim)).flatten(1, 2)


def _normed(
    trace: EnergyTrace,
    x: Tensor,
    axes: Sequence[int],
    scale: float = 1.0,
    slope: Tensor | None = None,
) -> Tensor:
    """Divide by the detached mean energy over `axes`; `slope` multiplies only the gradient."""
    if trace.paths:
        return x
    small = compress(x)
    mean = small.detach().mean(tuple(axes), keepdim=True).clamp(min=1e-30)
    out = small * (scale / mean)
    if slope is not None:
        out = out.detach() + (out - out.detach()) * slope
    return widen(out, x.shape)


def axes_of(x: Tensor, dim: Any) -> tuple[int, ...]:
    """The axes that torch's `dim` means: None for all, an int or several; from 0."""
    if dim is None:
        return tuple(range(x.ndim))
    return tuple(d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim))


def average(x: Tensor, axes: tuple[int, ...], *, keepdim: bool) -> Tensor:
    """Mean over `axes`, computed on the compact tensor."""
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)]
    mean = compress(x).mean(axes, keepdim=True)
    if keepdim:
        return widen(mean, shape)
    kept = [d for d in range(x.ndim) if d not in axes]
    flat = mean.reshape([mean.shape[d] for d in kept])
    return widen(flat, [x.shape[d] for d in kept])


@rule("mean")
def _mean(
    trace: EnergyTrace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    """A mean over n independent entries has 1/n of their mean energy."""
    axes = axes_of(x, dim)
    count = math.prod(x.shape[a] for a in axes)
    factor = count if trace.paths else 1 / count
    return pointwise(lambda e: e * factor, average(x, axes, keepdim=keepdim))


@rule("sum")
def _sum(
    _trace: EnergyTrace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    axes = axes_of(x, dim)
    count = math.prod(x.shape[a] for a in axes)
    return pointwise(lambda e: e * count, average(x, axes, keepdim=keepdim))


@rule("logsumexp")
def _log_sum(trace: EnergyTrace, x: Tensor, dim: Any, keepdim: bool = False, **_: Any) -> Tensor:
    """Its derivatives are those of a softmax, which is uniform."""
    return _mean(trace, x, dim, keepdim)


@rule("amax", "amin")
def _amax(
    trace: EnergyTrace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    """Each of n entries is the largest with probability 1/n."""
    if trace.paths:
        return _sum(trace, x, dim, keepdim)
    axes = axes_of(x, dim)
    return average(x, axes, keepdim=keepdim)


@rule("max", "min")
def _max(trace: EnergyTrace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if isinstance(dim, Tensor):
        return maximum_rule(trace, x, dim)
    values = _amax(trace, x, dim, keepdim)
    return values if dim is None else (values, torch.zeros(values.shape, dtype=torch.long))
