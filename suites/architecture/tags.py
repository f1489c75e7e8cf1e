"""What a trace notes on the results of each function: history, receptive fields, constant share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor
from torch.utils._pytree import tree_map

from .chosen_lines import history_of_lines, history_of_written, map_axes
from .compact import alias
from .rule_table import (
    LIKE_ANOTHER,
    SPAN_RULES,
    constant_share,
    history_of,
    is_energy,
    joint_constant_share,
    spans_after,
    spans_of,
    with_constant_share,
    with_history,
)
from .windows import History, Pair, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

CREATIONS = frozenset(
    """
    zeros_like ones_like empty_like full_like rand_like randn_like
    new_zeros new_ones new_full new_empty new_tensor
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that make constants of the shape or type of a tensor."""


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts."""
    # torch's own search (pytree) takes longer than a rule
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return []
    return [t for item in value for t in tensors_in(item)]


def tag(
    name: str,
    func: Any,
    out: Any,
    args: tuple[Any, ...],
    kwargs: Any,
    *,
    paths: bool,
    variants: int,
) -> Any:
    """Note on the results `out` of a call what follows from its arguments; return them.

    Receptive fields are noted where paths are counted, constant shares where energies are.
    """
    tensors = tensors_in(args[:1] if name in LIKE_ANOTHER else (args, kwargs))
    results = [t for t in tensors_in(out) if not t.is_meta]
    for t in results:
        if is_energy(t) and not paths and constant_share(t) is None:
            with_constant_share(t, joint_constant_share(tensors, variants))
    known = _histories(name, out, tensors)
    if not known or name in CREATIONS:
        return out
    if name == "setitem":
        _tag_written(args, joined(known), paths=paths, variants=variants)
    if paths and (len(tensors) > 1 or name in SPAN_RULES):
        out = _apart(out)
    results = [t for t in tensors_in(out) if not t.is_meta]
    for t in results:
        if history_of(t) is None:
            with_history(t, history_of_lines(name, out, args, kwargs) or joined(known))
    if paths and results:
        _set_spans(name, func, results, args, kwargs)
    return out


ATTENTION = frozenset({"matmul", "bmm", "einsum", "scaled_dot_product_attention"})
"""Products whose result has the grid of one argument, such as that of the queries."""


def _histories(name: str, out: Any, tensors: Sequence[Tensor]) -> list[History]:
    """Histories of the arguments: of those with a local path where there are any."""
    known = [t for t in tensors if history_of(t) is not None]
    if name in ATTENTION and isinstance(out, Tensor):
        found = [h for t in known if (h := history_of(t)) is not None]
        return sorted(found, key=lambda h: not runs_over(h.grid, out.shape))[:1]
    local = [t for t in known if (spans := spans_of(t)) is not None and spans.local()]
    maps = _of_whole_maps(out, local or known)
    return [h for t in maps if (h := history_of(t)) is not None]


def _of_whole_maps(out: Any, tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """`tensors` without those of a row or column of the map that others hold all of."""
    whole = [t for t in tensors if isinstance(out, Tensor) and t.shape == out.shape]
    axes = {axis for t in whole for axis in map_axes(t) or ()}

    def is_line(t: Tensor) -> bool:
        return t.ndim == out.ndim and any(t.shape[d] == 1 < out.shape[d] for d in axes)

    return [t for t in tensors if not axes or not is_line(t)]


MAX_PREFIX_TOKENS = 5
"""Most tokens without a position (class, registers) that may precede those of a grid."""


def runs_over(grid: Pair, shape: Sequence[int]) -> bool:
    """Whether one of the last two axes of `shape` may run over the units of `grid`."""
    return any(0 <= n - grid[0] * grid[1] <= MAX_PREFIX_TOKENS for n in shape[-2:])


def _tag_written(
    args: tuple[Any, ...], history: History | None, *, paths: bool, variants: int
) -> None:
    """Tag a tensor that was written to in place."""
    x, index, value = args
    if history_of(x) is None:
        with_history(x, history_of_written(x, index, value) or history)
    if not paths and constant_share(x) is None:
        with_constant_share(x, joint_constant_share([value], variants))
    if paths:
        SPAN_RULES["setitem"](None, x, index, value)


def _set_spans(
    name: str, func: Any, results: list[Tensor], args: tuple[Any, ...], kwargs: Any
) -> None:
    """Set the receptive fields of the results that have none yet."""
    if all(spans_of(t) is not None for t in results):
        return  # the function returned its argument
    found = spans_after(name, func, results[0] if len(results) == 1 else results, args, kwargs)
    for t, spans in zip(results, found if isinstance(found, list) else [found], strict=False):
        t.spans = spans  # type: ignore[attr-defined]


def _apart(out: Any) -> Any:
    """`out` with other objects in place of arguments and their copies, without their spans."""

    def copied(t: Any) -> Any:
        if not isinstance(t, Tensor) or spans_of(t) is None:
            return t
        history, share = history_of(t), constant_share(t)
        return with_history(with_constant_share(alias(t), share), history)

    return copied(out) if isinstance(out, Tensor) else tree_map(copied, out)
