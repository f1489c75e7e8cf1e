"""Energy rules of products: of activations with weights, with constants and with each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ..compact import compress, compress_uniform, widen
from ..rule_table import field_of, is_energy, is_weight, mark_global, rule
from .elementwise import add, widen_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..trace import EnergyTrace


@rule("linear")
def _linear(trace: EnergyTrace, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    del bias
    return _contract(trace, x, weight.shape[:-1])


def _contract(_trace: EnergyTrace, x: Tensor, out: Sequence[int]) -> Tensor:
    """Random weights over the last axis: its mean, for each of the outputs (*out,)."""
    small = compress(x)
    mean = small.mean(-1, keepdim=True) if small.shape[-1] > 1 else small
    mean = mean if len(out) else mean.squeeze(-1)
    result = widen(mean, (*x.shape[:-1], *out))
    return mark_global(result, x) if small.shape[-1] > 1 and _sums_units(x, -1) else result


def _sums_units(x: Tensor, axis: int) -> bool:
    """Whether `axis` of `x` enumerates the units of its grid, or its rows or columns."""
    found = field_of(x)
    if found is None or math.prod(found.grid) == 1:
        return False
    rows, columns = found.grid
    return x.shape[axis] in {rows * columns, rows, columns}


@rule("matmul", "bmm", "mm", "imatmul")
def _matmul(trace: EnergyTrace, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim < 2 or b.ndim < 2:
        raise NotApplicableError("a product of vectors has no energy rule")
    if not is_energy(a):
        return _left(trace, a, b)
    if not is_energy(b):
        return _left(trace, b.mT, a.mT).mT
    product = _both(trace, a, b)
    tokens = compress(a).shape[-1] > 1 and _sums_units(a, -1)
    return mark_global(product, a, b) if tokens else product


@rule("rmatmul")
def _rmatmul(trace: EnergyTrace, a: Tensor, b: Tensor) -> Tensor:
    return _matmul(trace, b, a)


def _left(trace: EnergyTrace, constant: Tensor, x: Tensor) -> Tensor:
    """`constant` (..., m, k) times the energy `x` (..., k, n)."""
    batch = torch.broadcast_shapes(constant.shape[:-2], x.shape[:-2])
    shape = (*batch, constant.shape[-2], x.shape[-1])
    if is_weight(constant):
        return widen_like(_contract(trace, x.mT, (1,)).mT, shape)
    factor = compress_uniform(trace.coefficient(compress(constant)))
    small = compress(x)
    if factor.shape[-1] == 1:
        copies = x.shape[-2] // small.shape[-2]
        return widen(factor * small.sum(-2, keepdim=True) * copies, shape)
    full = factor.expand(*factor.shape[:-2], factor.shape[-2], constant.shape[-1])
    return widen(full @ small.expand(*small.shape[:-2], x.shape[-2], small.shape[-1]), shape)


LARGEST_PRODUCT = 1 << 16
"""Size above which a product of two energies is approximated by the product of their means."""


def _both(trace: EnergyTrace, a: Tensor, b: Tensor) -> Tensor:
    """Product of two energies (..., m, k) and (..., k, n)."""
    shape = (*torch.broadcast_shapes(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
    first, second = compress(a), compress(b)
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


@rule("baddbmm", "addmm", "addbmm")
def _addmm(trace: EnergyTrace, x: Any, a: Tensor, b: Tensor, **_: Any) -> Tensor:
    product = _matmul(trace, a, b) if is_energy(a) or is_energy(b) else a @ b
    return add(trace, x, product)


@rule("einsum")
def _einsum(trace: EnergyTrace, equation: str, *operands: Any) -> Tensor:
    """The same sum of products, of 1 / fan_in for weights and of squares for constants."""
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    sizes = {
        c: n for t, x in zip(terms, tensors, strict=True) for c, n in zip(t, x.shape, strict=False)
    }
    factors = [_factor(trace, t, x, output, sizes) for t, x in zip(terms, tensors, strict=True)]
    if "." in equation or "->" not in equation:
        full = [f.expand(x.shape) for f, x in zip(factors, tensors, strict=True)]
        return torch.einsum(equation, *full)
    dense = {
        c
        for t, f in zip(terms, factors, strict=True)
        for c, n in zip(t, f.shape, strict=True)
        if n > 1
    }
    short = {c: n if c in dense else 1 for c, n in sizes.items()}
    full = [f.expand([short[c] for c in t]) for t, f in zip(terms, factors, strict=True)]
    copies = math.prod(n for c, n in sizes.items() if c not in dense and c not in output)
    return widen(torch.einsum(equation, *full) * copies, [sizes[c] for c in output])


def _factor(trace: EnergyTrace, term: str, x: Tensor, output: str, sizes: dict[str, int]) -> Tensor:
    """The compact factor for the operand `x`, with the axes `term`, in a sum of products."""
    if is_energy(x):
        return compress(x)
    if is_weight(x):
        fan_in = math.prod(sizes[c] for c in term if c not in output)
        return torch.full((1,) * x.ndim, 1 / fan_in, dtype=torch.float64)
    return compress_uniform(trace.coefficient(compress(x)))


@rule("scaled_dot_product_attention")
def _attention(
    trace: EnergyTrace, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Tensor:
    """Uniform attention: every query receives the mean over all tokens."""
    count = value.shape[-2]
    factor = count if trace.paths else 1 / count
    mean = compress(value).mean(-2, keepdim=True) * factor
    heads = torch.broadcast_shapes(query.shape[:-2], value.shape[:-2])
    return mark_global(widen(mean, (*heads, query.shape[-2], value.shape[-1])), query, key, value)


@rule("multi_head_attention_forward")
def _multi_head(
    trace: EnergyTrace, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Any:
    """The whole of `nn.MultiheadAttention`, tokens first: a mean over tokens and channels."""
    factor = value.shape[0] if trace.paths else 1 / value.shape[0]
    mean = compress(value).mean((0, -1), keepdim=True) * factor
    return mark_global(widen(mean, query.shape), query, key, value), None


@rule("lstm", "gru", "rnn_tanh", "rnn_relu")
def _recurrent(_trace: EnergyTrace, *_: Any, **__: Any) -> Tensor:
    raise NotApplicableError("a recurrent layer has no energy rule")
