"""How receptive fields pass functions that choose entries, or multiply them by a fixed zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compact import compress
from ..rule_table import spans_of
from ..span_table import known_spans, span_rule
from ..spans import Spans, narrow, nowhere, union

if TYPE_CHECKING:
    from collections.abc import Sequence


@span_rule("where")
def _where(out: Tensor, /, condition: Tensor, a: Any, b: Any) -> Spans:
    parts = [_of(value) for value in (a, b)]
    if spans_of(condition) is not None:
        return union([known_spans(condition), *parts], out.shape)
    return _chosen(compress(condition), parts, out.shape)


def _of(value: Any) -> Spans:
    return known_spans(value) if isinstance(value, Tensor) else nowhere((), everywhere=False)


def _chosen(condition: Tensor, parts: Sequence[Spans], shape: Sequence[int]) -> Spans:
    """Spans of the first of two parts where `condition` holds, else of the second."""
    first, second = parts
    ends = [torch.where(condition, *pair) for pair in zip(first.ends, second.ends, strict=True)]
    found = Spans(tuple(shape), tuple(ends), first.everywhere or second.everywhere)
    return found.aligned().each(narrow)


@span_rule("mul", "imul", "rmul", "multiply")
def _mul(out: Tensor, /, a: Any, b: Any, **_: Any) -> Spans:
    """An entry that a fixed mask multiplies by zero reads nothing."""
    known = [s for t in (a, b) if (s := spans_of(t)) is not None]
    found = union(known, out.shape)
    for mask in (a, b):
        fixed = isinstance(mask, Tensor) and spans_of(mask) is None and not mask.is_meta
        if fixed and mask.ndim > 1 and not bool(compress(mask).all()):
            return _chosen(compress(mask) != 0, [found, _none()], out.shape)
    return found


@span_rule("tril")
def _lower(out: Tensor, /, x: Tensor, diagonal: int = 0) -> Spans:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).tril(diagonal)
    return _chosen(kept, [known_spans(x), _none()], out.shape)


@span_rule("triu")
def _upper(out: Tensor, /, x: Tensor, diagonal: int = 0) -> Spans:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).triu(diagonal)
    return _chosen(kept, [known_spans(x), _none()], out.shape)


def _none() -> Spans:
    return nowhere((), everywhere=False)
