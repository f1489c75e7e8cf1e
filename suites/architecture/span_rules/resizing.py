"""How receptive fields pass resampling, transposed convolutions, and columns of windows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.torch_calls import Interpolation, TransposedConvolution, each_axis, pair
from ..rule_table import IMAGE_TO_COLUMNS, known_spans, span_rule
from ..rules.resampling import interpolation_matrices, sampling_matrix
from ..spans import EMPTY, Spans, through
from .sliding import spans_of_groups, spread


@span_rule("interpolate", "upsample", reads=Interpolation)
def _interpolate(out: Tensor, call: Interpolation) -> Spans:
    spans = found = known_spans(call.input).aligned()
    for axis, matrix in enumerate(interpolation_matrices(call), start=2):
        found = found.each(partial(through, axis=axis, reads=matrix != 0))
    return spans.settled(replace(found, shape=tuple(out.shape)))


@span_rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", reads=TransposedConvolution)
def _conv_transpose(out: Tensor, call: TransposedConvolution) -> Spans:
    """Unit i of the input is spread over i * stride - padding + dilation * tap."""
    x, axes = call.input, call.weight.ndim - 2
    channels = x.ndim - axes - 1
    spans = spans_of_groups(known_spans(x).aligned(), channels, call.groups)
    given = (each_axis(n, axes) for n in (call.stride, call.padding, call.dilation))
    for axis, (s, p, d) in enumerate(zip(*given, strict=True), start=x.ndim - axes):
        place = torch.arange(out.shape[axis])[:, None] + p - torch.arange(x.shape[axis]) * s
        kernel = call.weight.shape[axis - x.ndim]
        reads = (place >= 0) & (place <= d * (kernel - 1)) & (place % d == 0)
        spans = spans.each(partial(through, axis=axis, reads=reads))
    return replace(
        spans.each(lambda end: spread(end, channels, out.shape[channels])), shape=tuple(out.shape)
    )


@span_rule(IMAGE_TO_COLUMNS)
def _windows_as_columns(
    out: Tensor,
    input: Tensor,  # noqa: A002 - torch's name
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Spans:
    """The columns of `F.unfold` hold copies of the padded entries."""
    rows, columns = pair(padding)
    spans = known_spans(input).extended(2, rows, rows).extended(3, columns, columns)
    del out
    return spans.moved(lambda end: F.unfold(end, kernel_size, dilation, 0, stride))  # type: ignore[no-any-return]


@span_rule("fold")
def _fold(
    out: Tensor,
    /,
    input: Tensor,  # noqa: A002 - torch's name
    output_size: Any,
    kernel_size: Any,
    dilation: Any = 1,
    padding: Any = 0,
    stride: Any = 1,
) -> Spans:
    """The union of the columns' entries that `F.fold` adds up in each place."""
    (height, width), (rows, columns) = pair(output_size), pair(kernel_size)
    (pad_r, pad_c), (gap_r, gap_c) = pair(padding), pair(dilation)
    step_r, step_c = pair(stride)
    count_r = (height + 2 * pad_r - gap_r * (rows - 1) - 1) // step_r + 1
    count_c = (width + 2 * pad_c - gap_c * (columns - 1) - 1) // step_c + 1
    split = (*input.shape[:1], -1, rows, columns, count_r, count_c)

    def folded(end: Tensor) -> Tensor:
        parts = end.reshape(split)
        found = torch.full((*parts.shape[:2], height + 2 * pad_r, width + 2 * pad_c), EMPTY)
        found = found.to(end)
        for r in range(rows):
            for c in range(columns):
                place = (
                    ...,
                    slice(r * gap_r, r * gap_r + (count_r - 1) * step_r + 1, step_r),
                    slice(c * gap_c, c * gap_c + (count_c - 1) * step_c + 1, step_c),
                )
                found[place] = torch.minimum(found[place], parts[:, :, r, c])
        return found[..., pad_r : pad_r + height, pad_c : pad_c + width]

    del out
    return known_spans(input).moved(folded)  # type: ignore[no-any-return]


@span_rule("grid_sample")
def _grid_sample(out: Tensor, /, input: Tensor, *args: Any, **kwargs: Any) -> Spans:  # noqa: A002
    reads = sampling_matrix(input, *args, **kwargs) != 0
    flat = known_spans(input).moved(lambda end: end[:1].flatten(2))

    def sampled(end: Tensor) -> Tensor:
        end = through(end, 2, reads)
        return end.unflatten(2, out.shape[2:]) if end.shape[2] > 1 else end.unsqueeze(3)

    return flat.each(sampled, out.shape)  # type: ignore[no-any-return]
