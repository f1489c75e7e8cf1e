"""Products of two functions of a map that are summed over its places, as keys times values are."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

from .letters import spelled_out
from .rule_table import history_of
from .tags import runs_over

if TYPE_CHECKING:
    from collections.abc import Sequence


def summed_places(name: str, args: Sequence[Any]) -> int:
    """The number of places over which one of `MATRIX_PRODUCTS` sums; 1 if it sums over none."""
    tensors, summed, kept = _axes(name, args)
    between_places = any(sums_places(tensors, n) for n in kept)
    return summed if sums_places(tensors, summed) and not between_places else 1


def sums_places(tensors: Sequence[Any], entries: int) -> bool:
    """Whether so many `entries` of one of the `tensors` are the places of its map."""
    known = filter(None, map(history_of, tensors))
    return any(runs_over(found.grid, [entries]) for found in known)


def _axes(name: str, args: Sequence[Any]) -> tuple[Sequence[Any], int, list[int]]:
    """The tensors of a product, the number of entries that it sums, and the lengths it keeps."""
    if name != "einsum":
        a, b = args[1::-1] if name == "rmatmul" else args[:2]
        return args[:2], a.shape[-1], [*a.shape[-2:-1], *b.shape[-1:]] if b.ndim > 1 else []
    equation, *operands = args
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    terms, letters = spelled_out(equation, tensors)
    lengths = [n for t in tensors for n in t.shape]
    sizes = dict(zip("".join(terms), lengths, strict=True))
    summed = prod(n for letter, n in sizes.items() if letter not in letters)
    return tensors, summed, [sizes[letter] for letter in letters]
