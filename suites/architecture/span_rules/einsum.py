"""How receptive fields pass sums of products that are written with letters."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ..letters import spelled_out
from ..rule_table import is_weight, known_spans, span_rule, spans_of
from ..spans import Spans, through, union
from ..uneven_weights import read_entries
from .attention import product_of_readers

if TYPE_CHECKING:
    from collections.abc import Sequence


@span_rule("einsum")
def _einsum(out: Tensor, /, equation: str, *operands: Any) -> Spans:
    tensors = operands[0] if isinstance(operands[0], list | tuple) else operands
    terms, letters = spelled_out(equation, tensors)
    read = [(c, s) for c, t in zip(terms, tensors, strict=True) if (s := spans_of(t))]
    if len(read) == 1:
        fixed = _fixed_matrix(terms, tensors, read[0][0], letters)
        if fixed is not None:
            axis, matrix = fixed
            spans = read[0][1].aligned()
            return spans.settled(
                replace(spans.each(lambda end: through(end, axis, matrix)), shape=tuple(out.shape))
            )
    if len(read) == len(terms) == 2:
        found = _of_matrices(out, terms, tensors, letters)
        if found is not None:
            return found
    return union([_summed(spans, term, letters) for term, spans in read], out.shape)


def _of_matrices(
    out: Tensor, terms: Sequence[str], tensors: Sequence[Tensor], letters: str
) -> Spans | None:
    """A product of matrices, in any order of their axes; None if it is none."""
    (a, first), (b, second) = zip(terms, tensors, strict=True)
    shared = [c for c in a if c in b and c not in letters]
    batch = [c for c in letters if c in a and c in b]
    rows = [c for c in letters if c in a and c not in b]
    columns = [c for c in letters if c in b and c not in a]
    sides = (shared, rows, columns)
    if any(len(side) != 1 for side in sides) or len({*a, *b}) != len(batch) + 3:
        return None
    found = product_of_readers(
        out.detach().permute([letters.index(c) for c in (*batch, *rows, *columns)]),
        _permuted(first, a, [*batch, *rows, *shared]),
        _permuted(second, b, [*batch, *shared, *columns]),
    )
    order = [*batch, *rows, *columns]
    back = [order.index(c) for c in letters]
    found = found.aligned().each(lambda end: end.permute(back))
    return replace(found, shape=tuple(out.shape))


def _permuted(t: Tensor, term: str, order: Sequence[str]) -> Tensor:
    """`t` with its axes, named by the letters of `term`, in another order, and so its spans."""
    axes = [term.index(c) for c in order]
    found = t.permute(axes)
    found.spans = known_spans(t).moved(lambda end: end.permute(axes))  # type: ignore[attr-defined]
    return found


def _summed(spans: Spans, term: str, letters: str) -> Spans:
    """Spans with the axes `term`, summed over those that are not in `letters`, with those axes."""
    gone = [d for d, c in enumerate(term) if c not in letters]
    kept = spans.reduced(gone, [1 if d in gone else n for d, n in enumerate(spans.shape)])

    def placed(end: Tensor) -> Tensor:
        order = [term.index(c) for c in letters if c in term]
        end = end.permute(*order, *gone).flatten(len(order)) if gone else end.permute(*order)
        end = end[..., 0] if gone else end
        for place, c in enumerate(letters):
            if c not in term:
                end = end.unsqueeze(place)
        return end

    found = kept.aligned().each(placed)
    sizes = [spans.shape[term.index(c)] if c in term else 1 for c in letters]
    return replace(found, shape=tuple(sizes))


def _fixed_matrix(
    terms: Sequence[str], tensors: Sequence[Tensor], term: str, letters: str
) -> tuple[int, Tensor] | None:
    """The axis of `term` that a matrix maps to an axis in its place; what it reads (out, in).

    None for any other sum of products.
    """
    if len(terms) != 2 or len(letters) != len(term):
        return None
    other, matrix = next((c, t) for c, t in zip(terms, tensors, strict=True) if not spans_of(t))
    changed = [d for d, (c, n) in enumerate(zip(term, letters, strict=True)) if c != n]
    read = read_entries(matrix) if is_weight(matrix) else matrix != 0
    if len(changed) != 1 or read is None:
        return None
    before, after = term[changed[0]], letters[changed[0]]
    if other not in {before + after, after + before}:
        return None
    return changed[0], (read.mT if other == before + after else read)
