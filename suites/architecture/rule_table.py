"""The tables of rules of torch's functions, and the attributes that they set on tensors.

An energy rule takes the running `EnergyTrace` and then the arguments of the function it replaces.
It is called only if one of these is an energy, or if a constant is multiplied by random weights.

A span rule, by which receptive fields pass a function (see `spans`), is called with the function's
result and arguments. Functions without one work entry by entry: the union of their arguments'
spans, with broadcasting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ...adapters.errors import NotApplicableError
from .compact import compress, widen
from .spans import Spans, nowhere, union

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .windows import History

RULES: dict[str, Callable[..., Any]] = {}
"""Rules by the name of the function in torch, without underscores at its ends."""

Rule = TypeVar("Rule", bound="Callable[..., Any]")


def registers(table: dict[str, Callable[..., Any]]) -> Callable[..., Callable[[Rule], Rule]]:
    """A decorator that enters a rule into `table`, under the names that it is given.

    A rule takes one argument of its own and then those of the torch function; with `reads`, a class
    of `adapters.torch_calls`, these are bound to one object.
    """

    def register(*names: str, reads: Callable[..., Any] | None = None) -> Callable[[Rule], Rule]:
        def enter(function: Rule) -> Rule:
            def bound(own: Any, /, *args: Any, **named: Any) -> Any:
                return function(own, reads(*args, **named) if reads else None)

            table.update(dict.fromkeys(names, bound if reads else function))
            return function

        return enter

    return register


rule = registers(RULES)


def is_energy(t: Any) -> bool:
    """Whether `t` is an energy: a tensor that depends on the input."""
    return isinstance(t, Tensor) and t.requires_grad


def is_weight(t: Any) -> bool:
    """Whether `t` represents random weights: a parameter with two or more axes, or made of one.

    Those that are `fixed`, as their values show, are constants.
    """
    if not isinstance(t, Tensor) or hasattr(t, "fixed"):
        return False
    return t.is_meta or hasattr(t, "random") or (isinstance(t, nn.Parameter) and t.ndim > 1)


def history_of(t: Tensor) -> History | None:
    """The history of the grid of `t`, if it depends on the input."""
    return getattr(t, "history", None)


def with_history(t: Tensor, history: History | None) -> Tensor:
    """Set the history of the grid of `t`; return `t`."""
    t.history = history  # type: ignore[attr-defined]
    return t


def spans_of(t: Any) -> Spans | None:
    """The receptive fields of the entries of `t`, if it depends on the input."""
    return getattr(t, "spans", None)


def constant_amplitude(x: Tensor, value: float) -> Tensor:
    """A constant amplitude of the shape of `x`, with the history of `x`."""
    return with_history(widen(x.new_full((1,) * x.ndim, value), x.shape), history_of(x))


def real_units(x: Tensor, axes: int = 2) -> Tensor:
    """1 for the units of maps `x` over the last `axes`, 0 for padding that no maximum can be.

    Its shape is (1, 1, *axes).
    """
    found: Tensor | None = getattr(x, "real_units", None)
    shape = (1, 1, *x.shape[-axes:])
    return torch.ones(shape, dtype=torch.float64) if found is None else found


def constant_share(t: Tensor) -> Tensor | None:
    """Share of the energy of `t` that is constant over the map (variants,), if known."""
    return getattr(t, "share", None)


def with_constant_share(t: Tensor, share: Tensor | None) -> Tensor:
    """Set the share of the energy of `t` that is constant over the map; return `t`."""
    t.share = share  # type: ignore[attr-defined]
    return t


def joint_constant_share(tensors: Sequence[Tensor], variants: int) -> Tensor | None:
    """Constant share of a sum of `tensors`, weighted by their energies: (variants,)."""
    known = [(t, s) for t in tensors if is_energy(t) and (s := constant_share(t)) is not None]
    if not known:
        return None
    if all(s is known[0][1] for _, s in known):
        return known[0][1]
    weights = torch.stack([_mean_energy(t, variants) for t, _ in known])
    shares = torch.stack([s for _, s in known])
    return (weights * shares).sum(0) / weights.sum(0).clamp(min=1e-30)


def _mean_energy(t: Tensor, variants: int) -> Tensor:
    small = compress(t).detach()
    if small.ndim == 0 or small.shape[0] % variants:
        return small.mean().expand(variants)
    return small.reshape(variants, -1).mean(1)


def relu_constant_share(share: Tensor) -> Tensor:
    """Constant share behind a ReLU: twice the arc-cosine kernel (Cho & Saul 2009).

    Two positions of a channel have the correlation `share`.
    """
    return ((1 - share**2).clamp(min=0).sqrt() + share * (torch.pi - share.acos())) / torch.pi


def size_constant_share(share: Tensor) -> Tensor:
    """Constant share of absolute values, whose product has the mean of a folded normal pair."""
    return 2 * ((1 - share**2).clamp(min=0).sqrt() + share * share.asin()) / torch.pi


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
"""Functions that move, copy or drop entries of any value."""


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
