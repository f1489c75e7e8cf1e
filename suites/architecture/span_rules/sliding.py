"""How receptive fields pass convolutions and pools."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ....adapters.torch_calls import Convolution, MaxPool, MeanPool, NormPool
from ..rule_table import history_of, known_spans, span_rule, spans_of
from ..spans import Ends, Spans, narrow, slide, through, union
from ..uneven_weights import read_entries
from ..windows import adaptive_windows, conv_windows, pool_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..windows import LayerWindow


@span_rule("conv1d", "conv2d", "conv3d", reads=Convolution)
def _convolution(out: Tensor, call: Convolution) -> Spans:
    windows = conv_windows(call)
    spans = known_spans(call.input).aligned()
    spans = spans_of_groups(spans, call.input.ndim - len(windows) - 1, call.groups)
    found = _slid(out, call.input, spans, windows, read_entries(call.weight))
    filters = spans_of(call.weight)
    return (
        found if filters is None else union([found, _of_filters(filters, len(windows))], out.shape)
    )


def _of_filters(spans: Spans, axes: int) -> Spans:
    """Spans of each output (out, ...) through filters that depend on the image."""
    taps = range(1, len(spans.shape))
    shape = (spans.shape[0], *[1] * axes)
    return spans.aligned().each(lambda end: end.amin(tuple(taps)).view(-1, *[1] * axes), shape)


def spans_of_groups(spans: Spans, axis: int, groups: int) -> Spans:
    """Union over the channels of each group, along `axis`; every output reads one group."""

    def each(end: Tensor) -> Tensor:
        if end.shape[axis] == 1:
            return end
        per_group = end.unflatten(axis, (groups, -1)).amin(axis + 1)
        return narrow(per_group)

    return spans.each(each)


def _slid(
    out: Tensor,
    x: Tensor,
    spans: Spans,
    windows: Sequence[LayerWindow],
    read: Tensor | None = None,
) -> Spans:
    """Spans behind windows that slide over the last axes of `x`.

    `read` (out, in, *taps) of bool are the taps that are read, if some are not.
    """
    history = history_of(x)
    strides = history.stride() if history else (1.0, 1.0)
    first = x.ndim - len(windows)
    for axis, w in enumerate(windows, start=first):
        taps = [t * w.dilation for t in _taps_read(w.kernel, read, axis - first)]
        count = out.shape[axis]
        after = (count - 1) * w.stride + w.extent - w.before - x.shape[axis]
        spans = spans.extended(axis, w.before, after)
        shape = [*spans.shape[:axis], count, *spans.shape[axis + 1 :]]
        sliding = partial(slide, axis=axis, taps=taps, stride=w.stride, count=count)
        spans = spans.each(sliding, shape)
        if x.shape[axis] == 1 and x.ndim == 4 and len(x) == 1:  # only the history has the step
            step = strides[axis - first]
            shifts = (taps[0] - w.before) * step, (w.before - taps[-1]) * step
            spans = spans.mapped(partial(_shifted, axis=axis - first, shifts=shifts))
    channels = first - 1
    if channels >= 0:
        spans = spans.each(lambda end: spread(end, channels, out.shape[channels]))
    return replace(spans, shape=tuple(out.shape))


def _shifted(ends: Ends, axis: int, shifts: tuple[float, float]) -> Ends:
    """Ends of which the first and the (negative) last along `axis` are moved by `shifts`."""
    moved = dict(zip((axis, axis + 2), shifts, strict=True))
    return tuple(end + moved[i] if i in moved else end for i, end in enumerate(ends))


def _taps_read(kernel: int, read: Tensor | None, axis: int) -> list[int]:
    """The taps along an axis of the window that some filter reads; all if none does."""
    if read is None or not bool(read.any()):
        return list(range(kernel))
    others = [d for d in range(read.ndim) if d != axis + 2]
    return [t for t, used in enumerate(read.sum(others).tolist()) if used]


def spread(end: Tensor, axis: int, channels: int) -> Tensor:
    """Give each of `channels` outputs the ends of its group, along `axis`."""
    groups = end.shape[axis]
    same = groups in {1, channels}
    return end if same else end.repeat_interleave(channels // groups, axis)


@span_rule("max_pool2d", "max_pool2d_with_indices", reads=MaxPool)
@span_rule("avg_pool2d", "dilated_avg_pool2d", reads=MeanPool)
@span_rule("lp_pool2d", "dilated_lp_pool2d", reads=NormPool)
def _pool(out: Tensor, call: MaxPool | MeanPool | NormPool) -> Spans:
    return _slid(out, call.input, known_spans(call.input).aligned(), pool_windows(call))


@span_rule("avg_pool1d", "avg_pool3d", reads=MeanPool)
@span_rule("max_pool1d", "max_pool1d_with_indices", reads=MaxPool)
@span_rule("max_pool3d", "max_pool3d_with_indices", reads=MaxPool)
def _pool_by_axis(out: Tensor, call: MeanPool | MaxPool) -> Spans:
    axes = call.input.ndim - 2
    return _slid(out, call.input, known_spans(call.input).aligned(), pool_windows(call, axes))


def _adaptive(axes: int, out: Tensor, /, input: Tensor, *_: Any, **__: Any) -> Spans:  # noqa: A002
    """Spans of adaptive windows over the last `axes`."""
    spans = known_spans(input).aligned()
    found = spans
    for axis in range(input.ndim - axes, input.ndim):
        have, count = input.shape[axis], out.shape[axis]
        starts, ends = (torch.tensor(t)[:, None] for t in adaptive_windows(have, count))
        place = torch.arange(have)
        reads = (place >= starts) & (place < ends)
        found = found.each(partial(through, axis=axis, reads=reads))
    return spans.settled(replace(found, shape=tuple(out.shape)))


for _axes in (1, 2, 3):
    span_rule(f"adaptive_avg_pool{_axes}d", f"adaptive_max_pool{_axes}d")(partial(_adaptive, _axes))
