"""Fast forward passes on the `meta` device: shape-preserving functions are answered by rules.

On the `meta` device torch derives the shape of every operation in Python, step by step; a norm or
the initialisation of a weight takes about a dozen steps. `ShapesOnly` answers the most common
functions at once with a tensor of the right shape and type. All other functions, and all calls with
a tensor that has values, are left to torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from .torch_calls import Convolution, FunctionMode, pair

if TYPE_CHECKING:
    from collections.abc import Callable


Result = TypeVar("Result")

Answer = Tensor | tuple[Tensor, ...] | None
"""Result of a rule, or None where torch has to compute it."""


def _like(x: Any, *_: Any, inplace: bool = False, **__: Any) -> Answer:
    """Return a tensor of the same shape and memory order."""
    if not (isinstance(x, Tensor) and x.is_meta and x.is_floating_point()):
        return None
    return x if inplace else torch.empty_like(x)


def _rows(x: Any, *_: Any, **__: Any) -> Answer:
    """Return a contiguous tensor of the same shape, as norms over the last axes do."""
    if not (isinstance(x, Tensor) and x.is_meta):
        return None
    return torch.empty_like(x, memory_format=torch.contiguous_format)


def _filled(x: Any, *_: Any, **__: Any) -> Answer:
    """Return the tensor itself: an in-place function changes no values on `meta`."""
    return x if isinstance(x, Tensor) and x.is_meta else None


def _joined(a: Any, b: Any, *_: Any, **__: Any) -> Answer:
    """Elementwise functions of two tensors of one shape and type, or of a tensor and a number."""
    if not (isinstance(a, Tensor) and a.is_meta and a.is_floating_point()):
        return None
    if isinstance(b, Tensor):
        same = bool(b.is_meta and a.shape == b.shape and a.dtype == b.dtype)
        return torch.empty_like(a) if same else None
    return torch.empty_like(a) if isinstance(b, int | float) else None


def _linear(x: Any, weight: Any, *_: Any, **__: Any) -> Answer:
    known = isinstance(x, Tensor) and isinstance(weight, Tensor) and x.is_meta and weight.is_meta
    if not known or weight.ndim != 2 or x.shape[-1] != weight.shape[1] or x.dtype != weight.dtype:
        return None
    out: Tensor = x.new_empty((*x.shape[:-1], weight.shape[0]))
    return out


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Answer:
    if not all(isinstance(t, Tensor) and t.is_meta for t in (query, key, value)):
        return None
    plain = query.shape[:-2] == key.shape[:-2] == value.shape[:-2]
    fits = plain and query.shape[-1] == key.shape[-1] and key.shape[-2] == value.shape[-2]
    return query.new_empty((*query.shape[:-1], value.shape[-1])) if fits else None


def _lstm(x: Any, state: Any, _weights: Any, *options: Any) -> Answer:
    """Shapes of an LSTM's results; of its options only the fifth, bidirectional, matters.

    A packed sequence, which passes its lengths in the place of `state`, is left to torch.
    """
    if not (isinstance(x, Tensor) and x.is_meta and isinstance(state, tuple)):
        return None
    features = state[0].shape[-1] * (2 if options[4] else 1)
    return x.new_empty((*x.shape[:-1], features)), *(torch.empty_like(s) for s in state)


def _conv2d(*args: Any, **kwargs: Any) -> Answer:
    call = Convolution(*args, **kwargs)
    x, weight = call.input, call.weight
    known = isinstance(x, Tensor) and isinstance(weight, Tensor) and x.is_meta and weight.is_meta
    if not known or x.ndim != 4 or isinstance(call.padding, str):
        return None
    if x.shape[1] != weight.shape[1] * call.groups or x.dtype != weight.dtype:
        return None
    windows = [pair(value) for value in (call.stride, call.padding, call.dilation)]
    axes = zip(x.shape[2:], weight.shape[2:], *windows, strict=True)
    size = [(n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes]
    return x.new_empty((x.shape[0], weight.shape[0], *size)) if min(size) > 0 else None


_ACTIVATIONS = (
    *(F.relu, F.relu6, F.gelu, F.silu, F.hardswish, F.hardsigmoid, F.leaky_relu, F.mish, F.elu),
    *(F.softmax, F.dropout, torch.relu, torch.sigmoid, torch.softmax, torch.tanh),
    *(Tensor.relu, Tensor.sigmoid, Tensor.softmax, Tensor.tanh),
)

_IN_PLACE = (
    *(Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_, Tensor.erfinv_, Tensor.clamp_),
)

RULES: dict[Any, Callable[..., Answer]] = {
    **dict.fromkeys(_ACTIVATIONS, _like),
    **dict.fromkeys((F.batch_norm, torch.batch_norm, F.instance_norm, torch.clone), _like),
    **dict.fromkeys((F.layer_norm, torch.layer_norm, F.group_norm, torch.group_norm), _rows),
    **dict.fromkeys(_IN_PLACE, _filled),
    **dict.fromkeys(
        (Tensor.add, Tensor.mul, Tensor.sub, Tensor.div, torch.add, torch.mul), _joined
    ),
    **dict.fromkeys(
        (Tensor.add_, Tensor.mul_, Tensor.sub_, Tensor.div_),
        lambda a, b, *_, **__: a if _joined(a, b) is not None else None,
    ),
    F.linear: _linear,
    F.conv2d: _conv2d,
    F.scaled_dot_product_attention: _attention,
    torch.lstm: _lstm,
}


class ShapesOnly(FunctionMode):
    """Answers functions by `RULES` while it is active."""

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The answer of the function's rule, or torch's where there is none."""
        rule = RULES.get(func)
        answer = rule(*args, **kwargs) if rule is not None and args else None
        return func(*args, **kwargs) if answer is None else answer


def quickly(run: Callable[[], Result]) -> Result:
    """Call `run` under `ShapesOnly`; if that fails, call it without, for torch's own error."""
    try:
        with ShapesOnly():
            return run()
    except Exception:  # a foreign forward may raise anything
        return run()
