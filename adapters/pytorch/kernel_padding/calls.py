"""Kernel padding of one call: a strided convolution or pool as the network makes it.

Kernel padding is defined on the call, not on the layer class: it acts on the weight and the input
that reach `conv2d`, after all that the layer did to them (standardised weights, mixtures of
experts, reflect padding). Every layer that ends in one of these functions is therefore padded by
the same rule.

Existing padding stays. Transposed convolutions keep the size of their output, which is cropped by
what more taps add. There is one exception: if the layer has padded its input itself with less
before than after, as TF-SAME does, the new rows are added in front until both sides balance, as if
SAME had been computed for the grown kernel (exactly so for stride 2). `zero` never does this, as it
keeps the function. `kim2023` adds no rows anywhere: outputs are smaller where there is no room.

Pools: the window of a maximum grows; missing rows at the end repeat the last row, which every such
window contains already, so that they change nothing (dilated windows get -inf). A mean becomes a
fixed convolution, see `mean_taps`. Its divisor counts the pixels, and the layer's own padding if
the layer counted it, but not the rows added here: a constant image stays constant up to the border.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ...errors import NotApplicableError
from ...exported_operators import as_torch_function
from ...kernel_padding.arithmetic import Pair, mean_taps, output_size, pad_weight, tap_energy
from ...kernel_padding.call import StridedCall, _plane
from ...skeleton_marks import SECOND_MOMENTS
from ...torch_calls import Convolution, MaxPool, MeanPool, TransposedConvolution, pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ...kernel_padding.call import CallGrowth
    from ...treatment import Fill


def _any_convolution(
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> Convolution | TransposedConvolution:
    """A call of `torch.convolution`."""
    if not transposed:
        return Convolution(input, weight, bias, stride, padding, dilation, groups)
    return TransposedConvolution(
        input, weight, bias, stride, padding, output_padding, groups, dilation
    )


def _max_pool_with_indices(*args: Any, **kwargs: Any) -> MaxPool:
    return replace(MaxPool(*args, **kwargs), return_indices=True)


_READERS: dict[Callable[..., Any], Callable[..., Any]] = {
    F.conv2d: Convolution,
    F.conv_transpose1d: TransposedConvolution,
    F.conv_transpose2d: TransposedConvolution,
    torch.convolution: _any_convolution,
    F.max_pool2d: MaxPool,
    torch.max_pool2d: MaxPool,
    F.max_pool2d_with_indices: _max_pool_with_indices,
    F.avg_pool2d: MeanPool,
}


def read_call(
    func: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> StridedCall | None:
    """Describe a call of a torch function, or None when it is neither a convolution nor a pool.

    Operators of exported programs are those functions.
    """
    func, args, kwargs = as_torch_function(func, tuple(args), dict(kwargs))
    if func not in _READERS:
        return None
    call = _READERS[func](*args, **kwargs)
    if isinstance(call, Convolution):
        return _read_conv(call)
    if isinstance(call, TransposedConvolution):
        return _read_transposed(call)
    mean = isinstance(call, MeanPool)
    return StridedCall(
        "avg_pool2d" if mean else "max_pool2d",
        call.input,
        pair(call.kernel_size),
        pair(call.stride or call.kernel_size),
        pair(call.padding),
        pair(call.dilation),
        ceil_mode=call.ceil_mode,
        indices=not mean and call.return_indices,
        include_pad=not mean or call.count_include_pad,
        divisor=call.divisor_override if mean else None,
    )


def _read_conv(call: Convolution) -> StridedCall | None:
    if call.weight.ndim != 4:
        return None
    return StridedCall(
        "conv2d",
        call.input,
        _plane(call.weight),
        pair(call.stride),
        pair(0 if isinstance(call.padding, str) else call.padding),  # no "same" with a stride
        pair(call.dilation),
        weight=call.weight,
        bias=call.bias,
        groups=call.groups,
    )


def _read_transposed(call: TransposedConvolution) -> StridedCall | None:
    weight = call.weight
    if weight.ndim not in (3, 4):
        return None
    line = weight.ndim == 3

    def plane(value: Any, default: int) -> Pair:
        rows, columns = pair(value)
        return (default if line else rows), columns

    return StridedCall(
        "conv_transpose1d" if line else "conv_transpose2d",
        call.input,
        _plane(as_plane(weight)),
        plane(call.stride, 1),
        plane(call.padding, 0),
        plane(call.dilation, 1),
        weight=weight,
        bias=call.bias,
        groups=call.groups,
        output_padding=plane(call.output_padding, 0),
    )


_LAYERS = (nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)


def as_plane(weight: Tensor) -> Tensor:
    """A weight of one axis as one of a single row."""
    return weight.unsqueeze(2) if weight.ndim == 3 else weight


def own_parameter(module: nn.Module, weight: Tensor | None) -> str | None:
    """Return the name of the parameter of `module` that `weight` is, or is made of tap by tap.

    A convolution that standardises or scales its weight in `forward` is the second case.
    """
    if weight is None:
        return None
    own = module._parameters
    for name, parameter in own.items():
        if parameter is weight:
            return name
    shared = own.get("weight")
    is_made = isinstance(module, _LAYERS) and shared is not None and shared.shape == weight.shape
    return "weight" if is_made else None


def is_reparametrised(module: nn.Module, weight: Tensor | None) -> bool:
    """Whether `weight` takes the place of the parameter of the layer `module`.

    Weight norm, spectral norm, pruning and parametrizations compute it from parameters of other
    names: in a hook, which leaves it as an attribute, or in a property.
    """
    if weight is None or not isinstance(module, _LAYERS) or "weight" in module._parameters:
        return False
    hooked = vars(module).get("weight") is weight
    made = any(p.ndim == weight.ndim for p in module.parameters())
    return made and (hooked or is_parametrized(module, "weight"))


def own_buffer(module: nn.Module, weight: Tensor | None) -> str | None:
    """Return the name of the buffer of `module` that `weight` is or views: a fixed kernel."""
    if weight is None:
        return None
    for name, buffer in module._buffers.items():
        if buffer is not None and (buffer is weight or weight._base is buffer):
            return name
    return None


def _refuse_uneven(weight: Tensor | None) -> None:
    """Raise `NotApplicableError` if entries of `weight` are known to be unlike (`structure`)."""
    if hasattr(weight, SECOND_MOMENTS):
        raise NotApplicableError(
            "kernel padding of weights that are masked or computed: their taps are not alike"
        )


def run_conv(call: StridedCall, grown: CallGrowth, weight: Tensor, energy: Tensor) -> Tensor:
    """Convolve with the grown `weight`, which carries its `tap_energy` (rows, columns)."""
    _refuse_uneven(call.weight)
    weight.tap_energy = energy  # type: ignore[attr-defined]
    x = F.pad(call.x, grown.ends) if any(grown.ends) else call.x
    return F.conv2d(x, weight, call.bias, call.stride, call.padding, call.dilation, call.groups)


def run_transposed(call: StridedCall, grown: CallGrowth, weight: Tensor, energy: Tensor) -> Tensor:
    """Transposed convolution with the grown `weight`, cropped to the size it had."""
    _refuse_uneven(call.weight)
    weight.tap_energy = energy  # type: ignore[attr-defined]
    line = call.kind == "conv_transpose1d"
    x = call.x.unsqueeze(-2) if line else call.x
    out = F.conv_transpose2d(
        x,
        weight,
        call.bias,
        call.stride,
        call.padding,
        call.output_padding,
        call.groups,
        call.dilation,
    )
    (top, left), (bottom, right) = grown.front, grown.end
    out = out[..., top : out.shape[-2] - bottom, left : out.shape[-1] - right]
    return out.squeeze(-2) if line else out


def run_max_pool(call: StridedCall, grown: CallGrowth) -> Tensor:
    """The maximum over the grown window."""
    x = call.x
    if any(grown.ends) and call.dilation == (1, 1):
        x = F.pad(x, grown.ends, mode="replicate")
    elif any(grown.ends):
        x = F.pad(x, grown.ends, value=float("-inf"))
    return F.max_pool2d(x, grown.kernel, call.stride, call.padding, call.dilation, grown.ceil_mode)


def run_mean(call: StridedCall, grown: CallGrowth, fill: Fill) -> Tensor:
    """The mean over the grown window, as a convolution of each channel by itself."""
    rows, columns = (mean_taps(k, s, fill) for k, s in zip(call.kernel, call.stride, strict=True))
    taps = rows[:, None] * columns
    channels = call.x.shape[-3]
    weight = taps.to(call.x).expand(channels, 1, -1, -1)
    depthwise = replace(call, weight=weight, dilation=(1, 1), groups=channels)
    out = run_conv(depthwise, grown, weight, taps.square())
    if call.divisor is not None:
        return out * (call.kernel[0] * call.kernel[1] / call.divisor)
    if not any(grown.ends) and not call.ceil_mode and (call.include_pad or call.padding == (0, 0)):
        return out
    mass = _mass(call, grown, 0, rows)[:, None] * _mass(call, grown, 1, columns)
    return out / mass.to(out)


def _mass(call: StridedCall, grown: CallGrowth, axis: int, taps: Tensor) -> Tensor:
    """Return the share of the weight of each window (windows,) that falls on counted pixels."""
    size, pad, stride = call.size[axis], call.padding[axis], call.stride[axis]
    margin = pad if call.include_pad else 0
    count = output_size(size, call.kernel[axis], stride, pad, pad, ceil_mode=call.ceil_mode)
    first = torch.arange(count, device=taps.device) * stride - pad - grown.front[axis]
    place = first[:, None] + torch.arange(len(taps), device=taps.device)
    counted = (place >= -margin) & (place < size + margin)
    return (counted * taps).sum(1)


def fixed_energy(call: StridedCall, buffer: Tensor, fill: Fill) -> Tensor:
    """`tap_energy` of a fixed kernel (..., rows, columns) after padding: its own squares.

    A kernel without values (on `meta`, or all zero in a skeleton) counts as a mean of its size.
    """
    if buffer.is_meta or not buffer.any():
        flat = tap_energy(call.kernel, call.stride, fill, call.dilation)
        return flat / (call.kernel[0] * call.kernel[1])
    taps = buffer.detach().double().cpu().reshape(-1, 1, *call.kernel)
    grown = pad_weight(taps, call.stride, fill, dilation=call.dilation)
    return grown.square().mean((0, 1))


def grow_conv(
    call: StridedCall, fill: Fill, extra: tuple[Tensor | None, Tensor | None] = (None, None)
) -> Tensor:
    """The grown weight of `call`; `extra` are trained rows and columns in place of zeros."""
    assert call.weight is not None  # noqa: S101 - a convolution has one
    weight, (rows, columns) = as_plane(call.weight), extra
    if extra == (None, None):
        return pad_weight(weight, call.stride, fill, dilation=call.dilation)
    if columns is not None:
        weight = torch.cat((weight, columns.to(weight)), 3)
    return weight if rows is None else torch.cat((weight, rows.to(weight)), 2)
