"""How receptive fields pass sums over axes, norms, products and scans."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..remarks import CHOICES
from ..rule_table import Found, known_spans, span_rule, spans_of
from ..rules.normalisation import axes_of
from ..spans import Spans, nowhere, through, union
from ..uneven_weights import read_entries, turned
from .attention import product_of_readers, read_with_norm

if TYPE_CHECKING:
    from collections.abc import Sequence


@span_rule(
    *("mean", "sum", "amax", "amin", "logsumexp", "max", "min", "var", "std", "var_mean"),
    *("norm", "linalg_norm", "linalg_vector_norm", "vector_norm"),
)
def _reduce(out: Any, /, x: Tensor, *args: Any, **kwargs: Any) -> Found:
    """The union over the axes that are summed; `keepdim` shows in the shape of the result."""
    if args and isinstance(args[0], Tensor):
        return union([known_spans(x), known_spans(args[0])], out.shape)
    results = [out] if isinstance(out, Tensor) else list(out)
    axes = axes_of(x, _dim(args, kwargs))
    shape = [1 if d in axes else n for d, n in enumerate(x.shape)]
    found = known_spans(x).reduced(axes, shape)
    if results[0].ndim < x.ndim:
        kept = [d for d in range(x.ndim) if d not in axes]
        found = found.each(lambda end: end.reshape([end.shape[d] for d in kept]))
        found = replace(found, shape=tuple(results[0].shape))
    return found if isinstance(out, Tensor) else [found] * len(results)


def _dim(args: tuple[Any, ...], kwargs: Any) -> Any:
    """The argument `dim` of a sum; `norm` has its order before it."""
    if "dim" in kwargs:
        return kwargs["dim"]
    given = [a for a in args if not isinstance(a, bool) and a is not None]
    return given[-1] if given and not isinstance(given[-1], float | str) else None


@span_rule("layer_norm", "rms_norm")
def _layer_norm(out: Tensor, /, x: Tensor, shape: Sequence[int], *_: Any, **__: Any) -> Spans:
    return read_with_norm(out, x, range(x.ndim - len(shape), x.ndim))


@span_rule("normalize")
def _normalize(
    out: Tensor, /, x: Tensor, p: float = 2.0, dim: Any = 1, *_: Any, **__: Any
) -> Spans:
    del p
    return read_with_norm(out, x, axes_of(x, dim))


@span_rule("instance_norm")
def _instance_norm(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> Spans:
    return read_with_norm(out, x, range(2, x.ndim))


@span_rule("batch_norm", "native_batch_norm")
def _batch_norm(out: Tensor, /, x: Tensor, *args: Any, **kwargs: Any) -> Spans:
    """By statistics of its own map a batch norm reads all of it, by stored ones its entry.

    Parts of the map may be entries of the batch, which it takes its statistics over.
    """
    own = kwargs.get("training", args[4] if len(args) > 4 else False)
    mean = kwargs.get("running_mean", args[0] if args else None)
    if own or mean is None:
        return read_with_norm(out, x, [0, *range(2, x.ndim)])
    return replace(known_spans(x), shape=tuple(out.shape))


@span_rule("group_norm")
def _group_norm(out: Tensor, /, x: Tensor, *_: Any, **__: Any) -> Spans:
    return read_with_norm(out, x, range(1, x.ndim))


@span_rule("linear")
def _linear(out: Tensor, /, x: Tensor, weight: Tensor, bias: Any = None) -> Spans:
    del bias
    return _times(out, x, turned(weight) if weight.ndim > 1 else weight[:, None])


def _times(out: Tensor, x: Tensor, matrix: Tensor) -> Spans:
    """`x` times a matrix (in, out); entries of 0 read nothing in a fixed one."""
    spans = known_spans(x).aligned()
    last = x.ndim - 1
    read = read_entries(matrix)
    if read is None or matrix.ndim != 2:
        return spans.reduced([last], out.shape) if out.ndim == x.ndim else _flat(spans, last, out)
    reads = read.mT
    found = spans.each(lambda end: through(end, last, reads))
    if out.ndim < x.ndim:
        found = found.each(lambda end: end.squeeze(last))
        return replace(found, shape=tuple(out.shape))
    return spans.settled(replace(found, shape=tuple(out.shape)))


def _flat(spans: Spans, axis: int, out: Tensor) -> Spans:
    """A product with a vector, which drops the axis."""
    found = spans.reduced([axis], [*spans.shape[:axis], 1])
    return replace(found.each(lambda end: end.squeeze(axis)), shape=tuple(out.shape))


@span_rule("matmul", "bmm", "mm", "imatmul", "mv")
def _matmul(out: Tensor, /, a: Tensor, b: Tensor) -> Spans:
    if spans_of(a) is not None and spans_of(b) is not None:
        return product_of_readers(out, a, b)
    if spans_of(a) is not None:
        return _times(out, a, b if b.ndim > 1 else b[:, None])
    spans = known_spans(b)
    if b.ndim == 1:
        return _times(out, b, turned(a))
    ends = spans.moved(lambda end: end.mT)
    b = b.detach().mT
    b.spans = ends  # type: ignore[attr-defined]
    if a.ndim == 1:
        return _times(out, b, a[:, None])
    found = _times(out.detach().mT, b, turned(a))
    return replace(found.each(lambda end: end.mT), shape=tuple(out.shape))


@span_rule("rmatmul")
def _rmatmul(out: Tensor, /, a: Tensor, b: Tensor) -> Spans:
    return _matmul(out, b, a)


@span_rule("glu")
def _glu(out: Tensor, /, x: Tensor, dim: int = -1) -> Spans:
    first, second = known_spans(x).moved(lambda end: list(end.chunk(2, dim)))
    return union([first, second], out.shape)


@span_rule(*CHOICES)
def _chosen(out: Any, /, *_: Any, **__: Any) -> Found:
    """Nothing reads what is chosen; see `trace`."""
    if isinstance(out, Tensor):
        return nowhere(out.shape)
    return [nowhere(t.shape) for t in out]


@span_rule("cumsum")
def _cumsum(out: Tensor, /, x: Tensor, dim: int, **_: Any) -> Spans:
    """Each entry reads all before it."""
    spans = known_spans(x)
    del out
    return spans.moved(lambda end: torch.cummin(end, dim).values)  # type: ignore[no-any-return]
