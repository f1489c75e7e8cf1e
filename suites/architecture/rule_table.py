"""The table of energy rules, and the attributes that they set on tensors.

A rule takes the running `EnergyTrace` and then the arguments of the torch function it replaces. It
is called only if one of these is an energy, or if a constant is multiplied by random weights.
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
"""Rules by the name of the function in torch, without underscores at its ends."""

Rule = TypeVar("Rule", bound="Callable[..., Any]")


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register a function in `RULES` under all `names`."""

    def enter(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        return function

    return enter


def is_energy(t: Any) -> bool:
    """Whether `t` is an energy: a tensor that depends on the input."""
    return isinstance(t, Tensor) and t.requires_grad


def is_weight(t: Any) -> bool:
    """Whether `t` represents random weights: on `meta`, or a parameter with two or more axes."""
    return isinstance(t, Tensor) and (t.is_meta or (isinstance(t, nn.Parameter) and t.ndim > 1))


def field_of(t: Tensor) -> Field | None:
    """The field of the units of `t`, if it depends on the input."""
    return getattr(t, "field", None)


def with_field(t: Tensor, field: Field | None) -> Tensor:
    """Set the field of the units of `t`; return `t`."""
    t.field = field  # type: ignore[attr-defined]
    return t


def constant_amplitude(x: Tensor, value: float) -> Tensor:
    """A constant amplitude of the shape of `x`, with the field of `x`."""
    return with_field(widen(x.new_full((1,) * x.ndim, value), x.shape), field_of(x))


def mark_global(out: Tensor, *origins: Tensor) -> Tensor:
    """Mark the receptive field of the units of `out` as global, with the union of local fields."""
    merged = union([f for f in map(field_of, origins) if f], out.shape)
    return with_field(out, replace(merged, global_=True) if merged else None)


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
    if small.shape[0] % variants:
        return small.mean().expand(variants)
    return small.reshape(variants, -1).mean(1)


def relu_constant_share(share: Tensor) -> Tensor:
    """Constant share behind a ReLU: twice the arc-cosine kernel (Cho & Saul 2009).

    Two positions of a channel have the correlation `share`.
    """
    return ((1 - share**2).clamp(min=0).sqrt() + share * (torch.pi - share.acos())) / torch.pi
