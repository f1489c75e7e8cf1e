"""How receptive fields pass attention: the union over the tokens that each one may read.

Over all tokens of a map it is global, and leaves no local path; within windows it is the window,
and a mask of the logits leaves the tokens that it excludes out.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.torch_calls import Attention
from ..compact import compress
from ..rule_table import is_energy, known_spans, span_rule
from ..rules.products import allowed_by
from ..spans import EMPTY, Spans, narrow, nowhere, union

if TYPE_CHECKING:
    from collections.abc import Sequence


def read_with_norm(out: Tensor, x: Tensor, axes: Sequence[int]) -> Spans:
    """Every entry reads all that its norm is taken over; a norm over the map is global."""
    return _with_statistics(known_spans(x), axes, out.shape)


def _with_statistics(own: Spans, axes: Sequence[int], shape: Sequence[int]) -> Spans:
    statistics = own.reduced(axes, [1 if d in axes else n for d, n in enumerate(own.shape)])
    return union([own, statistics], shape)


@span_rule("softmax", "log_softmax")
def _softmax(out: Tensor, /, x: Tensor, dim: int | None = None, *_: Any, **__: Any) -> Spans:
    """A logit that a mask excludes reads nothing, and no other entry reads it."""
    own, axis = known_spans(x), (-1 if dim is None else dim) % x.ndim
    excluded = _zeros(out)
    if excluded is not None:
        own = own.aligned().each(lambda end: narrow(torch.where(excluded, EMPTY, end)))
    return _with_statistics(own, (axis,), out.shape)


def _zeros(weights: Tensor) -> Tensor | None:
    """Where constant weights of attention are 0; None if nowhere, or if they are no constants."""
    if is_energy(weights):
        return None
    zeros = compress(weights.detach()) == 0
    return zeros if bool(zeros.any()) and not bool(zeros.all()) else None


def product_of_readers(out: Tensor, a: Tensor, b: Tensor) -> Spans:
    """Products (..., m, n) of `a` (..., m, k) and `b` (..., k, n), both of which read the image."""
    if a.ndim < 2 or b.ndim < 2:
        return nowhere(out.shape)
    excluded, weights, values = _zeros(a), known_spans(a), known_spans(b)
    read = _over_keys(values, None if excluded is None else ~excluded)
    over_map = any(b.ndim - 2 in values.axes(axis) for axis in (0, 1))
    if over_map and not read.local():
        return nowhere(out.shape)
    own = weights.reduced([a.ndim - 1], (*a.shape[:-1], 1))
    return union([own, _each_or_all(own, read)], out.shape)


MOST_PAIRS, MOST_PAIRS_OF_MAP = 1 << 21, 1 << 16
"""Most pairs of tokens, in windows and of the whole map, of which each has a field of its own."""


def _each_or_all(queries: Spans, keys: Spans) -> Spans:
    """What logits of `queries` (..., m, 1) read of `keys` (..., 1, n): each a key, or all of them.

    All are the same wherever no mask excludes some; of many tokens, pairs would fill the memory.
    """
    every = keys.reduced([len(keys.shape) - 1], (*keys.shape[:-1], 1))
    ends = [narrow(end) for s in (queries, keys) for end in s.aligned().interval]
    pairs = math.prod(torch.broadcast_shapes(*(end.shape for end in ends)))
    return keys if pairs <= (MOST_PAIRS if every.local() else MOST_PAIRS_OF_MAP) else every


def _over_keys(values: Spans, allowed: Tensor | None) -> Spans:
    """Union (..., queries or 1, features) over the keys of `values` (..., keys, features).

    `allowed` (..., queries, keys) says which of them each query reads; None for all.
    """
    keys, features = values.shape[-2:]
    if allowed is None:
        return values.reduced([len(values.shape) - 2], (*values.shape[:-2], 1, features))
    allowed = allowed.expand(*allowed.shape[:-1], keys)

    def over(end: Tensor) -> Tensor:
        each = end.expand(*end.shape[:-2], keys, end.shape[-1]).unsqueeze(-3)
        return torch.where(allowed.unsqueeze(-1), each, EMPTY).amin(-2)

    found = values.of_read().aligned().each(narrow).each(over)
    batch = torch.broadcast_shapes(values.shape[:-2], allowed.shape[:-2])
    return values.settled(replace(found, shape=(*batch, allowed.shape[-2], features)))


@span_rule("scaled_dot_product_attention", reads=Attention)
def _attention(out: Tensor, call: Attention) -> Spans:
    """Each query reads itself, and the keys and values that it may read."""
    found = allowed_by(call)
    allowed = None if found is None else found != 0
    queries, keys = (
        known_spans(t).reduced([t.ndim - 1], (*t.shape[:-1], 1)) for t in (call.query, call.key)
    )
    read = [_over_keys(spans, allowed) for spans in (known_spans(call.value), keys)]
    return union([queries, *read], out.shape) if read[0].local() else nowhere(out.shape)


@span_rule("multi_head_attention_forward")
def _multi_head(
    out: Sequence[Any] | Tensor, /, query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any
) -> Spans:
    """The same with tokens on the first axis: (tokens, images, features), without a mask."""
    result = out if isinstance(out, Tensor) else out[0]
    own = known_spans(query).reduced([query.ndim - 1], (*query.shape[:-1], 1))
    read = [known_spans(t).reduced([0, t.ndim - 1], (1, *t.shape[1:-1], 1)) for t in (value, key)]
    return union([own, *read], result.shape) if read[0].local() else nowhere(result.shape)
