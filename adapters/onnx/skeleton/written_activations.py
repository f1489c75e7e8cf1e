"""Recognise activations that exporters wrote out as arithmetic.

Before opset 20 there is no Gelu, and x (1 + erf(x / sqrt 2)) / 2, or the same with the tanh of a
cubic function of x, is written as nodes in one of several orders. They are found by the function of
x that each tensor is, up to a factor. A softplus may choose x itself where that is large, and the
tanh of a softplus of x, times x, is a Mish.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..graph import Node
from .written_out import Reader

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TOLERANCE = 1e-3
"""Relative; in half precision the root of 2 is off by 1e-4."""

CUBIC = (0.0, math.sqrt(2 / math.pi), 0.0, 0.044715 * math.sqrt(2 / math.pi))
"""Coefficients of the function whose tanh is close to erf(x / sqrt 2), the constant one first."""

HIGHEST, DEEPEST = 3, 6
"""Power and number of nodes up to which polynomials are followed."""


def _sum(a: Sequence[float], b: Sequence[float]) -> list[float]:
    powers = range(max(len(a), len(b)))
    return [sum(c[n] for c in (a, b) if n < len(c)) for n in powers]


def _product(a: Sequence[float], b: Sequence[float]) -> list[float]:
    """None of a power above `HIGHEST`."""
    if len(a) + len(b) - 2 > HIGHEST:
        return []
    found = [0.0] * (len(a) + len(b) - 1)
    for m, first in enumerate(a):
        for n, second in enumerate(b):
            found[m + n] += first * second
    return found


def _power(a: Sequence[float], exponent: Sequence[float]) -> list[float]:
    if len(exponent) > 1 or exponent[0] not in {2, 3}:
        return []
    square = _product(a, a)
    return square if exponent[0] == 2 or not square else _product(square, a)


def _quotient(a: Sequence[float], b: Sequence[float]) -> list[float]:
    return [c / b[0] for c in a] if len(b) == 1 and b[0] else []


POLYNOMIAL: dict[str, Callable[[Sequence[float], Sequence[float]], list[float]]] = {
    "Add": _sum,
    "Mul": _product,
    "Pow": _power,
    "Div": _quotient,
}
"""Operators of two polynomials; the result is empty where it is none."""


@dataclass(frozen=True)
class _GeluForm:
    """A tensor as `factor` times x, erf(x / sqrt 2) or 1 + that, or GELU(x), by `kind`."""

    kind: str
    x: str
    factor: float

    def times(self, factor: float) -> _GeluForm:
        return replace(self, factor=self.factor * factor)


class GeluReader(Reader[_GeluForm]):
    """Finds GELUs."""

    def read(self, node: Node) -> Node:
        """Return the node, or the Gelu of which it is the last node."""
        form = self._form(node)
        if form is None:
            return node
        self.forms[node.outputs[0]] = form
        if form.kind == "gelu" and math.isclose(form.factor, 1, rel_tol=TOLERANCE):
            return Node("Gelu", node.name, (form.x,), node.outputs, {}, node.opset)
        return node

    def _form(self, node: Node) -> _GeluForm | None:
        if node.op == "Erf":
            return self._erf(node.inputs[0])
        if node.op == "Tanh":
            return self._tanh(node.inputs[0])
        if node.op not in {"Mul", "Div", "Add"}:
            return None
        orders = [node.inputs] if node.op == "Div" else [node.inputs, node.inputs[::-1]]
        for name, other in orders:
            number = self._number(other)
            if number:
                return self._with_number(node.op, name, number)
        return self._product(*node.inputs) if node.op == "Mul" else None

    def _erf(self, name: str) -> _GeluForm | None:
        form = self.forms.get(name)
        if form is None or not math.isclose(form.factor, math.sqrt(0.5), rel_tol=TOLERANCE):
            return None
        return _GeluForm("erf", form.x, 1.0) if form.kind == "x" else None

    def _tanh(self, name: str) -> _GeluForm | None:
        """Tanh of the cubic function of an x that stands for erf(x / sqrt 2)."""
        for x in dict.fromkeys(self._behind(name)):
            found = self._polynomial(name, x)
            if len(found) == len(CUBIC) and all(
                math.isclose(a, b, rel_tol=TOLERANCE) for a, b in zip(found, CUBIC, strict=True)
            ):
                return _GeluForm("erf", x, 1.0)
        return None

    def _behind(self, name: str, depth: int = DEEPEST) -> list[str]:
        """The tensors of which `name` may be a polynomial."""
        node = self.writers.get(name)
        if name in self.constants or node is None or node.op not in POLYNOMIAL or not depth:
            return [name]
        return [name, *(one for n in node.inputs for one in self._behind(n, depth - 1))]

    def _polynomial(self, name: str, x: str, depth: int = DEEPEST) -> list[float]:
        """The coefficients of `name` in powers of `x`, the constant one first; none if unknown."""
        if name == x:
            return [0.0, 1.0]
        number, node = self._number(name), self.writers.get(name)
        if number is not None:
            return [number]
        if node is None or node.op not in POLYNOMIAL or not depth:
            return []
        first, *rest = (self._polynomial(n, x, depth - 1) for n in node.inputs)
        return POLYNOMIAL[node.op](first, rest[0]) if first and rest and rest[0] else []

    def _with_number(self, op: str, name: str, number: float) -> _GeluForm | None:
        form = self.forms.get(name)
        if op == "Add":
            erf = form is not None and form.kind == "erf" and math.isclose(form.factor, number)
            return replace(form, kind="gate") if form is not None and erf else None
        if form is None or form.kind == "x":
            form = _GeluForm("x", name, 1.0)
        return form.times(1 / number if op == "Div" else number)

    def _product(self, first: str, second: str) -> _GeluForm | None:
        for gate, other in ((first, second), (second, first)):
            form, of_x = self.forms.get(gate), self.forms.get(other)
            if form is None or form.kind != "gate":
                continue
            if other == form.x:
                return _GeluForm("gelu", form.x, 2 * form.factor)
            if of_x is not None and of_x.kind == "x" and of_x.x == form.x:
                return _GeluForm("gelu", form.x, 2 * form.factor * of_x.factor)
        return None


LARGE = 10.0
"""Where a softplus and its argument differ by less than 1e-4."""


class SoftplusReader(Reader[None]):
    """Finds each choice of a softplus or of x, and each Mish."""

    def read(self, node: Node) -> Node:
        """Return the node, the softplus that it chooses, or the Mish of which it is the last."""
        chosen = self._chosen(node)
        self.writers.update(dict.fromkeys(node.outputs, chosen))
        return self._mish(chosen)

    def _mish(self, node: Node) -> Node:
        for x, other in (node.inputs, node.inputs[::-1]) if node.op == "Mul" else ():
            names = [other]
            for op in ("Tanh", "Softplus"):
                while (found := self.writers.get(names[-1])) and found.op == "Identity":
                    names.append(found.inputs[0])
                if found is None or found.op != op:
                    break
                names.append(found.inputs[0])
            else:
                if names[-1] == x:
                    return Node("Mish", node.name, (x,), node.outputs, {}, node.opset)
        return node

    def _chosen(self, node: Node) -> Node:
        """The node, or the softplus alone, if that is what it chooses where x is not large."""
        if node.op != "Where":
            return node
        condition, x, other = node.inputs
        compared, smooth = self.writers.get(condition), self.writers.get(other)
        divisor: float | None = 1.0
        if smooth is not None and smooth.op == "Div":
            divisor, smooth = self._number(smooth.inputs[1]), self.writers.get(smooth.inputs[0])
        if compared is None or smooth is None:
            return node
        if (compared.op, smooth.op) != ("Greater", "Softplus"):
            return node
        scaled = smooth.inputs[0]
        bound, factor = self._number(compared.inputs[1]), self._factor(scaled, x)
        if compared.inputs[0] != scaled or bound is None or not bound >= LARGE:
            return node
        if divisor is None or factor is None or not math.isclose(factor, divisor):
            return node
        return Node("Identity", node.name, (other,), node.outputs, {}, node.opset)

    def _factor(self, scaled: str, x: str) -> float | None:
        """The number by which `x` is multiplied in `scaled`; None if there is none."""
        node = self.writers.get(scaled)
        if scaled == x:
            return 1.0
        found = node is not None and node.op == "Mul" and node.inputs[0] == x
        return self._number(node.inputs[1]) if node is not None and found else None
