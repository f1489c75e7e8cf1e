"""Energy rules of torch's functions, by name; see `energy` for what they mean.

A rule takes the running `Trace` and then the function's own arguments.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..adapters.errors import NotApplicableError
from .energy import field_of, is_energy, is_weight, with_field
from .energy_windows import WINDOW_RULES
from .narrow import alias, cat, equal_axes, narrow, pointwise, reshape, uniform, widen

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .energy import Trace

Rule = "Callable[..., Any]"
RULES: dict[str, Any] = dict(WINDOW_RULES)


def rule(names: str) -> Callable[[Any], Any]:
    """Register a rule under all `names`, as torch calls them less leading and final underscores."""

    def register(function: Any) -> Any:
        for name in names.split():
            RULES[name] = function
        return function

    return register


# Entry by entry


@rule(
    "relu relu6 hardtanh silu gelu hardswish leaky_relu rrelu mish elu selu celu prelu tanh "
    "softplus hardshrink softshrink threshold softsign"
)
def _activation(trace: Trace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x if trace.paths else pointwise(lambda e: e / 2, x)


@rule("clamp clip clamp_min clamp_max")
def _clamp(
    trace: Trace,
    x: Tensor,
    min: Any = None,
    max: Any = None,
    **_: Any,  # noqa: A002 - torch's names
) -> Tensor:
    """A clamp at 0 is a ReLU; a clamp far out, as in a guard, changes nothing."""
    del max
    return _activation(trace, x) if min == 0 else x


@rule("sigmoid hardsigmoid")
def _gate(_trace: Trace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return _constant(x, 0.5)


@rule("glu")
def _glu(trace: Trace, x: Tensor, dim: int = -1) -> Tensor:
    first, second = x.chunk(2, dim)
    return _mul(trace, first, _gate(trace, second))


@rule("softmax log_softmax")
def _softmax(_trace: Trace, x: Tensor, dim: int | None = None, *_: Any, **__: Any) -> Tensor:
    return _global(_constant(x, 1 / x.shape[-1 if dim is None else dim]), x)


def _constant(x: Tensor, value: float) -> Tensor:
    """Make an amplitude of the shape of `x` that carries nothing of it, except its field."""
    return with_field(widen(x.new_full((1,) * x.ndim, value), x.shape), field_of(x))


def _global(out: Tensor, *origins: Tensor) -> Tensor:
    """Mark the units of `out` as seeing everything, beside what their field says."""
    from dataclasses import replace

    from .layers import union

    merged = union([f for f in map(field_of, origins) if f])
    return with_field(out, replace(merged, global_=True) if merged else None)


@rule(
    "dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout "
    "contiguous to float double type type_as cpu cuda neg abs positive nan_to_num requires_grad "
    "detach_copy local_response_norm half bfloat16 checkpoint exp expm1 log log1p"
)
def _identity(_trace: Trace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


@rule("clone")
def _clone(_trace: Trace, x: Tensor, **_: Any) -> Tensor:
    return alias(x)


@rule("add iadd radd sub isub subtract")
def _add(_trace: Trace, a: Any, b: Any, *, alpha: float = 1, **_: Any) -> Tensor:
    """Energies of independent terms add; constants vanish."""
    if is_energy(a) and is_energy(b):
        if alpha != 1:
            b = pointwise(lambda e: e * alpha**2, b)
        return pointwise(torch.add, a, b)
    energy, other = (a, b) if is_energy(a) else (b, a)
    if isinstance(other, Tensor):
        return widen_like(energy, torch.broadcast_shapes(energy.shape, other.shape))
    return energy  # type: ignore[no-any-return]


@rule("rsub")
def _rsub(trace: Trace, a: Any, b: Any, **_: Any) -> Tensor:
    return _add(trace, b, a)


def widen_like(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast `x` to `shape`."""
    return x if x.shape == tuple(shape) else widen(narrow(x), shape)


@rule("mul imul rmul multiply")
def _mul(trace: Trace, a: Any, b: Any, **_: Any) -> Tensor:
    """The product rule does the rest: d(ab) = b da + a db, in energies."""
    if is_energy(a) and is_energy(b):
        return pointwise(torch.add if trace.paths else torch.mul, a, b)
    energy, other = (a, b) if is_energy(a) else (b, a)
    if not isinstance(other, Tensor):
        factor = trace.coefficient(other)
        return pointwise(lambda e: e * factor, energy)
    return _scaled(energy, other, uniform(trace.coefficient(uniform_source(other))))


def uniform_source(constant: Tensor) -> Tensor:
    """Narrow a constant before anything is computed with it."""
    return constant if constant.is_meta else narrow(constant)


def _scaled(energy: Tensor, constant: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor`, the narrow form of something of the shape of `constant`."""
    shape = torch.broadcast_shapes(energy.shape, constant.shape)
    return widen(narrow(energy) * factor, shape)


@rule("div idiv truediv itruediv true_divide divide rdiv rtruediv")
def _div(trace: Trace, a: Any, b: Any, **_: Any) -> Tensor:
    if is_energy(b):
        if is_energy(a):
            return (
                a if trace.paths else pointwise(lambda e, d: e / d.detach().clamp(min=1e-30), a, b)
            )
        return _constant(b, 1.0)
    if not isinstance(b, Tensor):
        return _mul(trace, a, 1 / b)
    return _scaled(a, b, 1 / uniform(trace.coefficient(uniform_source(b))))


@rule("addcmul")
def _addcmul(trace: Trace, x: Any, a: Any, b: Any, *, value: float = 1) -> Tensor:
    product = _mul(trace, a, b) if is_energy(a) or is_energy(b) else a * b
    if is_energy(product):
        product = _mul(trace, product, value)
    return _add(trace, x, product)


@rule("lerp")
def _lerp(trace: Trace, a: Any, b: Any, weight: Any) -> Tensor:
    terms = [(a, 1 - weight), (b, weight)]
    kept = [_mul(trace, t, w) for t, w in terms if is_energy(t)]
    return kept[0] if len(kept) == 1 else _add(trace, *kept)


@rule("maximum minimum fmax fmin")
def _extreme(trace: Trace, a: Any, b: Any) -> Tensor:
    both = _add(trace, a, b)
    return both if trace.paths else pointwise(lambda e: e / 2, both)


@rule("masked_fill")
def _masked_fill(_trace: Trace, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    del value
    return x.masked_fill(mask, 0.0) if x.numel() < 1 << 22 else x


@rule("where")
def _where(trace: Trace, condition: Tensor, a: Any, b: Any) -> Tensor:
    values = [v if is_energy(v) else _energy(trace, v) for v in (a, b)]
    return torch.where(condition, *values)


def _energy(trace: Trace, constant: Any) -> Any:
    """Let a constant join energies: tokens of its own, which no pixel reaches."""
    return trace.coefficient(constant)


# Statistics and norms


@rule("pow ipow square float_power")
def _power(trace: Trace, x: Any, exponent: Any = 2) -> Tensor:
    """A square is taken for a statistic: the energy, as a constant. Other powers pass."""
    if not is_energy(x):
        return _constant(exponent, 1.0)
    return _statistic(trace, x) if not isinstance(exponent, Tensor) and exponent == 2 else x


@rule("sqrt rsqrt reciprocal")
def _root(trace: Trace, x: Tensor) -> Tensor:
    return _statistic(trace, x)


def _statistic(trace: Trace, x: Tensor) -> Tensor:
    if trace.paths:
        return _constant(x, 1.0)
    return widen(narrow(x).detach(), x.shape)


@rule("var")
def _var(
    trace: Trace, x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Tensor:
    return _average(_statistic(trace, x), _axes(x, dim), keepdim=keepdim)


@rule("std")
def _std(
    trace: Trace, x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Tensor:
    return _var(trace, x, dim, keepdim=keepdim).sqrt()


@rule("var_mean")
def _var_mean(
    trace: Trace, x: Tensor, dim: Any = None, *_: Any, keepdim: bool = False, **__: Any
) -> Any:
    return _var(trace, x, dim, keepdim=keepdim), _mean(trace, x, dim, keepdim)


@rule("norm linalg_norm linalg_vector_norm vector_norm")
def _norm(
    trace: Trace, x: Tensor, *args: Any, dim: Any = None, keepdim: bool = False, **_: Any
) -> Tensor:
    """The root of the summed energies, a constant."""
    axes = _axes(x, args[1] if len(args) > 1 else dim)
    count = math.prod(x.shape[a] for a in axes)
    total = _average(_statistic(trace, x), axes, keepdim=keepdim)
    return (total * (1 if trace.paths else count)).sqrt()


@rule("normalize")
def _normalize(trace: Trace, x: Tensor, p: float = 2.0, dim: int = 1, *_: Any, **__: Any) -> Tensor:
    del p
    return _normed(trace, x, (dim,), scale=1 / x.shape[dim])


@rule("layer_norm rms_norm")
def _layer_norm(trace: Trace, x: Tensor, shape: Sequence[int], *_: Any, **__: Any) -> Tensor:
    return _normed(trace, x, range(x.ndim - len(shape), x.ndim))


@rule("batch_norm instance_norm native_batch_norm")
def _batch_norm(trace: Trace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Each channel over its map; entries of the batch are variants and stay apart."""
    entries = len(trace.padded)
    if x.ndim == 2 and x.shape[0] % entries == 0:
        split = x.unflatten(0, (entries, -1))
        return _normed(trace, split, (1,)).flatten(0, 1)
    return _normed(trace, x, range(2, x.ndim))


@rule("group_norm")
def _group_norm(trace: Trace, x: Tensor, groups: int, *_: Any, **__: Any) -> Tensor:
    if narrow(x).shape[1] == 1 or groups == 1:
        return _normed(trace, x, range(1, x.ndim))
    split = x.unflatten(1, (groups, -1))
    return _normed(trace, split, range(2, split.ndim)).flatten(1, 2)


def _normed(trace: Trace, x: Tensor, axes: Sequence[int], scale: float = 1.0) -> Tensor:
    """Divide by the detached mean energy over `axes`."""
    if trace.paths:
        return x
    small = narrow(x)
    mean = small.detach().mean(tuple(axes), keepdim=True).clamp(min=1e-30)
    return widen(small * (scale / mean), x.shape)


# Sums over axes


def _axes(x: Tensor, dim: Any) -> tuple[int, ...]:
    if dim is None:
        return tuple(range(x.ndim))
    return tuple(d % x.ndim for d in ((dim,) if isinstance(dim, int) else dim))


def _average(x: Tensor, axes: tuple[int, ...], *, keepdim: bool) -> Tensor:
    """Mean over `axes`, on the narrow tensor."""
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)]
    mean = narrow(x).mean(axes, keepdim=True)
    if keepdim:
        return widen(mean, shape)
    kept = [d for d in range(x.ndim) if d not in axes]
    flat = mean.reshape([mean.shape[d] for d in kept])
    return widen(flat, [x.shape[d] for d in kept])


@rule("mean")
def _mean(trace: Trace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """A mean over n independent entries has 1/n of their mean energy."""
    axes = _axes(x, dim)
    count = math.prod(x.shape[a] for a in axes)
    factor = count if trace.paths else 1 / count
    return _pooled(x, axes, pointwise(lambda e: e * factor, _average(x, axes, keepdim=keepdim)))


@rule("sum")
def _sum(_trace: Trace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    axes = _axes(x, dim)
    count = math.prod(x.shape[a] for a in axes)
    return _pooled(x, axes, pointwise(lambda e: e * count, _average(x, axes, keepdim=keepdim)))


@rule("amax amin logsumexp")
def _amax(trace: Trace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Tensor:
    """Each of n entries is the largest in 1/n of the cases."""
    if trace.paths:
        return _sum(trace, x, dim, keepdim)
    axes = _axes(x, dim)
    return _pooled(x, axes, _average(x, axes, keepdim=keepdim))


@rule("max min")
def _max(trace: Trace, x: Tensor, dim: Any = None, keepdim: bool = False, **_: Any) -> Any:
    if isinstance(dim, Tensor):
        return _extreme(trace, x, dim)
    values = _amax(trace, x, dim, keepdim)
    return values if dim is None else (values, torch.zeros(values.shape, dtype=torch.long))


def _pooled(x: Tensor, axes: tuple[int, ...], out: Tensor) -> Tensor:
    """Drop the local field where a whole map was averaged away."""
    from dataclasses import replace

    found = field_of(x)
    if found is None:
        return out
    taken = {x.shape[a] for a in axes}
    rows, columns = found.grid
    whole = rows * columns in taken or (x.ndim == 4 and {rows, columns} <= taken and len(axes) > 1)
    if whole and rows * columns > 1 and not set(axes) <= set(equal_axes(x)):
        return with_field(out, replace(found, low=None, high=None, global_=True))
    return out


# Products with weights, constants and each other


@rule("linear")
def _linear(trace: Trace, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    del bias
    return _contract(trace, x, weight.shape[:-1])


def _contract(_trace: Trace, x: Tensor, out: Sequence[int]) -> Tensor:
    """Random weights over the last axis: the mean, for each of the new entries `out`."""
    small = narrow(x)
    mean = small.mean(-1, keepdim=True) if small.shape[-1] > 1 else small
    mean = mean if len(out) else mean.squeeze(-1)
    result = widen(mean, (*x.shape[:-1], *out))
    found = field_of(x)
    if small.shape[-1] > 1 and found and math.prod(found.grid) > 1:
        rows, columns = found.grid
        if x.shape[-1] in {rows * columns, rows, columns}:
            return _global(result, x)
    return result


@rule("matmul bmm mm imatmul")
def _matmul(trace: Trace, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim < 2 or b.ndim < 2:
        raise NotApplicableError("a product of vectors has no energy rule")
    if not is_energy(a):
        return _left(trace, a, b)
    if not is_energy(b):
        return _left(trace, b.mT, a.mT).mT
    return _both(trace, a, b)


@rule("rmatmul")
def _rmatmul(trace: Trace, a: Tensor, b: Tensor) -> Tensor:
    return _matmul(trace, b, a)


def _left(trace: Trace, constant: Tensor, x: Tensor) -> Tensor:
    """`constant` (..., m, k) times the energy `x` (..., k, n)."""
    batch = torch.broadcast_shapes(constant.shape[:-2], x.shape[:-2])
    shape = (*batch, constant.shape[-2], x.shape[-1])
    if is_weight(constant):
        return widen_like(_contract(trace, x.mT, (1,)).mT, shape)
    factor = uniform(trace.coefficient(narrow(constant)))
    small = narrow(x)
    if factor.shape[-1] == 1:
        copies = x.shape[-2] // small.shape[-2]
        return widen(factor * small.sum(-2, keepdim=True) * copies, shape)
    full = factor.expand(*factor.shape[:-2], factor.shape[-2], constant.shape[-1])
    return widen(full @ small.expand(*small.shape[:-2], x.shape[-2], small.shape[-1]), shape)


LARGEST_PRODUCT = 1 << 22
"""Entries of a product of two energies beyond which it is replaced by its mean field."""


def _both(trace: Trace, a: Tensor, b: Tensor) -> Tensor:
    """Product of two energies (..., m, k) and (..., k, n)."""
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    first, second = narrow(a), narrow(b)
    if trace.paths:
        return widen(first.sum(-1, keepdim=True) + second.sum(-2, keepdim=True), shape)
    count = a.shape[-1]
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    entries = math.prod(batch) * first.shape[-2] * second.shape[-1]
    if entries > LARGEST_PRODUCT:
        mean = first.mean((-2, -1), keepdim=True) * second.mean((-2, -1), keepdim=True)
        return widen(mean * count, shape)
    if first.shape[-1] == 1 or second.shape[-2] == 1:
        product = first.mean(-1, keepdim=True) * second.mean(-2, keepdim=True) * count
        return widen(product, shape)
    return widen(first @ second, shape)


@rule("baddbmm addmm addbmm")
def _addmm(trace: Trace, x: Any, a: Tensor, b: Tensor, **_: Any) -> Tensor:
    product = _matmul(trace, a, b) if is_energy(a) or is_energy(b) else a @ b
    return _add(trace, x, product)


@rule("einsum")
def _einsum(trace: Trace, equation: str, *operands: Any) -> Tensor:
    """Weights become 1 / fan_in, constants their squares; then the same sum."""
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    sizes = {
        c: n for t, x in zip(terms, tensors, strict=True) for c, n in zip(t, x.shape, strict=False)
    }
    factors = []
    for term, x in zip(terms, tensors, strict=True):
        if is_energy(x):
            factors.append(x)
        elif is_weight(x):
            fan_in = math.prod(sizes[c] for c in term if c not in output)
            factors.append(torch.full(x.shape, 1 / fan_in, dtype=torch.float64))
        else:
            factors.append(trace.coefficient(x).expand(x.shape))
    return torch.einsum(equation, *factors)


@rule("scaled_dot_product_attention")
def _attention(
    trace: Trace, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Tensor:
    """Uniform attention: every query reads the mean over all tokens."""
    count = value.shape[-2]
    factor = count if trace.paths else 1 / count
    mean = narrow(value).mean(-2, keepdim=True) * factor
    heads = torch.broadcast_shapes(query.shape[:-2], value.shape[:-2])
    return _global(widen(mean, (*heads, query.shape[-2], value.shape[-1])), query, key, value)


@rule("multi_head_attention_forward")
def _multi_head(trace: Trace, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> Any:
    """The whole of `nn.MultiheadAttention`, tokens first: a mean over tokens and channels."""
    factor = value.shape[0] if trace.paths else 1 / value.shape[0]
    mean = narrow(value).mean((0, -1), keepdim=True) * factor
    return _global(widen(mean, query.shape), query, key, value), None


@rule("lstm gru rnn_tanh rnn_relu")
def _recurrent(_trace: Trace, *_: Any, **__: Any) -> Tensor:
    raise NotApplicableError("a recurrent layer has no energy rule")


# Joining and moving


@rule("cat concat concatenate")
def _cat(trace: Trace, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    return cat(_joinable(trace, tensors), dim)


@rule("stack")
def _stack(trace: Trace, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Tensor:
    dim %= tensors[0].ndim + 1
    return cat([t.unsqueeze(dim) for t in _joinable(trace, tensors)], dim)


def _joinable(trace: Trace, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Constants among energies become energies, averaged over the axes where those are equal."""
    energies = [t for t in tensors if is_energy(t)]
    axes = set.intersection(*(set(equal_axes(t)) for t in energies))
    joined = []
    for t in tensors:
        if is_energy(t):
            joined.append(t)
            continue
        constant = trace.coefficient(t).expand(t.shape)
        mean = constant.mean(sorted(axes), keepdim=True) if axes else constant
        joined.append(widen(mean, t.shape))
    return joined


@rule("reshape view unsafe_view")
def _reshape(_trace: Trace, x: Tensor, *shape: Any) -> Tensor:
    if len(shape) == 1 and not isinstance(shape[0], int):
        shape = tuple(shape[0])
    return reshape(x, shape)


@rule("reshape_as view_as")
def _reshape_as(_trace: Trace, x: Tensor, other: Tensor) -> Tensor:
    return reshape(x, other.shape)


@rule("flatten")
def _flatten(_trace: Trace, x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    start, end = start_dim % x.ndim, end_dim % x.ndim
    merged = math.prod(x.shape[start : end + 1])
    return reshape(x, (*x.shape[:start], merged, *x.shape[end + 1 :]))


@rule("roll")
def _roll(_trace: Trace, x: Tensor, shifts: Any, dims: Any = None, **_: Any) -> Tensor:
    return (
        torch.roll(x, shifts, dims)
        if dims is None
        else widen(torch.roll(narrow(x), shifts, dims), x.shape)
    )


@rule("flip")
def _flip(_trace: Trace, x: Tensor, *dims: Any) -> Tensor:
    axes = dims[0] if len(dims) == 1 and not isinstance(dims[0], int) else dims
    return widen(torch.flip(narrow(x), axes), x.shape)
