"""Energy rules of elementwise functions, including gates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ....adapters.torch_calls import MASKED
from ..compact import alias, compress, compress_uniform, pointwise, widen
from ..mixtures import ODD
from ..offsets import rectified, second_moment, squared_offset
from ..remarks import CHOICES, COMPARISONS
from ..rule_table import (
    constant_amplitude,
    constant_share,
    history_of,
    is_energy,
    relu_constant_share,
    rule,
    size_constant_share,
    with_constant_share,
    with_history,
)
from ..stored_factors import differs_between_places
from ..written_softmax import is_masked, mark_masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..trace import EnergyTrace


LEAST_SLOPE = 0.1
"""The least slope of a leaky ReLU that counts: smaller ones pass 1 % of what they take at most."""


@rule(
    *("relu", "relu6", "silu", "gelu", "hardswish", "mish", "elu", "selu", "celu", "softplus"),
    "threshold",
)
def _rectifier(trace: EnergyTrace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    """Half of the energy passes; the constant share grows."""
    share = constant_share(x)
    out = alias(x) if trace.paths else pointwise(lambda e: rectified(x, e), x)
    out.rectified = True  # type: ignore[attr-defined]
    if trace.paths or share is None:
        return out
    return with_constant_share(out, relu_constant_share(share))


@rule("leaky_relu")
def _leaky(
    trace: EnergyTrace, x: Tensor, negative_slope: float = 0.01, *_: Any, **__: Any
) -> Tensor:
    """A rectifier that passes the square of its slope of the other half.

    It is (1 + a) / 2 of x and (1 - a) / 2 of its size, which are uncorrelated.
    """
    out = _rectifier(trace, x)
    if trace.paths or abs(negative_slope) < LEAST_SLOPE:
        return out
    share, square = constant_share(x), negative_slope**2
    leaks = pointwise(lambda r, e: r + square * (second_moment(x, e) - r), out, x)
    leaks.rectified = True  # type: ignore[attr-defined]
    if share is None:
        return leaks
    straight, size = (1 + negative_slope) ** 2, (1 - negative_slope) ** 2
    joint = straight * share + size * size_constant_share(share)
    return with_constant_share(leaks, joint / (straight + size))


@rule("rrelu")
def _randomly_leaky(
    trace: EnergyTrace, x: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any, **__: Any
) -> Tensor:
    """Its slope is the mean of both when nothing is trained."""
    return _leaky(trace, x, (lower + upper) / 2)


@rule("prelu")
def _prelu(trace: EnergyTrace, x: Tensor, slope: Tensor) -> Tensor:
    """Whatever its slopes are: these are learned."""
    if is_energy(slope):
        raise NotApplicableError("its slopes depend on the image")
    return _rectifier(trace, x)


@rule(*COMPARISONS, *CHOICES)
def _compared(_trace: EnergyTrace, *_: Any, **__: Any) -> Tensor:
    raise NotApplicableError("its result jumps with the values of the image")


@rule(*ODD)
def _squash(trace: EnergyTrace, x: Tensor, *bounds: Any, **named: Any) -> Tensor:
    """Odd functions keep the constant share; a hard tanh with a minimum of 0 is a ReLU."""
    low = bounds[0] if bounds else named.get("min_val", -1)
    if low == 0:
        return _rectifier(trace, x)
    return x if trace.paths else pointwise(lambda e: e / 2, x)


@rule("clamp", "clip")
def _clamp(trace: EnergyTrace, x: Tensor, min: Any = None, max: Any = None, **_: Any) -> Tensor:  # noqa: A002 - torch's names
    """The upper bound holds what the lower one gives, as in torch."""
    if is_energy(min) and is_energy(max):
        raise NotApplicableError("both of its bounds depend on the image")
    return _bounded(trace, _bounded(trace, x, min), max)


@rule("clamp_min")
def _clamp_min(trace: EnergyTrace, x: Tensor, min: Any, **_: Any) -> Tensor:  # noqa: A002
    return _bounded(trace, x, min)


@rule("clamp_max")
def _clamp_max(trace: EnergyTrace, x: Tensor, max: Any, **_: Any) -> Tensor:  # noqa: A002
    return _bounded(trace, x, max)


def _bounded(trace: EnergyTrace, x: Tensor, bound: Any) -> Tensor:
    """A bound of 0 is a ReLU; any other number is taken for a guard against overflow: the identity.

    Several numbers are those of a maximum or minimum, and so is what depends on the image.
    """
    if bound is None or not (is_energy(x) or is_energy(bound)):
        return x
    if isinstance(bound, Tensor) and (is_energy(bound) or bound.is_meta or bound.numel() > 1):
        return maximum_rule(trace, x, bound)
    return _rectifier(trace, x) if float(bound) == 0 else x


@rule("sigmoid", "hardsigmoid")
def _gate(_trace: EnergyTrace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return constant_amplitude(x, 0.5)


@rule("glu")
def _glu(trace: EnergyTrace, x: Tensor, dim: int = -1) -> Tensor:
    first, second = x.chunk(2, dim)
    return mul(trace, first, _gate(trace, second))


def uniform_over(logits: Tensor, axis: int) -> Tensor:
    """Amplitudes 1 / n over the n entries along `axis` that no mask made zero, 0 for the others."""
    small = compress(logits).detach()
    if not is_masked(logits) or bool((small != 0).all()) or not bool((small != 0).any()):
        return constant_amplitude(logits, 1 / logits.shape[axis])
    allowed = (small != 0).to(torch.float64)
    if small.shape[axis] == 1:
        count = torch.full_like(allowed, logits.shape[axis])
    else:
        count = allowed.sum(axis, keepdim=True).clamp(min=1)
    return with_history(widen(allowed / count, logits.shape), history_of(logits))


@rule("softmax")
def _softmax(_trace: EnergyTrace, x: Tensor, dim: int | None = None, *_: Any, **__: Any) -> Tensor:
    """Uniform over the entries that no mask excludes; a mask takes the energy of its logits."""
    return uniform_over(x, -1 if dim is None else dim)


@rule("log_softmax")
def _log_softmax(
    _trace: EnergyTrace, x: Tensor, dim: int | None = None, *_: Any, **__: Any
) -> Tensor:
    """Constants of which the exponentials are those of a softmax."""
    return pointwise(torch.log, uniform_over(x, -1 if dim is None else dim))


@rule(
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "alpha_dropout",
    "feature_dropout",
    "feature_alpha_dropout",
    "float",
    "double",
    "cpu",
    "cuda",
    "neg",
    "positive",
    "nan_to_num",
    "requires_grad",
    "detach_copy",
    "local_response_norm",
    "half",
    "bfloat16",
    "log1p",
)
def _identity(_trace: EnergyTrace, x: Tensor, *_: Any, **__: Any) -> Tensor:
    return x


@rule("abs")
def _size(trace: EnergyTrace, x: Tensor, **_: Any) -> Tensor:
    """Every unit passes, of either sign; the constant share grows."""
    share, out = constant_share(x), alias(x)
    if trace.paths or share is None:
        return out
    return with_constant_share(out, size_constant_share(share))


@rule("exp", "expm1")
def _exponential(_trace: EnergyTrace, x: Tensor, **_: Any) -> Tensor:
    return pointwise(torch.clone, x)


@rule("to", "type", "type_as")
def _converted(_trace: EnergyTrace, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """The same, but of whole numbers, which have no gradient."""
    for given in (*args, *named.values()):
        dtype = given.dtype if isinstance(given, Tensor) else given
        if isinstance(dtype, torch.dtype) and not dtype.is_floating_point:
            raise NotApplicableError(f"it converts to {dtype}, which has no gradient")
    return x


@rule("clone", "contiguous")
def _clone(_trace: EnergyTrace, x: Tensor, **_: Any) -> Tensor:
    return pointwise(torch.clone, x)


@rule("add", "iadd", "radd")
def add(trace: EnergyTrace, a: Any, b: Any, *, alpha: float = 1, **_: Any) -> Tensor:
    """Energies of independent terms add; constants vanish, other than masks of attention."""
    if is_energy(a) and is_energy(b):
        if alpha != 1:
            b = pointwise(lambda e: e * alpha**2, b)
        return pointwise(torch.add, a, b)
    energy, other = (a, b) if is_energy(a) else (b, a)
    if isinstance(other, Tensor):
        if _excludes(other):
            out = pointwise(lambda e, m: e.masked_fill(m < MASKED, 0.0), energy, other)
            trace.assume(out, f"numbers below {MASKED:g} that are added are a mask of attention")
            return mark_masked(out)
        return widen_like(energy, torch.broadcast_shapes(energy.shape, other.shape))
    return energy  # type: ignore[no-any-return]


@rule("sub", "isub", "subtract")
def _sub(trace: EnergyTrace, a: Any, b: Any, *, alpha: float = 1, **_: Any) -> Tensor:
    return add(trace, a, b, alpha=-alpha)


@rule("rsub")
def _rsub(trace: EnergyTrace, a: Any, b: Any, **_: Any) -> Tensor:
    return _sub(trace, b, a)


def _excludes(constant: Tensor) -> bool:
    """Whether a constant that is added is a mask of attention, which leaves some keys."""
    if constant.is_meta or constant.ndim < 2 or not constant.is_floating_point():
        return False
    small = compress(constant)
    return small.shape[-1] > 1 and bool(small.amin() < MASKED <= small.amax())


def widen_like(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Broadcast `x` to `shape`."""
    return x if x.shape == tuple(shape) else widen(compress(x), shape)


@rule("mul", "imul", "rmul", "multiply")
def mul(trace: EnergyTrace, a: Any, b: Any, **_: Any) -> Tensor:
    """Multiply; autograd applies the product rule d(ab) = b da + a db to the energies."""
    if is_energy(a) and is_energy(b):
        if trace.paths:
            return pointwise(torch.add, a, b)
        added = squared_offset(a, b)
        return pointwise(lambda x, y: second_moment(a, x) * second_moment(b, y) - added, a, b)
    energy, other = (a, b) if is_energy(a) else (b, a)
    if not isinstance(other, Tensor):
        factor = trace.coefficient(other)
        return pointwise(lambda e: e * factor, energy)
    return _scaled(energy, other, compress_uniform(trace.coefficient(uniform_source(other))))


def uniform_source(constant: Tensor) -> Tensor:
    """The compact form of a constant that is not on `meta`."""
    return constant if constant.is_meta else compress(constant)


def _scaled(energy: Tensor, constant: Tensor, factor: Tensor) -> Tensor:
    """Multiply by `factor`, which is compact and broadcasts to the shape of `constant`."""
    shape = torch.broadcast_shapes(energy.shape, constant.shape)
    return widen(compress(energy) * factor, shape)


@rule("div", "idiv", "truediv", "itruediv", "true_divide", "divide")
def _div(trace: EnergyTrace, a: Any, b: Any, *, rounding_mode: Any = None, **_: Any) -> Tensor:
    if rounding_mode is not None:
        raise NotApplicableError("it rounds: its gradient is 0")
    if is_energy(b):
        if is_energy(a):
            trace.read_as_constants.append(b)
            if not trace.paths:
                a = pointwise(lambda e, d: e / second_moment(b, d).detach().clamp(min=1e-30), a, b)
            return a  # type: ignore[no-any-return]
        return constant_amplitude(b, 1.0)
    if not isinstance(b, Tensor):
        return mul(trace, a, 1 / b)
    return _scaled(a, b, 1 / compress_uniform(trace.coefficient(uniform_source(b))))


@rule("rdiv", "rtruediv")
def _rdiv(trace: EnergyTrace, a: Any, b: Any) -> Tensor:
    return _div(trace, b, a)


@rule("maximum", "minimum", "fmax", "fmin")
def maximum_rule(trace: EnergyTrace, a: Any, b: Any) -> Tensor:
    """Each of two entries is the larger with probability 1/2; a constant is the same everywhere.

    With zeros it is a ReLU.
    """
    for one, other in ((a, b), (b, a)):
        if not isinstance(other, Tensor) or is_energy(other) or other.is_meta:
            continue
        if differs_between_places(compress(other), one) is not False:
            raise NotApplicableError("it compares with constants that differ between places")
        if torch.broadcast_shapes(one.shape, other.shape) == one.shape and not other.any():
            return _rectifier(trace, one)
    both = add(trace, a, b)
    return both if trace.paths else pointwise(lambda e: e / 2, both)


@rule("masked_fill")
def _masked_fill(_trace: EnergyTrace, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    del value
    return pointwise(lambda e, m: e.masked_fill(m, 0.0), x, mask)


@rule("where")
def _where(trace: EnergyTrace, condition: Tensor, a: Any, b: Any) -> Tensor:
    first, second = (v if is_energy(v) else constant_energy(trace, v) for v in (a, b))
    return torch.where(condition, first, second)


def constant_energy(trace: EnergyTrace, constant: Any) -> Any:
    """A constant as an energy that no pixel reaches, such as a mask token.

    Large negative numbers, which exclude logits from a softmax, vanish.
    """
    found = trace.coefficient(constant)
    if not isinstance(constant, Tensor):
        return 0.0 if constant < MASKED else found
    return found if constant.is_meta else found.masked_fill(constant < MASKED, 0.0)
