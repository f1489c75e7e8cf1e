"""Activations that are written as a unit times a gate of itself.

x sigmoid(x) is a SiLU, x sigmoid(1.702 x) nearly a GELU, and x hardsigmoid(x) or x relu6(x + 3) / 6
a hard swish: they pass what these pass, and not what a gate of other units does. A line that is
bounded on both sides, such as relu6(x + 3), is a gate like a hard sigmoid, and not a ReLU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .compact import forget
from .mixtures import ADDITIONS, PRODUCTS_OF_UNITS, QUOTIENTS
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GATES = {"sigmoid": F.silu, "hardsigmoid": F.hardswish}
_GATE, _LINE, _RAMP = "gate_of", "line_of", "ramp_of"


def mark_gate(name: str, out: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """Remember of the result `out` whether it is a gate of one energy, or k x + 3 of it."""
    x = args[0] if args else None
    if not isinstance(out, Tensor) or not isinstance(x, Tensor) or not x.ndim:
        return
    if not (is_energy(x) or hasattr(x, _GATE)):
        return
    if out is not x:
        forget(out, _GATE, _LINE, _RAMP)
    origin, scale, shift = getattr(x, _LINE, (x, 1.0, 0.0))
    if name in _GATES and not shift:
        setattr(out, _GATE, (_at_present(x, origin), _GATES[name]))
    elif shift > 0 and name == "relu":
        setattr(out, _RAMP, (origin, shift))
    elif (gate := _gate_of(name, args, kwargs)) is not None:
        origin, _, most = gate
        setattr(out, _GATE, (_at_present(origin), lambda t: most * F.hardswish(t)))
    elif hasattr(x, _GATE) and name in QUOTIENTS | PRODUCTS_OF_UNITS and _number(args):
        sources, activation = getattr(x, _GATE)
        factor = _factor(name, args[1])
        setattr(out, _GATE, (sources, lambda t: factor * activation(t)))
    elif name in QUOTIENTS | PRODUCTS_OF_UNITS and _number(args):
        factor = _factor(name, args[1])
        setattr(out, _LINE, (origin, scale * factor, shift * factor))
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


def as_gate(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Callable[..., Tensor] | None:
    """The gate in place of a bound on both sides of a line: a constant, which it is at 0."""
    found = _gate_of(name, args, kwargs)
    if found is None:
        return None
    shift = found[1]
    return lambda x: torch.mul(F.hardsigmoid(x), 2 * shift)  # a gate is 1/2


def _gate_of(
    name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Tensor, float, float] | None:
    """The origin of a line that the function bounds on both sides, the line at 0, and the bound."""
    x = args[0] if args else None
    if hasattr(x, _RAMP):
        (origin, shift), most = getattr(x, _RAMP), _upper_bound(name, args, kwargs)
    else:
        (origin, _, shift), most = getattr(x, _LINE, (x, 1.0, 0.0)), _largest(name, args, kwargs)
    return (origin, shift, most) if 0 < shift < most else None


def _upper_bound(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The number that bounds a ReLU from above; 0 if the function does not."""
    if name in {"minimum", "clamp_max", "min"} and len(args) == 2:
        return _value(args[1]) or 0.0
    return _largest(name, args, kwargs) or _value(kwargs.get("max")) or 0.0


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


def _largest(name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
    """The upper bound of a function that bounds between 0 and it; 0 for others."""
    if name == "relu6":
        return 6.0
    if name not in {"clamp", "clip", "hardtanh"}:
        return 0.0
    found = [_value(a) for a in (*args[1:3], *kwargs.values())][:2]
    low, high = found if len(found) == 2 else (None, None)
    return high or 0.0 if low == 0 else 0.0
