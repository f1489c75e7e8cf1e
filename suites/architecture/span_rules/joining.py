"""How receptive fields pass functions that join, pad, write or choose entries, or mask them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..compact import cat_compact, compress
from ..rule_table import known_spans, span_rule, spans_of
from ..spans import Ends, Spans, narrow, nowhere, spans_where, together, union

if TYPE_CHECKING:
    from collections.abc import Sequence


@span_rule("cat", "concat", "concatenate")
def _cat(out: Tensor, /, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Spans:
    parts = [known_spans(t).wide() for t in tensors if t.numel()]
    return together(parts, lambda ends: narrow(cat_compact(ends, dim)), out.shape)


@span_rule("stack")
def _stack(out: Tensor, /, tensors: Sequence[Tensor], dim: int = 0, **_: Any) -> Spans:
    parts = [known_spans(t).wide() for t in tensors]
    return together(parts, lambda ends: narrow(torch.stack(ends, dim)), out.shape)


@span_rule("pad")
def _pad(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    pad: Sequence[int],
    mode: str = "constant",
    value: Any = None,
) -> Spans:
    del value
    spans = known_spans(input).aligned()
    for i, (before, after) in enumerate(zip(pad[::2], pad[1::2], strict=True)):
        axis = input.ndim - 1 - i
        size = input.shape[axis]
        if mode == "circular":
            wrapped = torch.arange(-before, size + after) % size
            spans = spans.each(partial(_selected, axis=axis, places=wrapped))
        else:
            # reflected and repeated units see no other pixels than the units inside see as far
            spans = spans.extended(axis, before, after)
    return replace(spans, shape=tuple(out.shape))


def _selected(end: Tensor, axis: int, places: Tensor) -> Tensor:
    return end if end.shape[axis] == 1 else end.index_select(axis, places)


@span_rule("setitem")
def _setitem(_out: Any, /, x: Tensor, index: Any, value: Any) -> None:
    """Write the ends in place, as the function writes the entries; constants mask them."""
    old, new = known_spans(x).wide(), _of(value).wide()

    def written(ends: Ends) -> Tensor:
        found = ends[0].clone(memory_format=torch.contiguous_format)
        found[index] = ends[1]
        return narrow(found)

    if new.local():
        found = together((old, new), written, x.shape)
    else:
        unmasked = tuple(written(ends) for ends in zip(old.read, new.read, strict=True))
        everywhere = old.everywhere or new.everywhere
        found = Spans(old.shape, old.each(narrow).interval, everywhere, unmasked)
    x.spans = found  # type: ignore[attr-defined]


@span_rule("where")
def _where(out: Tensor, /, condition: Tensor, a: Any, b: Any) -> Spans:
    parts = [_of(value) for value in (a, b)]
    if spans_of(condition) is not None:
        return union([known_spans(condition), *parts], out.shape)
    return spans_where(compress(condition), parts, out.shape)


def _of(value: Any) -> Spans:
    return known_spans(value) if isinstance(value, Tensor) else nowhere((), everywhere=False)


@span_rule("mul", "imul", "rmul", "multiply")
def _mul(out: Tensor, /, a: Any, b: Any, **_: Any) -> Spans:
    """An entry that a fixed mask multiplies by zero reads nothing."""
    known = [s for t in (a, b) if (s := spans_of(t)) is not None]
    found = union(known, out.shape)
    for mask in (a, b):
        fixed = isinstance(mask, Tensor) and spans_of(mask) is None and not mask.is_meta
        if fixed and mask.ndim > 1 and not bool(compress(mask).all()):
            return spans_where(compress(mask) != 0, [found, _none()], out.shape)
    return found


@span_rule("masked_fill")
def _masked_fill(out: Tensor, /, x: Tensor, mask: Tensor, value: Any) -> Spans:
    known = [s for t in (x, mask, value) if (s := spans_of(t)) is not None]
    if len(known) > 1:
        return union(known, out.shape)
    return spans_where(compress(mask), [_of(value), _of(x)], out.shape)


@span_rule("tril")
def _lower(out: Tensor, /, x: Tensor, diagonal: int = 0) -> Spans:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).tril(diagonal)
    return spans_where(kept, [known_spans(x), _none()], out.shape)


@span_rule("triu")
def _upper(out: Tensor, /, x: Tensor, diagonal: int = 0) -> Spans:
    kept = torch.ones(x.shape[-2:], dtype=torch.bool).triu(diagonal)
    return spans_where(kept, [known_spans(x), _none()], out.shape)


def _none() -> Spans:
    return nowhere((), everywhere=False)
