"""What the energy rules share: the table of rules, and what tensors carry.

A rule takes the running `Trace` and then the arguments of the torch function it stands for. It is
called only when an energy is among them, or a constant that meets random weights.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from torch import Tensor, nn

from .layers import Field, union
from .narrow import widen

if TYPE_CHECKING:
    from collections.abc import Callable

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


def constant(x: Tensor, value: float) -> Tensor:
    """Make an amplitude of the shape of `x` that carries nothing of it, except its field."""
    return with_field(widen(x.new_full((1,) * x.ndim, value), x.shape), field_of(x))


def everywhere(out: Tensor, *origins: Tensor) -> Tensor:
    """Mark the units of `out` as seeing everything, beside what their field says."""
    merged = union([f for f in map(field_of, origins) if f], out.shape)
    return with_field(out, replace(merged, global_=True) if merged else None)
