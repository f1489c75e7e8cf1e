"""What the energy rules share: the table of rules, and what tensors carry.

A rule takes the running `Trace` and then the arguments of the torch function it stands for. It is
called only when an energy is among them, or a constant that meets random weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from .compact import compress, widen
from .windows import Field, union

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

RULES: dict[str, Callable[..., Any]] = {}
"""Rules by the function's name in torch, less underscores at its ends."""

Rule = TypeVar("Rule", bound="Callable[..., Any]")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Enter a function into `RULES` under all `names`."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def is_energy(t: Any) -> bool:
    """Whether `t` is an energy: a tensor that the input reaches."""
    return isinstance(t, Tensor) and t.requires_grad


def is_weight(t: Any) -> bool:
    """Whether `t` stands for random weights: on `meta`, or a parameter with two axes or more."""
    return isinstance(t, Tensor) and (t.is_meta or (isinstance(t, nn.Parameter) and t.ndim > 1))


def field_of(t: Tensor) -> Field | None:
    """Give the field of the units of `t`, if the input reaches it."""
    return getattr(t, "field", None)


def with_field(t: Tensor, field: Field | None) -> Tensor:
    """Note the field of the units of `t`."""
    t.field = field  # type: ignore[attr-defined]
    return t


def constant_amplitude(x: Tensor, value: float) -> Tensor:
    """Make an amplitude of the shape of `x` that carries nothing of it, except its field."""
    return with_field(widen(x.new_full((1,) * x.ndim, value), x.shape), field_of(x))


def mark_global(out: Tensor, *origins: Tensor) -> Tensor:
    """Mark the units of `out` as seeing everything, beside what their field says."""
    merged = union([f for f in map(field_of, origins) if f], out.shape)
    return with_field(out, replace(merged, global_=True) if merged else None)


def constant_share(t: Tensor) -> Tensor | None:
    """Share of the energy of `t` that is constant over the map, (variants,), where known."""
    return getattr(t, "share", None)


def with_constant_share(t: Tensor, share: Tensor | None) -> Tensor:
    """Note the share of the energy of `t` that is constant over the map."""
    t.share = share  # type: ignore[attr-defined]
    return t


def joint_constant_share(tensors: Sequence[Tensor], variants: int) -> Tensor | None:
    """Share of a sum of `tensors`, weighted by their energies: (variants,)."""
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
    if small.shape[0] % variants:
        return small.mean().expand(variants)
    return small.reshape(variants, -1).mean(1)


def relu_constant_share(share: Tensor) -> Tensor:
    """Constant share behind a ReLU: twice the arc-cosine kernel (Cho & Saul 2009).

    Two places of a channel that share the part `share` of their energy are correlated by it.
    """
    return ((1 - share**2).clamp(min=0).sqrt() + share * (torch.pi - share.acos())) / torch.pi
