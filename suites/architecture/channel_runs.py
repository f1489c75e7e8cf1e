"""Energy rules for channels that are equal in runs, as behind a concatenation of layers.

A function that works channel by channel is applied to one channel of each run, a convolution to the
mean over all channels, and slicing keeps the runs inside the slice. Any other function gets all
channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .compact import ChannelRuns, annotate, channel_runs, compress, equal_axes, expand, widen
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Call = Callable[..., Any]
    Arguments = tuple[tuple[Any, ...], dict[str, Any]]

JOINING = frozenset({"cat", "concat", "concatenate"})

SPLITTING = {"split": torch.split, "split_with_sizes": torch.split, "chunk": torch.chunk}

CHANNEL_BY_CHANNEL = frozenset(
    """
    relu relu6 silu gelu hardswish leaky_relu mish elu selu celu prelu hardtanh clamp dropout
    batch_norm avg_pool2d dilated_avg_pool2d max_pool2d add iadd sub isub mul imul mean pad
    contiguous
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions of maps that treat all channels in the same way and do not mix them."""


def apply_to_runs(name: str, call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Compute `call(*args, **kwargs)`, the function `name`, if an argument represents runs."""
    if name in JOINING:
        tensors, dim = args[0], kwargs.get("dim", args[1] if len(args) > 1 else 0)
        found = concatenate_runs(tensors, dim)
        if found is not None:
            return found
    elif name == "getitem":
        cut = _cut(*args)
        if cut is not None:
            return cut
    elif name in SPLITTING:
        pieces = _pieces(SPLITTING[name], args, kwargs)
        if pieces is not None:
            return pieces
    elif name == "conv2d":
        args, kwargs = _with_mean(args, kwargs)
    elif name in CHANNEL_BY_CHANNEL and _is_channelwise(name, args, kwargs):
        ready = _once_each(args, kwargs)
        if ready is not None:
            (args, kwargs), counts = ready
            out = call(*args, **kwargs)
            return annotate(ChannelRuns(out, counts).tensor(), out)
    return call(*tree_map(expand, args), **tree_map(expand, kwargs))


def concatenate_runs(tensors: Sequence[Tensor], axis: int) -> Tensor | None:
    """Concatenate maps (variants, channels, height, width) along the channels, in runs.

    None if that would not at least halve what is stored.
    """
    if not all(is_energy(t) and t.ndim == 4 for t in tensors) or axis not in (1, -3):
        return None
    parts = [_runs(t) for t in tensors]
    counts = tuple(n for part in parts for n in part.counts)
    if 2 * len(counts) > sum(counts):
        return None
    return ChannelRuns(torch.cat([part.each for part in parts], 1), counts).tensor()


def _runs(x: Tensor) -> ChannelRuns:
    """Any map as runs: a single run if all channels are equal, else one run per channel."""
    runs = channel_runs(x)
    if runs is not None:
        return runs
    small = compress(x, [1])
    return ChannelRuns(small, (x.shape[1],) if small.shape[1] == 1 else (1,) * x.shape[1])


def _cut(x: Tensor, index: Any) -> Tensor | None:
    """The slice `x[:, start:stop]`; None for any other index."""
    plain = isinstance(index, tuple) and all(isinstance(i, slice) for i in index)
    if channel_runs(x) is None or not plain or not 2 <= len(index) <= 4:
        return None
    start, stop, step = index[1].indices(x.shape[1])
    if step != 1 or any(i != slice(None) for n, i in enumerate(index) if n != 1) or stop <= start:
        return None
    return _between(x, start, stop)


def _pieces(split: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Tensor] | None:
    """The parts of a split along the channels; None for a split along another axis."""
    dim = kwargs.get("dim", args[2] if len(args) > 2 else 0)
    x = args[0] if args else None
    if not isinstance(x, Tensor) or channel_runs(x) is None or dim not in (1, -3):
        return None
    pieces, start = [], 0
    for part in split(x.detach(), *args[1:], **kwargs):
        pieces.append(_between(x, start, start + part.shape[1]))
        start += part.shape[1]
    return pieces


def _between(x: Tensor, start: int, stop: int) -> Tensor:
    """Channels `start` to `stop` (exclusive)."""
    runs = channel_runs(x)
    assert runs is not None  # noqa: S101 - all callers have checked it
    kept, end = {}, 0
    for place, count in enumerate(runs.counts):
        begin, end = end, end + count
        left = min(end, stop) - max(begin, start)
        if left > 0:
            kept[place] = left
    each = runs.each[:, min(kept) : max(kept) + 1]
    if len(kept) > 1:
        return ChannelRuns(each, tuple(kept.values())).tensor()
    return widen(each, (x.shape[0], stop - start, *x.shape[2:]))


def _with_mean(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """The arguments of a convolution over all channels, with its input replaced by their mean."""
    groups = kwargs.get("groups", args[6] if len(args) > 6 else 1)
    runs = channel_runs(args[0])
    if runs is None or groups != 1:
        return args, kwargs
    mean = annotate(widen(runs.mean(), args[0].shape), args[0])
    return (mean, *args[1:]), kwargs


def _is_channelwise(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether the function, with these arguments, works channel by channel."""
    if name == "pad":
        return len(kwargs["pad"] if "pad" in kwargs else args[1]) <= 4
    if name == "mean":
        dim = kwargs.get("dim", args[1] if len(args) > 1 else None)
        keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
        return bool(keep) and isinstance(dim, tuple | list) and {d % 4 for d in dim} <= {2, 3}
    return True


def _once_each(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Arguments, tuple[int, ...]] | None:
    """The arguments with one channel per run, and the lengths; None if the maps' runs differ."""
    maps = [t for t in (*args, *kwargs.values()) if isinstance(t, Tensor) and t.ndim == 4]
    counts = {runs.counts for t in maps if (runs := channel_runs(t)) is not None}
    if len(counts) != 1:
        return None
    if any(channel_runs(t) is None and t.shape[1] > 1 and 1 not in equal_axes(t) for t in maps):
        return None
    ready = tree_map(_small, (args, kwargs))
    return ready, counts.pop()


def _small(x: Any) -> Any:
    if not isinstance(x, Tensor) or x.ndim != 4:
        return x
    runs = channel_runs(x)
    small = compress(x, [1]) if runs is None else runs.each
    return x if small is x else annotate(small.view_as(small), x)
