"""Another padding mode for the layers of a torch module in place of zero padding.

Alsallakh et al. ("Mind the Pad", ICLR 2021) exchange zero padding for others to see what it does.
The mode `PaddingExchange` does this call by call: the input of a convolution or pool that pads is
padded by `reflect`, `replicate` or `circular` instead, and the call itself pads nothing. The
weights and the module are not changed. Padding that the layer applied before the call (TF-SAME,
`ZeroPad2d`, kernel padding) counts as its own. Pools pad with -inf, or leave padding out of their
mean; they are continued too, so that a network of convolutions and pools becomes exactly periodic
under `circular`. Transposed convolutions are not changed: their padding crops their output.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..kernel_padding.call import StridedCall
from ..padding_mode import MEAN, PaddingMode, check_padding_mode, notes, too_small
from ..torch_calls import FunctionMode, Padding, running_layers
from .kernel_padding.calls import read_call

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


Pads = tuple[int, int, int, int]
"""Left, right, top, bottom: the order of `F.pad`."""

_NEUTRAL = (0, None, float("-inf"))


@dataclass(frozen=True)
class _ByHand:
    """One call of `F.pad`: its result, its input, the amounts and the value."""

    out: Tensor
    source: Tensor
    pads: Pads
    mode: str
    value: Any

    def pads_for(self, call: StridedCall) -> bool:
        """Whether this is the padding of `call`, not a part of the network's arithmetic."""
        if self.out is not call.x:
            return False
        repeated = self.mode == "replicate" and call.kind == "max_pool2d"
        return repeated or (self.mode == "constant" and self.value in _NEUTRAL)


class PaddingExchange(FunctionMode):
    """Exchanges padding for `border` in every call while it is active.

    `exchanged` and `left` name the layers; `stack` holds the names of the modules that are running.
    """

    def __init__(
        self, border: PaddingMode, stack: list[tuple[str, nn.Module]] | None = None
    ) -> None:
        super().__init__()
        self.border = border
        self.stack = stack or []
        self.exchanged: dict[str, None] = {}
        self.left: dict[str, str] = {}
        self._by_hand: _ByHand | None = None

    def call(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Make the call on an input that is padded by `border`, if the call pads."""
        if func is F.pad:
            out = func(*args, **kwargs)
            padding = Padding(*args, **kwargs)
            pads = tuple(int(n) for n in padding.pad)
            if len(pads) == 4 and min(pads) >= 0:
                self._by_hand = _ByHand(out, padding.input, pads, padding.mode, padding.value)
            return out
        call = read_call(func, args, kwargs)
        continued = None
        if call is not None and not call.transposed:
            continued = self._continued(call, _same(args, kwargs, call))
        return func(*args, **kwargs) if continued is None else continued

    def _continued(self, call: StridedCall, same: Pads) -> Tensor | None:
        """Return the output of `call` for its padded input, or None if the call is not changed."""
        (rows, columns), source = call.padding, call.x
        pads = _add(same, (columns, columns, rows, rows))
        if self._by_hand is not None and self._by_hand.pads_for(call):
            pads, source = _add(pads, self._by_hand.pads), self._by_hand.source
        if not any(pads):
            return None
        name = self.stack[-1][0] if self.stack else ""
        reason = why_padding_is_kept(call, self.border, pads, (source.shape[-2], source.shape[-1]))
        if reason is not None:
            self.left[name] = reason
            return None
        self.exchanged[name] = None
        return _run(call, F.pad(source, pads, mode=self.border))


def _add(one: Pads, other: Pads) -> Pads:
    left, right, top, bottom = (a + b for a, b in zip(one, other, strict=True))
    return left, right, top, bottom


def _same(args: tuple[Any, ...], kwargs: Mapping[str, Any], call: StridedCall) -> Pads:
    """Return the padding of a convolution called with padding="same": the odd row at the end."""
    given = kwargs.get("padding", args[4] if len(args) > 4 else 0)
    if call.kind != "conv2d" or given != "same":
        return 0, 0, 0, 0
    rows, columns = (d * (k - 1) for d, k in zip(call.dilation, call.kernel, strict=True))
    return columns // 2, columns - columns // 2, rows // 2, rows - rows // 2


def why_padding_is_kept(
    call: StridedCall, border: PaddingMode, pads: tuple[int, ...], size: tuple[int, int]
) -> str | None:
    """Return why a call over `size` (rows, columns) keeps its padding `pads`, or None."""
    if call.ceil_mode:
        return "it rounds its number of windows up, which padding of its own would change"
    if call.indices:
        return "a max-pool that returns indices, which a padded input would shift"
    if call.groups > 1 and call.weight is not None and call.weight.stride(0) == 0:
        return MEAN
    left, right, top, bottom = pads
    return too_small(border, (max(top, bottom), max(left, right)), size)


def _run(call: StridedCall, x: Tensor) -> Tensor:
    """Make `call` on `x`, which is padded already."""
    if call.weight is not None:
        return F.conv2d(x, call.weight, call.bias, call.stride, 0, call.dilation, call.groups)
    if call.kind == "max_pool2d":
        return F.max_pool2d(x, call.kernel, call.stride, 0, call.dilation)
    return F.avg_pool2d(x, call.kernel, call.stride, 0, divisor_override=call.divisor)


def active(border: PaddingMode | None) -> contextlib.AbstractContextManager[Any]:
    """Return the context that applies a padding mode to one pass; for None it does nothing."""
    return contextlib.nullcontext() if border is None else PaddingExchange(border)


def survey(module: nn.Module, run: Callable[[], Any], border: PaddingMode) -> list[str]:
    """Return notes on the layers that `run()` calls: which of them the exchange changes.

    Raises `NotApplicableError` when no layer can be exchanged.
    """
    check_padding_mode(border)
    stack: list[tuple[str, nn.Module]] = [(type(module).__name__, module)]
    mode = PaddingExchange(border, stack)
    with running_layers(module, stack, root_name=stack[0][0]), torch.no_grad(), mode:
        run()
    return notes(border, list(mode.exchanged), mode.left)
