"""The table of rules by which receptive fields pass each function of torch; see `spans`.

A rule is called with the function's result and arguments. Functions without a rule work entry by
entry: the union of their arguments' spans, with broadcasting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from ...adapters.errors import NotApplicableError
from .rule_table import RULES, registers, spans_of
from .spans import Spans, nowhere, union

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Found = Any
"""Spans of one result, or a list of them where a function returns several."""

SPAN_RULES: dict[str, Callable[..., Found]] = {}
"""Rules by the function's name in torch, without underscores at its ends."""

span_rule = registers(SPAN_RULES)


IMAGE_TO_COLUMNS = "im2col"
"""Name of the rule of `F.unfold`, whose own name is also that of a method of tensors."""

LIKE_ANOTHER = frozenset({"type_as", "to", "view_as", "reshape_as", "expand_as"})
"""Functions that read no more than the shape or type of their second argument."""

MOVES = frozenset(
    """
    permute transpose swapaxes swapdims movedim moveaxis unsqueeze squeeze unflatten narrow expand
    expand_as unfold t detach index_select gather take_along_dim repeat tile repeat_interleave
    diagonal reshape view unsafe_view reshape_as view_as flatten roll flip rot90 fliplr flipud
    getitem chunk split split_with_sizes tensor_split unbind select get
    pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that move, copy or drop entries, whatever they hold."""


def spans_after(
    name: str, func: Any, out: Tensor | Sequence[Tensor], args: tuple[Any, ...], kwargs: Any
) -> Found:
    """Spans of the result `out` of a call, or a list of them; some argument has spans.

    Raises `NotApplicableError` if the function has no rule.
    """
    rule = SPAN_RULES.get(name)
    if func is F.unfold:
        rule = SPAN_RULES[IMAGE_TO_COLUMNS]
    if rule is not None:
        return rule(out, *args, **kwargs)
    if name in MOVES:
        return _moved(name, func, args, kwargs)
    if name in LIKE_ANOTHER:
        args, kwargs = args[:1], {}
    shape = out.shape if isinstance(out, Tensor) else out[0].shape
    known = [s for t in (*args, *kwargs.values()) if (s := spans_of(t)) is not None]
    try:
        return union(known, shape)
    except RuntimeError as error:
        raise NotApplicableError(f"its receptive field is unknown ({error})") from error


def _moved(name: str, func: Any, args: tuple[Any, ...], kwargs: Any) -> Found:
    """Move the ends of the first argument as the function moves its entries."""
    first, *rest = args
    rule = RULES.get(name)
    spans = spans_of(first)
    if spans is None:
        return None
    if rule is not None:
        return spans.moved(lambda end: rule(None, end, *rest, **kwargs))
    return spans.moved(lambda end: func(end, *rest, **kwargs))


def known_spans(x: Any) -> Spans:
    """Spans of `x`, which are empty for constants."""
    return spans_of(x) or nowhere(x.shape, everywhere=False)
