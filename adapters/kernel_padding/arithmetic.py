"""The arithmetic of kernel padding: sizes, taps, second moments, end padding.

Everything works per axis; pairs are (rows, columns). An axis is *uneven* when its stride does not
divide its kernel, so that some input phases are read by more windows than others.

Stride s and dilation d: tap j reads phase j*d mod s. Consecutive taps visit all s phases in turn
when d and s have no common factor. Only then can more taps even out the phases; otherwise the axis
is not padded.

`box` is the full convolution of the kernel with s taps of 1/s. It spreads each old tap once over
every phase, so the taps of each phase have equal sums whatever the weights were. The result has k +
s - 1 taps. For s = 2 that is the next multiple; for larger strides it may be more, and need not be
a multiple of s: the sums per phase are even, not the numbers of taps.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from ..treatment import ZEROS

if TYPE_CHECKING:
    from ..treatment import Fill


Pair = tuple[int, int]


def padded_size(kernel: int, stride: int) -> int:
    """Return the smallest multiple of `stride` that is at least `kernel`.

    >>> padded_size(3, 2), padded_size(7, 4), padded_size(4, 2)
    (4, 8, 4)
    """
    return -(-kernel // stride) * stride


def grown_size(kernel: int, stride: int, fill: Fill, dilation: int = 1) -> int:
    """The number of taps of one axis after kernel padding: k + s - 1 for box, else k'."""
    # an axis grows where it is not divisible, and its taps can reach every phase
    if fill == "none" or kernel % stride == 0 or math.gcd(dilation, stride) > 1:
        return kernel
    return kernel + stride - 1 if fill == "box" else padded_size(kernel, stride)


def grown_kernel(kernel: Pair, stride: Pair, fill: Fill, dilation: Pair = (1, 1)) -> Pair:
    """`grown_size` of both axes."""
    return (
        grown_size(kernel[0], stride[0], fill, dilation[0]),
        grown_size(kernel[1], stride[1], fill, dilation[1]),
    )


def pad_weight(
    weight: Tensor,
    stride: Pair,
    fill: Fill,
    generator: torch.Generator | None = None,
    *,
    dilation: Pair = (1, 1),
) -> Tensor:
    """Return `weight` (out, in, rows, columns) padded by `fill`; differentiable except for fresh.

    `fresh` draws all taps from `generator`. They are normal, with the mean square of the old taps
    times old taps over new taps, which keeps the variance of the output. On the `meta` device only
    the shape is made. An even kernel is returned unchanged. Raises `InputError` when `fresh` has no
    generator.
    """
    kernel: Pair = (int(weight.shape[2]), int(weight.shape[3]))
    grown = grown_kernel(kernel, stride, fill, dilation)
    if grown == kernel:
        return weight
    if fill == "box":
        for axis in (2, 3):
            if grown[axis - 2] != kernel[axis - 2]:
                weight = _spread(weight, axis, stride[axis - 2])
        return weight
    if fill in ZEROS:
        return F.pad(weight, (0, grown[1] - kernel[1], 0, grown[0] - kernel[0]))
    return _draw(weight, grown, generator)


def _spread(weight: Tensor, axis: int, stride: int) -> Tensor:
    """Return the full convolution of `weight` with `stride` taps of 1/stride along `axis`.

    It uses shifts and sums: calling conv2d would trigger a `TorchFunctionMode` that records
    convolutions.
    """
    total: Tensor | None = None
    for shift in range(stride):
        ends = (shift, stride - 1 - shift)
        moved = F.pad(weight, ends if axis == 3 else (0, 0, *ends))
        total = moved if total is None else total + moved
    assert total is not None  # noqa: S101 - a stride is at least 1
    return total / stride


def _draw(weight: Tensor, grown: Pair, generator: torch.Generator | None) -> Tensor:
    """Normal taps (out, in, *grown) with the output variance of `weight`."""
    shape = (*weight.shape[:2], *grown)
    if weight.is_meta:
        return weight.new_empty(shape)
    if generator is None:
        raise InputError("fill 'fresh' draws new weights: give a torch.Generator, seeded")
    taps = torch.randn(shape, generator=generator).to(weight)
    shrink = (weight.shape[2] * weight.shape[3]) / (grown[0] * grown[1])
    return taps * (weight.detach().square().mean() * shrink).sqrt()


def tap_energy(kernel: Pair, stride: Pair, fill: Fill, dilation: Pair = (1, 1)) -> Tensor:
    """Return second moments (rows, columns), float64, of padded taps; old taps are iid, variance 1.

    box: ones in place of the old taps, convolved with the squared box. others: the number of old
    taps over that of new taps, everywhere; where new taps are 0 this describes them after training.
    """
    rows = _axis_energy(kernel[0], stride[0], fill, dilation[0])
    columns = _axis_energy(kernel[1], stride[1], fill, dilation[1])
    return rows[:, None] * columns


def _axis_energy(kernel: int, stride: int, fill: Fill, dilation: int) -> Tensor:
    grown = grown_size(kernel, stride, fill, dilation)
    taps = torch.arange(grown, device="cpu")
    if grown == kernel:
        return torch.ones(kernel, dtype=torch.float64, device="cpu")
    if fill != "box":
        return torch.full((grown,), kernel / grown, dtype=torch.float64, device="cpu")
    covering = (taps + 1).clamp(max=kernel) - (taps - stride + 1).clamp(min=0)
    return covering.double() / stride**2


def mean_taps(kernel: int, stride: int, fill: Fill) -> Tensor:
    """Taps (grown,), float64, sum 1, of a mean over `kernel` after kernel padding.

    box: the mean convolved with a mean over `stride`; fresh: a mean over k'; else the mean itself.
    """
    taps = _axis_energy(kernel, stride, "none" if fill == "zero" else fill, 1)
    return taps / taps.sum()


def output_size(
    size: int,
    kernel: int,
    stride: int,
    pad_before: int,
    pad_after: int,
    dilation: int = 1,
    *,
    ceil_mode: bool = False,
) -> int:
    """Return the number of windows; with `ceil_mode` those that start inside and overhang count."""
    room = size + pad_before + pad_after - dilation * (kernel - 1) - 1
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    return count - 1 if (count - 1) * stride >= size + pad_before else count


def end_padding(
    size: int,
    kernel: int,
    padded: int,
    stride: int,
    pad_before: int,
    pad_after: int,
    dilation: int = 1,
    *,
    ceil_mode: bool = False,
) -> int:
    """Return the rows to add at the end so that `padded` taps give as many outputs as before.

    "Before" is `kernel` taps over `size` rows, with `ceil_mode` as given. The padded layer rounds
    down: call it without `ceil_mode`.

    >>> end_padding(224, 7, 8, 2, 3, 3), end_padding(225, 7, 8, 2, 3, 3)
    (0, 1)
    """
    count = output_size(size, kernel, stride, pad_before, pad_after, dilation, ceil_mode=ceil_mode)
    needed = (count - 1) * stride + dilation * (padded - 1) + 1
    return max(0, needed - (size + pad_before + pad_after))
