"""A call of a strided convolution or pool, and its growth by kernel padding; for every runtime."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from ..treatment import ZEROS
from .arithmetic import Pair, end_padding, grown_kernel

if TYPE_CHECKING:
    from ..treatment import Fill


Kind = Literal["conv2d", "max_pool2d", "avg_pool2d"]


@dataclass(frozen=True, eq=False)
class StridedCall:
    """One call of a convolution or pool over `x` (..., channels, height, width)."""

    kind: Kind
    x: Tensor
    kernel: Pair
    stride: Pair
    padding: Pair
    dilation: Pair
    ceil_mode: bool = False
    weight: Tensor | None = None
    bias: Tensor | None = None
    groups: int = 1
    indices: bool = False
    include_pad: bool = True
    divisor: int | None = None

    @property
    def uneven(self) -> bool:
        """Whether a stride does not divide its kernel, and the call is not padded yet.

        A padded weight has a `tap_energy`.
        """
        divides = all(k % s == 0 for k, s in zip(self.kernel, self.stride, strict=True))
        return not divides and getattr(self.weight, "tap_energy", None) is None

    @property
    def size(self) -> Pair:
        """Height and width of `x`."""
        return _plane(self.x)


def _plane(tensor: Tensor) -> Pair:
    """Return the last two sizes of `tensor` as numbers, also under `torch.jit.trace`."""
    rows, columns = tensor.shape[-2], tensor.shape[-1]
    if not isinstance(rows, Tensor):
        return rows, columns
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        return int(rows), int(columns)


def why_not_padded(call: StridedCall, fill: Fill, owned: bool) -> str | None:
    """Return why `fill` cannot pad an uneven call, or None. `owned`: the weight is a parameter."""
    if grown_kernel(call.kernel, call.stride, "box", call.dilation) == call.kernel:
        return (
            f"dilation {call.dilation} and stride {call.stride} share a factor: no number of taps "
            "reaches every phase"
        )
    if call.indices:
        return "a max-pool that returns indices, which a padded input would shift"
    if fill == "zero" and call.kind == "max_pool2d":
        return "a larger window would change the maximum; zero keeps the function"
    if fill in ZEROS and call.kind == "avg_pool2d":
        return "a mean has no taps to add: with weight 0 they are the same mean"
    if fill in ZEROS and call.kind == "conv2d" and not owned:
        return "a fixed or computed kernel: new taps of 0 could never be trained"
    return None


def settled_fill(call: StridedCall, fill: Fill, owned: bool) -> Fill:
    """Return the fill of a call: `box` replaces `fresh` for kernels that are fixed or computed."""
    return "box" if fill == "fresh" and call.kind == "conv2d" and not owned else fill


@dataclass(frozen=True)
class CallGrowth:
    """The growth of a call: its kernel, and the rows to add in front and at the end, per axis.

    `ceil_mode` is that of a pool which gets no rows; others have all rows that they need.
    """

    kernel: Pair
    front: Pair = (0, 0)
    end: Pair = (0, 0)
    ceil_mode: bool = False

    @property
    def ends(self) -> tuple[int, int, int, int]:
        """In the order of `F.pad`."""
        return (self.front[1], self.end[1], self.front[0], self.end[0])


def call_growth(
    call: StridedCall, kernel: Pair, fill: Fill, by_hand: tuple[Pair, Pair]
) -> CallGrowth:
    """Return the growth of `call` to `kernel`.

    `by_hand` is the padding that the layer applied before the call, (before, after) of rows and of
    columns. `kim2023` adds no rows: the output is smaller where the larger kernel has no room.
    """
    if fill == "kim2023":
        return CallGrowth(kernel, ceil_mode=call.ceil_mode)
    front = [0, 0]
    end = [0, 0]
    for axis in (0, 1):
        k, s, p, d = (v[axis] for v in (call.kernel, call.stride, call.padding, call.dilation))
        before, after = by_hand[axis]
        new = d * (kernel[axis] - k)
        if fill != "zero" and p == 0 and before < after:
            front[axis] = min(new, (before + after + new) // 2 - before)
        missing = end_padding(
            call.size[axis], k, kernel[axis], s, p, p, d, ceil_mode=call.ceil_mode
        )
        end[axis] = max(0, missing - front[axis])
    return CallGrowth(kernel, (front[0], front[1]), (end[0], end[1]))
