"""Energy rules of products: of activations with weights, with constants and with each other."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ....adapters.torch_calls import MASKED, Attention
from ..compact import compress, compress_uniform, widen
from ..offsets import second_moment, squared_offset
from ..rule_table import is_energy, is_weight, rule
from ..uneven_weights import moments_of_entries, relative_moments, turned
from .elementwise import widen_like

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..trace import EnergyTrace


@rule("linear")
def _linear(trace: EnergyTrace, x: Tensor, weight: Tensor, bias: Any = None) -> Tensor:
    del bias
    uneven = moments_of_entries(weight)
    if weight.ndim != 2 or (is_weight(weight) and uneven is None):
        return _contract(trace, x, weight.shape[:-1])
    return _left(trace, weight, x.unsqueeze(-1)).squeeze(-1)


def _contract(_trace: EnergyTrace, x: Tensor, out: Sequence[int]) -> Tensor:
    """Random weights over the last axis: its mean, for each of the outputs (*out,)."""
    small = compress(x)
    mean = small.mean(-1, keepdim=True) if small.shape[-1] > 1 else small
    mean = mean if len(out) else mean.squeeze(-1)
    return widen(mean, (*x.shape[:-1], *out))


@rule("matmul", "bmm", "mm", "imatmul")
def _matmul(trace: EnergyTrace, a: Tensor, b: Tensor) -> Tensor:
    if a.ndim < 2 or b.ndim < 2:
        out = _matmul(trace, _as_matrix(a, 0), _as_matrix(b, 1))
        out = out.squeeze(-1) if b.ndim < 2 else out
        return out.squeeze(out.ndim - 2 if b.ndim > 1 else -1) if a.ndim < 2 else out
    if not is_energy(a):
        return _left(trace, a, b)
    if not is_energy(b):
        return _left(trace, turned(b), a.mT).mT
    return _both(trace, a, b)


def _as_matrix(x: Tensor, axis: int) -> Tensor:
    """A vector with a new `axis`; anything else unchanged."""
    if x.ndim > 1:
        return x
    found = x.unsqueeze(axis)
    if is_weight(x):
        found.random = True  # type: ignore[attr-defined]
    return found


@rule("rmatmul")
def _rmatmul(trace: EnergyTrace, a: Tensor, b: Tensor) -> Tensor:
    return _matmul(trace, b, a)


def _left(trace: EnergyTrace, constant: Tensor, x: Tensor) -> Tensor:
    """`constant` (..., m, k) times the energy `x` (..., k, n)."""
    batch = torch.broadcast_shapes(constant.shape[:-2], x.shape[:-2])
    shape = (*batch, constant.shape[-2], x.shape[-1])
    uneven = relative_moments(constant)
    if is_weight(constant) and uneven is None:
        return widen_like(_contract(trace, x.mT, (1,)).mT, shape)
    if uneven is not None:  # 1 / fan-in for the largest
        constant = (uneven / uneven.shape[-1]).sqrt()
    small, constant = compress(x), constant.to(torch.float64)
    squares = (constant != 0).to(constant) if trace.paths else compress(constant) ** 2
    factor = compress_uniform(squares)
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
    first, second = (second_moment(t, compress(t)) for t in (a, b))
    if trace.paths:
        return widen(first.sum(-1, keepdim=True) + second.sum(-2, keepdim=True), shape)
    count = a.shape[-1]
    added = count * squared_offset(a, b)
    batch = torch.broadcast_shapes(first.shape[:-2], second.shape[:-2])
    # of one variant, as a map must not depend on how many are computed in a pass
    entries = math.prod(batch) * first.shape[-2] * second.shape[-1] / len(trace.padded)
    if entries > LARGEST_PRODUCT:
        mean = first.mean((-2, -1), keepdim=True) * second.mean((-2, -1), keepdim=True)
        return widen(mean * count - added, shape)
    if first.shape[-1] == 1 or second.shape[-2] == 1:
        product = first.mean(-1, keepdim=True) * second.mean(-2, keepdim=True) * count
        return widen(product - added, shape)
    return widen(first @ second - added, shape)


@rule("einsum")
def _einsum(trace: EnergyTrace, equation: str, *operands: Any) -> Tensor:
    """The same sum of products, of 1 / fan_in for weights and of squares for constants."""
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    inputs, _, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    if any(len({*t.replace(".", "")}) < len(t.replace(".", "")) for t in terms):
        raise NotApplicableError(f"it takes a diagonal: a letter repeats in {equation!r}")
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
        return second_moment(x, compress(x))
    if is_weight(x):
        fan_in = math.prod(sizes[c] for c in term if c not in output)
        uneven = relative_moments(x)
        if uneven is not None:
            return uneven / fan_in
        return torch.full((1,) * x.ndim, 1 / fan_in, dtype=torch.float64)
    return compress_uniform(trace.coefficient(compress(x)))


@rule("scaled_dot_product_attention", reads=Attention)
def _attention(trace: EnergyTrace, call: Attention) -> Tensor:
    """Uniform attention: every query receives the mean over the tokens that it may read."""
    value = call.value
    heads = torch.broadcast_shapes(call.query.shape[:-2], value.shape[:-2])
    shape = (*heads, call.query.shape[-2], value.shape[-1])
    allowed = allowed_by(call)
    if allowed is not None:
        share = allowed / allowed.sum(-1, keepdim=True).clamp(min=1)
        return widen_like(_left(trace, share, value), shape)
    count = value.shape[-2]
    factor = count if trace.paths else 1 / count
    mean = compress(value).mean(-2, keepdim=True) * factor
    return widen(mean, shape)


def allowed_by(call: Attention) -> Tensor | None:
    """1 where a query (..., queries, keys) may read a key, else 0; None where all may read all."""
    mask, queries, keys = call.attn_mask, call.query.shape[-2], call.key.shape[-2]
    if call.is_causal:
        return torch.ones(queries, keys, dtype=torch.float64).tril()
    if mask is None or mask.is_meta:
        return None
    small = compress(mask).detach()
    allowed = small if mask.dtype == torch.bool else small >= MASKED
    if bool(allowed.all()):
        return None
    return allowed.to(torch.float64).expand(*small.shape[:-2], queries, keys)


@rule("multi_head_attention_forward")
def _multi_head(
    trace: EnergyTrace, query: Tensor, key: Tensor, value: Tensor, *args: Any, **kwargs: Any
) -> Any:
    """The whole of `nn.MultiheadAttention`, tokens first: a mean over tokens and channels."""
    del args
    if kwargs.get("attn_mask") is not None or kwargs.get("key_padding_mask") is not None:
        raise NotApplicableError("it has a mask")
    factor = key.shape[0] if trace.paths else 1 / key.shape[0]
    mean = compress(value).mean((0, -1), keepdim=True) * factor
    return widen(mean, query.shape), None


@rule(
    *("lstm", "gru", "rnn_tanh", "rnn_relu"),
    *("lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"),
)
def _recurrent(_trace: EnergyTrace, *_: Any, **__: Any) -> Tensor:
    raise NotApplicableError("it is recurrent: its state passes from step to step")
