"""How receptive fields pass convolutions and pools."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..rule_table import history_of
from ..rules.sliding import conv_windows, pool_windows
from ..span_table import known_spans, span_rule
from ..spans import Spans, narrow, slide, through
from ..windows import LayerWindow

if TYPE_CHECKING:
    from collections.abc import Sequence


@span_rule("conv1d", "conv2d", "conv3d")
def _convolution(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    weight: Tensor,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Spans:
    del bias
    windows = _conv_windows(weight, stride, padding, dilation)
    spans = grouped(known_spans(input).aligned(), input.ndim - weight.ndim + 1, groups)
    return _slid(out, input, spans, windows)


def _conv_windows(weight: Tensor, stride: Any, padding: Any, dilation: Any) -> list[LayerWindow]:
    """The windows of a convolution along any number of axes."""
    axes = weight.ndim - 2

    def each(value: Any) -> list[Any]:
        return list(value) if isinstance(value, tuple | list) else [value] * axes

    options = zip(each(stride), each(padding), each(dilation), strict=True)
    return [
        conv_windows(
            torch.empty(1, 1, weight.shape[axis], 1, device="meta"),
            (s, 1),
            p if isinstance(p, str) else (p, 0),
            (d, 1),
        )[0]
        for axis, (s, p, d) in enumerate(options, start=2)
    ]


def grouped(spans: Spans, axis: int, groups: int) -> Spans:
    """Union over the channels of each group, along `axis`; every output reads one group."""

    def each(end: Tensor) -> Tensor:
        if end.shape[axis] == 1:
            return end
        per_group = end.unflatten(axis, (groups, -1)).amin(axis + 1)
        return narrow(per_group)

    return spans.each(each)


def _slid(out: Tensor, x: Tensor, spans: Spans, windows: Sequence[LayerWindow]) -> Spans:
    """Spans behind windows that slide over the last axes of `x`."""
    history = history_of(x)
    strides = history.stride() if history else (1.0, 1.0)
    first = x.ndim - len(windows)
    for axis, w in enumerate(windows, start=first):
        taps = [t * w.dilation for t in range(w.kernel)]
        count = out.shape[axis]
        after = (count - 1) * w.stride + taps[-1] + 1 - w.before - x.shape[axis]
        spans = spans.extended(axis, w.before, after)
        ends = [slide(end, axis, taps=taps, stride=w.stride, count=count) for end in spans.ends]
        if x.shape[axis] == 1 and x.ndim == 4 and len(x) == 1:  # only the history has the step
            step = strides[axis - first]
            ends[axis - first] = ends[axis - first] + (taps[0] - w.before) * step
            ends[axis - first + 2] = ends[axis - first + 2] - (taps[-1] - w.before) * step
        shape = [*spans.shape[:axis], count, *spans.shape[axis + 1 :]]
        spans = Spans(tuple(shape), tuple(ends), spans.everywhere)
    channels = first - 1
    if channels >= 0:
        spans = spans.each(lambda end: spread(end, channels, out.shape[channels]))
    return replace(spans, shape=tuple(out.shape))


def spread(end: Tensor, axis: int, channels: int) -> Tensor:
    """Give each of `channels` outputs the ends of its group, along `axis`."""
    groups = end.shape[axis]
    same = groups in {1, channels}
    return end if same else end.repeat_interleave(channels // groups, axis)


@span_rule("max_pool2d", "max_pool2d_with_indices")
def _max_pool(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    *_: Any,
    **__: Any,
) -> Spans:
    windows = pool_windows(kernel_size, stride, padding, dilation, ceil_mode=False)
    return _slid(out, input, known_spans(input).aligned(), windows)


@span_rule("avg_pool2d", "dilated_avg_pool2d")
def _avg_pool(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *_: Any,
    dilation: Any = 1,
    **__: Any,
) -> Spans:
    return _max_pool(out, input, kernel_size, stride, padding, dilation)


@span_rule("avg_pool1d")
def _avg_pool1d(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    *_: Any,
    **__: Any,
) -> Spans:
    one = [v[0] if isinstance(v, tuple | list) else v for v in (kernel_size, stride, padding)]
    size, step, before = one
    window = LayerWindow(kernel=size, stride=step or size, before=before)
    return _slid(out, input, known_spans(input).aligned(), [window])


@span_rule("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive(out: Tensor, /, input: Tensor, *_: Any, **__: Any) -> Spans:  # noqa: A002
    spans = known_spans(input).aligned()
    found = spans
    for axis in (input.ndim - 2, input.ndim - 1):
        have, count = input.shape[axis], out.shape[axis]
        i, place = torch.arange(count)[:, None], torch.arange(have)
        reads = (place >= i * have // count) & (place < -(-(i + 1) * have // count))
        found = found.each(partial(through, axis=axis, reads=reads))
    return spans.settled(replace(found, shape=tuple(out.shape)))
