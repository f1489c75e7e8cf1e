"""Functions that change a tensor in place, where an energy rule returns a new one.

The tensor then gets a successor, which takes its place in every later call. Nothing is shared
between energies: reading a tensor of which a view was changed, or an earlier view of a tensor that
was changed, is refused.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .chains import chain_of, forget_chain
from .compact import VIEWS_MADE, annotate, channel_runs, equal_axes, expand
from .places import common_places, overlap
from .rule_table import is_energy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Call = Callable[[Any, tuple[Any, ...], dict[str, Any]], Any]

_SUCCESSOR, _BASE, _MADE_BY, _STALE = "successor", "view_of", "view_made_by", "stale"

_OPERATORS = frozenset(
    f"__{name}__" for name in ("iadd", "isub", "imul", "itruediv", "idiv", "ipow", "imatmul")
)

_VIEWS = frozenset(
    """
    getitem view reshape flatten unflatten permute transpose swapaxes swapdims movedim moveaxis
    unsqueeze squeeze select narrow chunk split split_with_sizes tensor_split unbind expand
    expand_as view_as reshape_as t get diagonal
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that may return a view of their first argument."""


_RESHAPING = frozenset(
    {"view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze", "view_as", "reshape_as"}
)
"""Views whose entries follow one another in memory if those of the tensor do."""

_PARTS = frozenset(
    "getitem select narrow chunk split split_with_sizes tensor_split unbind".split()  # noqa: SIM905
)

_CASTS = frozenset({"to", "type", "type_as", "float", "cpu", "cuda"})

_SINGLE = frozenset(
    {torch.float32, torch.float64, "torch.FloatTensor", "torch.cuda.FloatTensor", "cpu", "cuda"}
)
"""Types and devices that a network's tensors have; the dtype of an energy is that of any."""

_DROPOUTS = frozenset(
    """
    dropout dropout1d dropout2d dropout3d alpha_dropout feature_dropout feature_alpha_dropout
    """.split()  # noqa: SIM905 - easier to read than a column of names
)


def returns_its_argument(name: str, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether torch returns the tensor itself, so that it also changes by what changes the result.

    Networks compute in single precision, in which casts to others copy.
    """
    given = (*args[1:], *kwargs.values())
    if name == "contiguous":
        return not given and _made_by(args[0]) <= _RESHAPING
    if name in _CASTS:
        kinds = [v for v in given if isinstance(v, torch.dtype | str)]
        plain = all(v in _SINGLE for v in kinds)
        return plain and not kwargs.get("copy") and "memory_format" not in kwargs
    if name in _DROPOUTS:
        training = kwargs.get("training", kwargs.get("train", args[2] if len(args) > 2 else True))
        return training is False
    return name in {"pos", "positive", "resolve_conj", "resolve_neg", "requires_grad"}


def _may_have_gaps(x: Tensor) -> bool:
    made_by = _made_by(x)
    return not made_by.isdisjoint(_PARTS) and made_by <= _RESHAPING | _PARTS


def _made_by(x: Tensor) -> set[str]:
    """The functions that made `x` a view of another tensor."""
    found = set()
    while hasattr(x, _BASE):
        found.add(getattr(x, _MADE_BY))
        x = getattr(x, _BASE)
    return found


def works_in_place(func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Whether this call changes its first argument."""
    name = func.__name__
    if name in _OPERATORS or (name.endswith("_") and not name.endswith("__")):
        return True
    if "inplace" in kwargs:
        return bool(kwargs["inplace"])
    place = _place_of_inplace(func)
    return place is not None and len(args) > place and bool(args[place])


@cache
def _place_of_inplace(func: Callable[..., Any]) -> int | None:
    """The position of a parameter called `inplace`, if there is one."""
    try:
        names = list(inspect.signature(func).parameters)
    except (TypeError, ValueError):
        return None  # a builtin without a signature
    return names.index("inplace") if "inplace" in names else None


def latest(value: Any, tensors: Sequence[Tensor]) -> Any:
    """`value`, which contains `tensors`, with their successors in place of those changed."""
    if not any(hasattr(t, _SUCCESSOR) for t in tensors):
        return value
    return tree_map(_last, value)


def _last(x: Any) -> Any:
    while hasattr(x, _SUCCESSOR):
        x = getattr(x, _SUCCESSOR)
    return x


def replace_in_place(x: Tensor, out: Tensor) -> None:
    """Let `out` be what `x` is from now on."""
    bases, own = list(_bases(x)), _views_made(x)
    for base in bases:
        setattr(base, _STALE, True)
        others = [t for t in _views_made(base) if not any(t is u for u in (x, *bases, *own))]
        own += [t for t in others if _meet(x, t)]
    for view in own:
        if view is not out:
            setattr(view, _STALE, True)
    if out is not x:
        setattr(x, _SUCCESSOR, out)


def forget_change(x: Tensor) -> None:
    """Let go of what took the place of `x`, and of how it was computed.

    Autograd keeps `x` for what was computed from it, out of sight of Python's collector: two
    tensors that keep each other would never be freed.
    """
    vars(x).pop(_SUCCESSOR, None)
    forget_chain(x)


def _meet(a: Tensor, b: Tensor) -> bool:
    """Whether two views of one tensor are known to have an entry of it in common."""
    pairs = common_places(chain_of(a).roots, chain_of(b).roots)
    return any(len(m) == len(n) > 0 and overlap(m, n) for m, n in pairs)


def writable(x: Tensor, value: Any, most: int) -> Tensor:
    """`x`, or what takes its place: its entries, at most `most`, each stored by itself.

    A constant of which there are no views gets the precision of the energy `value`.
    """
    if is_energy(value) and not is_energy(x) and x.is_floating_point():
        alone = whole_and_place(x)[0] is x and not any(map(vars(x).get, (_BASE, VIEWS_MADE)))
        if alone and x.dtype != value.dtype:
            full = x.to(value.dtype)
            replace_in_place(x, full)
            return full
    if not is_energy(x) or not (equal_axes(x) or channel_runs(x)) or x.numel() > most:
        return x
    full = annotate(expand(x).clone(memory_format=torch.contiguous_format), x)
    replace_in_place(x, full)
    return full


def replace_whole(call: Call, x: Tensor, out: Tensor, *, operator: bool) -> None:
    """Let `out` be what `x` is from now on, also in the tensor of which `x` is a part.

    Behind an `operator` such as += Python itself writes the part. `call` is that of the trace.
    """
    whole, index = whole_and_place(x)
    replace_in_place(x, out)
    if whole is not x and (is_energy(out) or is_energy(whole)) and not operator:
        call(Tensor.__setitem__, (whole, index, out), {})


def copied(call: Call, x: Tensor, value: Tensor) -> Tensor:
    """`x`, into which `value` is copied, as into all tensors that it is a part of."""
    base, index = whole_and_place(x)
    call(Tensor.__setitem__, (base, index, value), {})
    if whole_and_place(base)[0] is not base:
        copied(call, base, base)
    found: Tensor = call(Tensor.__getitem__, (base, index), {})
    return found


_PART = "part_of"
"""Of a part of a constant: the constant, and the index of the part."""


def mark_part(part: Any, whole: Tensor, index: Any) -> None:
    """Remember that `part` is `whole[index]`, into which values may be copied."""
    if isinstance(part, Tensor):
        setattr(part, _PART, (whole, index))


def whole_and_place(x: Tensor) -> tuple[Tensor, Any]:
    """The tensor of which `x` is a part, and the index of the part; else all of `x` itself."""
    found: tuple[Tensor, Any] = getattr(x, _PART, (x, ...))
    return found


def mark_view(name: str, x: Any, results: Sequence[Tensor]) -> None:
    """Remember that `results` may be views of `x`, if the function `name` returns views.

    A part of a tensor is copied by `contiguous` if it has gaps, which is not known here.
    """
    if not isinstance(x, Tensor):
        return
    if name in _VIEWS or (name == "contiguous" and _may_have_gaps(x)):
        for t in results:
            if t is not x:
                setattr(t, _BASE, x)
                setattr(t, _MADE_BY, name)
                vars(x).setdefault(VIEWS_MADE, []).append(ref(t))


def _views_made(x: Tensor) -> list[Tensor]:
    """The views of `x`, of these, and so on, that are still in use."""
    found = []
    waiting = [*getattr(x, VIEWS_MADE, ())]
    while waiting:
        view = waiting.pop()()
        if view is not None:
            found.append(view)
            waiting += getattr(view, VIEWS_MADE, ())
    return found


def is_stale(name: str, x: Tensor, *, written: bool) -> bool:
    """Whether a change that was made to a view of `x` is not in `x` yet; writing to `x` adds it.

    `x[place] += y` reads a view, changes it, and writes it to the same place.
    """
    if name == "setitem" and written:
        vars(x).pop(_STALE, None)
        return False
    return hasattr(x, _STALE)


def _bases(x: Tensor) -> Iterator[Tensor]:
    while hasattr(x, _BASE):
        x = getattr(x, _BASE)
        yield x
