"""What is carried out in place of a call of torch, and what is noted on results for that.

Maxima of maxima are one maximum, a unit times a gate of itself is an activation, a bound on both
sides of a line is a gate, a rectifier of what is not negative passes all, and some functions are
written out by others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from .broadcasts import written_with_copies
from .constants import VECTOR_PRODUCTS, learned_vector
from .from_image import written_apart
from .gated_units import as_activation, as_gate, mark_gate
from .maxima import MAXIMA, counted_together, mark_largest
from .mixtures import EXPONENTIALS, PRODUCTS_OF_UNITS, QUOTIENTS
from .nonnegative import (
    activates_again,
    is_not_negative,
    is_partly_not_negative,
    mark_sign,
    prefers_one,
    rectifies,
)
from .offsets import mark_offset, multiplies_exponentials, multiplies_skewed
from .rule_table import is_energy
from .stored_factors import as_stored
from .written_out import WRITTEN_OUT, attention_of_groups
from .written_softmax import as_softmax, mark_softmax

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True)
class ReplacedCall:
    """A call of the function `name`; `written` is carried out instead where energies are read.

    `assumed` is what the network does not say, in words.
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    written: Callable[..., Tensor] | None = None
    assumed: tuple[str, ...] = ()

    def mark(self, out: Any, *, paths: bool) -> None:
        """Note on the result `out` what later calls are replaced by, or depend on."""
        always = (mark_gate, mark_softmax)
        for note in always if paths else (*always, mark_largest, mark_sign, mark_offset):
            note(self.name, out, self.args, self.kwargs)


def replaced(
    name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, paths: bool
) -> ReplacedCall:
    """What is carried out in place of a call; with `paths`, where paths are counted."""
    written = WRITTEN_OUT.get(name)
    assumed: list[str] = []
    if name in PRODUCTS_OF_UNITS | QUOTIENTS:
        args, unclear = as_stored(args)
        if unclear:
            assumed.append(f"the numbers stored for {name!r} are scales of channels")
    if name in VECTOR_PRODUCTS:
        args = tree_map(learned_vector, args)
    if kwargs.get("enable_gqa"):
        written = attention_of_groups
    written = written_apart(name, args, kwargs) or written
    gated = as_activation(name, args)
    if gated is not None:
        return ReplacedCall(name, gated[1:], {}, gated[0])
    gate = as_gate(name, args, kwargs)
    if gate is not None:
        return ReplacedCall(name, args, kwargs, lambda x, *_, **__: gate(x))
    written = as_softmax(name, args) or written
    if paths:
        return ReplacedCall(name, args, kwargs, written, tuple(assumed))
    written = written_with_copies(name, args) or written
    if name in MAXIMA:
        joined, doubt = counted_together(name, args, kwargs)
        if joined is not None:
            name, args, kwargs, written = joined.name, joined.args, {}, joined.written or written
        assumed += [doubt] if doubt else []
    if name in EXPONENTIALS and is_energy(args[0]):
        assumed.append(f"{name!r} passes all of the energy")
    if multiplies_exponentials(name, args):
        assumed.append(f"exponentials by which {name!r} multiplies have a mean square of 1")
    if multiplies_skewed(name, args):
        assumed.append(f"what {name!r} multiplies by has the mean of the number added to it")
    if name in QUOTIENTS and all(map(is_energy, args[:2])) and is_not_negative(args[1]):
        assumed.append(f"what {name!r} divides by has a mean of 0, though it is not negative")
    if rectifies(name, args, kwargs) and args:
        if is_not_negative(args[0]):
            return ReplacedCall(name, args[:1], {}, _passed, tuple(assumed))
        if is_partly_not_negative(args[0]):
            assumed.append(f"{name!r} passes half of the joined units that are not negative, too")
    if activates_again(name, args, kwargs):
        assumed.append(f"{name!r} passes half of what an activation returned, too")
    if prefers_one(name, args):
        assumed.append(f"{name!r} keeps each as often, though an activation made one")
    return ReplacedCall(name, args, kwargs, written, tuple(assumed))


def _passed(x: Tensor) -> Tensor:
    """All of `x`, which a rectifier passes; if one made it, it made the result."""
    found = torch.clone(x)
    if hasattr(x, "rectified"):
        found.rectified = True  # type: ignore[attr-defined]
    return found
