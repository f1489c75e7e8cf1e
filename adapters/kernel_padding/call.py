"""A call of a strided convolution or pool, and its growth by kernel padding; for every runtime.

A transposed convolution of stride s reaches its output phase by the taps j with j * d mod s: the
same arithmetic as that of a convolution's input phases. What more taps add to its output is cropped
again, half of it, rounded down, at the front; with `zero` all at the end, which keeps the function.
"""

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


Kind = Literal["conv2d", "max_pool2d", "avg_pool2d", "conv_transpose1d", "conv_transpose2d"]

CONVOLUTIONS = ("conv2d", "conv_transpose1d", "conv_transpose2d")
"""Calls with a weight."""

TRANSPOSED = CONVOLUTIONS[1:]


@dataclass(frozen=True, eq=False)
class StridedCall:
    """One call of a convolution or pool over `x` (..., channels, height, width).

    Pairs are (rows, columns); of `conv_transpose1d`, whose `x` is (..., channels, length) and whose
    `weight` has three axes, rows are (1, no padding).
    """

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
    output_padding: Pair = (0, 0)

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution."""
        return self.kind in TRANSPOSED

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
    if call.transposed and fill == "kim2023":
        return "a transposed convolution, which Kim et al. leave as it is"
    if call.indices:
        return "a max-pool that returns indices, which a padded input would shift"
    if fill == "zero" and call.kind == "max_pool2d":
        return "a larger window would change the maximum; zero keeps the function"
    if fill in ZEROS and call.kind == "avg_pool2d":
        return "a mean has no taps to add: with weight 0 they are the same mean"
    if fill in ZEROS and call.kind in CONVOLUTIONS and not owned:
        return "a fixed or computed kernel: new taps of 0 could never be trained"
    return None


def settled_fill(call: StridedCall, fill: Fill, owned: bool) -> Fill:
    """Return the fill of a call: `box` replaces `fresh` for kernels that are fixed or computed."""
    return "box" if fill == "fresh" and call.kind in CONVOLUTIONS and not owned else fill


@dataclass(frozen=True)
class CallGrowth:
    """The growth of a call: its kernel, and the rows to add in front and at the end, per axis.

    Of a transposed convolution they are rows of the output, which are cropped instead.
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
    if call.transposed:
        return cropped_growth(call, kernel, fill)
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


def cropped_growth(call: StridedCall, kernel: Pair, fill: Fill) -> CallGrowth:
    """Return the growth of a transposed convolution, with the rows of its output to crop."""
    new = [d * (g - k) for d, g, k in zip(call.dilation, kernel, call.kernel, strict=True)]
    front = [0 if fill == "zero" else n // 2 for n in new]
    return CallGrowth(kernel, (front[0], front[1]), (new[0] - front[0], new[1] - front[1]))
