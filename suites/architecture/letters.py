"""The letters of sums of products, by which `einsum` names axes."""

from __future__ import annotations

from string import ascii_letters
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def spelled_out(equation: str, tensors: Sequence[Tensor]) -> tuple[list[str], str]:
    """The letters of the axes of each operand and of the result, without dots and with an arrow."""
    inputs, arrow, output = equation.replace(" ", "").partition("->")
    terms = inputs.split(",")
    free = [c for c in ascii_letters if c not in equation]
    dots = [
        t.ndim + 3 - len(term) if "." in term else 0 for term, t in zip(terms, tensors, strict=True)
    ]
    most = "".join(free[: max(dots)])
    if not arrow:
        once = sorted(c for c in {*inputs} - {*".,"} if inputs.count(c) == 1)
        output = "..." * ("." in inputs) + "".join(once)
    full = [term.replace("...", most[len(most) - n :]) for term, n in zip(terms, dots, strict=True)]
    return full, output.replace("...", most)
