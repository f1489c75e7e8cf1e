"""Convolutions, pools and pixel rearrangement as ONNX defines them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from ..graph import OperatorCall

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


CONVOLUTION = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}

TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}

MAX_POOL = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}


@dataclass(frozen=True)
class OperatorWindow:
    """A sliding window; every field has one number per spatial axis."""

    kernel: list[int]
    stride: list[int]
    dilation: list[int]
    before: list[int]
    after: list[int]

    @property
    def symmetric(self) -> bool:
        """Whether torch's own padding can express it."""
        return self.before == self.after

    def padding(self) -> list[int]:
        """In the order of `F.pad`: last axis first, before and after."""
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        return [n for pair in pairs for n in pair]


def window(
    call: OperatorCall, size: Sequence[int], kernel: Sequence[int], *, pools: bool = False
) -> OperatorWindow:
    """The window of a convolution, or of what `pools`, over an input of `size`.

    It resolves `auto_pad`.
    """
    rank = len(kernel)
    stride = list(call.get("strides", [1] * rank))
    dilation = list(call.get("dilations", [1] * rank))
    pads = list(call.get("pads", [0] * 2 * rank))
    mode = call.get("auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        lower = mode == "SAME_LOWER"
        if pools:
            pads = same_padding_of_pool(size, kernel, stride, lower=lower)
        else:
            pads = same_padding(size, kernel, stride, dilation, lower=lower)
    elif mode == "VALID":
        pads = [0] * 2 * rank
    return OperatorWindow(list(kernel), stride, dilation, pads[:rank], pads[rank:])


def same_padding(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    lower: bool = False,
) -> list[int]:
    """Padding that gives ceil(size / stride) windows; the odd one at the end unless `lower`."""
    before, after = [], []
    for n, k, s, d in zip(size, kernel, stride, dilation, strict=True):
        total = max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
        short, long = total // 2, total - total // 2
        before.append(long if lower else short)
        after.append(short if lower else long)
    return before + after


def same_padding_of_pool(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], *, lower: bool = False
) -> list[int]:
    """The SAME padding that onnxruntime gives a pool, whose dilation it leaves out of account.

    A dilated pool has fewer windows than ceil(size / stride). Where strides are larger than the
    kernel, padding is negative: what no window reaches is cut off at both ends.
    """
    before, after = [], []
    for n, k, s in zip(size, kernel, stride, strict=True):
        total = (-(-n // s) - 1) * s + k - n
        before.append(int((total + lower) / 2))  # rounded towards zero
        after.append(total - before[-1])
    return before + after


def convolution(
    call: OperatorCall, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Convolution; uneven padding becomes a step of its own."""
    rank = weight.ndim - 2
    w = window(call, x.shape[2:], weight.shape[2:])
    pad: Any = w.before
    if not w.symmetric:
        x, pad = F.pad(x, w.padding()), 0
    return CONVOLUTION[rank](x, weight, bias, w.stride, pad, w.dilation, call.get("group", 1))


def transposed_convolution(
    call: OperatorCall, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> Tensor:
    """Transposed convolution; padding is cut off afterwards, as it may be uneven."""
    rank = weight.ndim - 2
    kernel, size = weight.shape[2:], x.shape[2:]
    stride = list(call.get("strides", [1] * rank))
    dilation = list(call.get("dilations", [1] * rank))
    extra = list(call.get("output_padding", [0] * rank))
    pads = list(call.get("pads", [0] * 2 * rank))
    mode, wanted = call.get("auto_pad", "NOTSET"), call.get("output_shape")
    pads = transposed_pads(size, kernel, stride, dilation, extra, pads, mode, wanted)
    group = call.get("group", 1)
    y = TRANSPOSED[rank](x, weight, None, stride, 0, 0, group, dilation)
    cut = [n for i in reversed(range(rank)) for n in (-pads[i], extra[i] - pads[i + rank])]
    y = F.pad(y, cut)
    return y if bias is None else y + bias.reshape(1, -1, *[1] * rank)


def transposed_pads(
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    extra: Sequence[int],
    pads: Sequence[int],
    mode: str,
    wanted: Sequence[int] | None,
) -> list[int]:
    """What is cropped of each axis of the output, first all before, then all after.

    These are `pads`, or what `auto_pad` (`mode`) or `output_shape` (`wanted`) makes of them. The
    `size` of the input does not matter to `auto_pad`.
    """
    if not wanted and not mode.startswith("SAME"):
        return [0] * len(pads) if mode == "VALID" else list(pads)
    axes = range(len(kernel))
    full = [(size[i] - 1) * stride[i] + (kernel[i] - 1) * dilation[i] + 1 + extra[i] for i in axes]
    if wanted:
        total = [f - n for f, n in zip(full, wanted[-len(kernel) :], strict=True)]
    else:  # onnxruntime never adds rows that no tap reaches
        total = [max(0, f - n * s) for f, n, s in zip(full, size, stride, strict=True)]
    short = [max(t if mode == "SAME_UPPER" else t + 1, 0) // 2 for t in total]
    return short + [t - s for t, s in zip(total, short, strict=True)]


def _rounded_up(call: OperatorCall, size: Sequence[int], w: OperatorWindow) -> OperatorWindow:
    """`w` with end padding such that `ceil_mode` gives its extra windows by plain rounding down.

    A window that would start beyond the input and its padding before is dropped.
    """
    if not call.get("ceil_mode", 0):
        return w
    after = []
    for i, n in enumerate(size):
        reach = w.dilation[i] * (w.kernel[i] - 1) + 1
        span = n + w.before[i] + w.after[i] - reach
        count = -(-span // w.stride[i])
        if count * w.stride[i] >= n + w.before[i]:
            count -= 1
        after.append(w.after[i] + max(count * w.stride[i] - span, 0))
    return OperatorWindow(w.kernel, w.stride, w.dilation, w.before, after)


def _half_fits(w: OperatorWindow) -> bool:
    """Whether torch's pools accept the padding: at most half the kernel, the same at both ends."""
    return w.symmetric and all(0 <= 2 * p <= k for p, k in zip(w.before, w.kernel, strict=True))


def max_pool(call: OperatorCall, x: Tensor) -> Tensor:
    """Largest of each window; padding never wins."""
    if len(call.node.outputs) > 1 and call.node.outputs[1]:
        raise call.decline("the index output of MaxPool")
    kernel = list(call.get("kernel_shape"))
    w = _rounded_up(call, x.shape[2:], window(call, x.shape[2:], kernel, pools=True))
    pad: Any = w.before
    if not x.is_floating_point():
        x = x.to(call.mode.dtype)
    if not _half_fits(w):
        x, pad = F.pad(x, w.padding(), value=float("-inf")), 0
    return MAX_POOL[len(kernel)](x, kernel, w.stride, pad, w.dilation)


def _cut(x: Tensor, w: OperatorWindow) -> tuple[Tensor, OperatorWindow]:
    """`x` without what negative padding cuts off, and the window with the other padding."""
    cut = [min(n, 0) for n in w.padding()]
    if not any(cut):
        return x, w
    before, after = ([max(n, 0) for n in pads] for pads in (w.before, w.after))
    return F.pad(x, cut), replace(w, before=before, after=after)


def average_pool(call: OperatorCall, x: Tensor) -> Tensor:
    """Mean of each window, over the padding too when `count_include_pad`."""
    kernel = list(call.get("kernel_shape"))
    x, given = _cut(x, window(call, x.shape[2:], kernel, pools=True))
    w = _rounded_up(call, x.shape[2:], given)
    include = bool(call.get("count_include_pad", 0))
    if len(kernel) == 2 and _half_fits(w) and set(w.dilation) == {1}:
        return F.avg_pool2d(x, kernel, w.stride, w.before, count_include_pad=include)
    real = torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype, device=x.device)
    # Only the padding that the file asked for counts, not what rounding up adds.
    real = F.pad(real, given.padding(), value=1.0 if include else 0.0)
    extra = [n - m for n, m in zip(w.padding(), given.padding(), strict=True)]
    count = _window_sum(F.pad(real, extra), w)
    padded = F.pad(x, w.padding())
    if call.mode.skeleton and len(kernel) == 2:  # as a pool, so that it is one in the layer table
        share = math.prod(kernel) / count
        mean = dilated_avg_pool2d(padded, kernel, w.stride, dilation=w.dilation)
        return mean if bool((share == 1).all()) else mean * share
    return _window_sum(padded, w) / count


def dilated_avg_pool2d(
    x: Tensor, kernel_size: Sequence[int], stride: Sequence[int], *, dilation: Sequence[int]
) -> Tensor:
    """Mean of each window of `x` (batch, channels, rows, columns) with gaps between its units.

    Torch has no such function. A `TorchFunctionMode` sees it under its own name.
    """
    if has_torch_function_unary(x):
        out: Tensor = handle_torch_function(
            dilated_avg_pool2d, (x,), x, kernel_size, stride, dilation=dilation
        )
        return out
    w = OperatorWindow(list(kernel_size), list(stride), list(dilation), [0, 0], [0, 0])
    return _window_sum(x, w) / math.prod(kernel_size)


def dilated_lp_pool2d(
    x: Tensor, norm_type: float, kernel_size: Sequence[int], stride: Sequence[int], *, dilation: Any
) -> Tensor:
    """The norm of each window of `x` (batch, channels, rows, columns), as `dilated_avg_pool2d`."""
    if has_torch_function_unary(x):
        out: Tensor = handle_torch_function(
            dilated_lp_pool2d, (x,), x, norm_type, kernel_size, stride, dilation=dilation
        )
        return out
    w = OperatorWindow(list(kernel_size), list(stride), list(dilation), [0, 0], [0, 0])
    return _window_sum(x.abs().pow(norm_type), w).pow(1 / norm_type)


def _window_sum(x: Tensor, w: OperatorWindow) -> Tensor:
    """Sum over each window of an already padded x, one channel at a time."""
    ones = torch.ones((1, 1, *w.kernel), dtype=x.dtype, device=x.device)
    flat = x.reshape(-1, 1, *x.shape[2:])
    y = CONVOLUTION[len(w.kernel)](flat, ones, None, w.stride, 0, w.dilation)
    return y.reshape(*x.shape[:2], *y.shape[2:])


def lp_pool(call: OperatorCall, x: Tensor) -> Tensor:
    """p-norm of each window."""
    kernel, p = list(call.get("kernel_shape")), call.get("p", 2)
    w = _rounded_up(call, x.shape[2:], window(call, x.shape[2:], kernel, pools=True))
    if call.mode.skeleton and len(kernel) == 2:  # so that it is a pool
        padded = F.pad(x, w.padding(), value=float("-inf"))  # of which no unit counts
        if set(w.dilation) == {1}:
            return F.lp_pool2d(padded, p, (kernel[0], kernel[1]), w.stride)
        return dilated_lp_pool2d(padded, p, kernel, w.stride, dilation=w.dilation)
    return _window_sum(F.pad(x.abs().pow(p), w.padding()), w).pow(1 / p)


def global_lp_pool(call: OperatorCall, x: Tensor) -> Tensor:
    """p-norm of each channel."""
    p = call.get("p", 2)
    if call.mode.skeleton and x.ndim == 4:
        return F.lp_pool2d(x, p, (x.shape[2], x.shape[3]))
    return x.abs().pow(p).sum(tuple(range(2, x.ndim)), keepdim=True).pow(1 / p)


def depth_to_space(call: OperatorCall, x: Tensor) -> Tensor:
    """Channels to blocks of pixels."""
    b = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, b)
    n, c, h, w = x.shape
    blocks = x.reshape(n, b, b, c // b**2, h, w).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(n, c // b**2, h * b, w * b)


def space_to_depth(call: OperatorCall, x: Tensor) -> Tensor:
    """Blocks of pixels to channels."""
    b = call.get("blocksize")
    if call.get("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, b)
    n, c, h, w = x.shape
    blocks = x.reshape(n, c, h // b, b, w // b, b).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(n, c * b * b, h // b, w // b)


def grid_sample(call: OperatorCall, x: Tensor, grid: Tensor) -> Tensor:
    """Sample x at the points of `grid`."""
    mode = call.get("mode", "linear")
    return F.grid_sample(
        x,
        grid,
        {"linear": "bilinear", "cubic": "bicubic"}.get(mode, mode),
        call.get("padding_mode", "zeros"),
        bool(call.get("align_corners", 0)),
    )


def fused_convolution(
    call: OperatorCall,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    add: Tensor | None = None,
) -> Tensor:
    """onnxruntime's convolution with an optional sum and activation."""
    y = convolution(call, x, weight, bias)
    y = y if add is None else y + add
    name, parameters = call.get("activation", ""), call.get("activation_params", [])
    if name not in ACTIVATIONS:
        raise call.decline(f"the activation {name!r}")
    return ACTIVATIONS[name](y, *parameters)


ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Relu": F.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Clip": torch.clamp,
    "LeakyRelu": F.leaky_relu,
    "HardSigmoid": lambda x, alpha, beta: torch.clamp(x * alpha + beta, 0, 1),
}

NN: dict[str, Callable[..., Any]] = {
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "MaxPool": max_pool,
    "AveragePool": average_pool,
    "LpPool": lp_pool,
    "GlobalLpPool": global_lp_pool,
    "GlobalAveragePool": lambda _call, x: x.mean(tuple(range(2, x.ndim)), keepdim=True),
    "GlobalMaxPool": lambda _call, x: x.amax(tuple(range(2, x.ndim)), keepdim=True),
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
    "GridSample": grid_sample,
    "com.microsoft:FusedConv": fused_convolution,
}
