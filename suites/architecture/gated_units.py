"""Activations that are written as a unit times a gate of itself.

x sigmoid(x) is a SiLU, x sigmoid(1.702 x) nearly a GELU, and x hardsigmoid(x) or x relu6(x + 3) / 6
a hard swish: they pass what these pass, and not what a gate of other units does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

from .compact import forget
from .mixtures import ADDITIONS, PRODUCTS_OF_UNITS, QUOTIENTS
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GATES = {"sigmoid": F.silu, "hardsigmoid": F.hardswish}
_GATE, _LINE = "gate_of", "line_of"


def mark_gate(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the result `out` whether it is a gate of one energy, or k x + 3 of it."""
    if not args or not isinstance(out, Tensor) or not is_energy(args[0]) or not args[0].ndim:
        return
    x = args[0]
    if out is not x:
        forget(out, _GATE, _LINE)
    origin, scale, shift = getattr(x, _LINE, (x, 1.0, 0.0))
    if name in _GATES and not shift:
        setattr(out, _GATE, (_at_present(x, origin), _GATES[name]))
    elif _is_relu6(name, args, kwargs) and (scale, shift) == (1.0, 3.0):
        setattr(out, _GATE, (_at_present(origin), lambda t: 6 * F.hardswish(t)))
    elif hasattr(x, _GATE) and name in QUOTIENTS | PRODUCTS_OF_UNITS and _number(args):
        sources, activation = getattr(x, _GATE)
        factor = _factor(name, args[1])
        setattr(out, _GATE, (sources, lambda t: factor * activation(t)))
    elif name in QUOTIENTS | PRODUCTS_OF_UNITS and _number(args) and not shift:
        setattr(out, _LINE, (origin, scale * _factor(name, args[1]), 0.0))
    elif name in ADDITIONS and _number(args) and not shift:
        setattr(out, _LINE, (origin, scale, _value(args[1])))


def as_activation(name: str, args: Sequence[Any]) -> tuple[Callable[..., Tensor], Tensor] | None:
    """The activation in place of a product of a unit and a gate of itself, and the unit."""
    if name not in PRODUCTS_OF_UNITS or len(args) < 2:
        return None
    for x, gate in (args[:2], args[1::-1]):
        sources, activation = getattr(gate, _GATE, ((), None))
        read = (x, *getattr(x, _LINE, ())[:1])
        if activation and any(t is r and r._version == v for r in read for t, v in sources):
            return activation, x
    return None


def _at_present(*tensors: Tensor) -> tuple[tuple[Tensor, int], ...]:
    """The tensors with their versions: what is changed in place later is another."""
    return tuple((t, t._version) for t in tensors)


def _number(args: Sequence[Any]) -> bool:
    """Whether the second argument is a number, perhaps as a tensor."""
    return len(args) > 1 and _value(args[1]) is not None


def _value(a: Any) -> float | None:
    if isinstance(a, int | float):
        return float(a)
    alone = isinstance(a, Tensor) and not a.is_meta and not is_energy(a) and a.numel() == 1
    return float(a) if alone else None


def _factor(name: str, number: Any) -> float:
    value = _value(number) or 1.0
    return 1 / value if name in QUOTIENTS else value


def _is_relu6(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    if name not in {"clamp", "clip", "hardtanh"}:
        return name == "relu6"
    return [_value(a) for a in (*args[1:3], *kwargs.values())][:2] == [0.0, 6.0]
