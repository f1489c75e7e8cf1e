"""What a pass remarks on its energies: what is approximate, what is assumed, what was left out."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from ...adapters.skeleton_marks import KERNEL_DOUBT
from .compact import node_of, nodes_behind
from .mixtures import ATTENTION, JOINS, MATRIX_PRODUCTS, MIXTURES, PRODUCTS_OF_UNITS
from .own_names import POWERS
from .repeated_weights import REPEATED, Applications
from .rule_table import history_of, is_energy, is_weight
from .tags import tensors_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

SIGMOIDS = frozenset({"sigmoid", "hardsigmoid"})
GATES = ATTENTION | SIGMOIDS | {"softmax", "log_softmax"}
"""Functions that are gates or weights of attention, and constants by definition."""

COMPARISONS = frozenset(
    """
    lt le gt ge eq ne less less_equal greater greater_equal not_equal isclose signbit sign sgn
    heaviside
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions of which the result jumps with the values that they compare."""

ROUNDINGS = frozenset({"round", "floor", "ceil", "trunc", "fix"})
"""Functions that choose whole numbers by values; gradients may be passed straight through them."""

CHOICES = ROUNDINGS | frozenset(
    """
    argmax argmin topk sort argsort msort kthvalue median mode nonzero unique searchsorted bucketize
    multinomial bernoulli one_hot
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that choose places, or whole numbers, by values."""

NUMBERS = frozenset(
    """
    __bool__ __int__ __float__ __complex__ __index__ __array__ item tolist numpy
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Methods by which entries leave torch as numbers."""

CONVERTED = "a conversion to whole numbers"
"""Stands for the functions by which detached values become places."""

PLACES_OF_MAXIMA = frozenset({"max", "min"})
"""Functions that return places beside values; of both the values alone are known."""

JUMPS = COMPARISONS | CHOICES | PLACES_OF_MAXIMA | {CONVERTED}

SQUARES = POWERS | {"square"}
SIZES = POWERS | frozenset(
    """
    mean sum sqrt rsqrt reciprocal div truediv true_divide rdiv rtruediv divide exp matmul
    einsum avg_pool2d adaptive_avg_pool2d amax var std cumsum clamp conv2d linear
    """.split()  # noqa: SIM905 - easier to read than a column of names
)
"""Functions that make statistics of squares."""

LOST = "what it adds passes a square, a root or a norm alone, and these are constants here"


@dataclass(frozen=True)
class Approximation:
    """Why an energy is not exact, in words: two mixtures with unknown common coefficients.

    Or else what is `assumed` of the network, which does not say it, or of one `layer`.
    """

    what: str
    assumed: bool = False
    layer: str = ""

    @property
    def text(self) -> str:
        """The same with the layer."""
        return self.what + in_layer(self.layer)


def in_layer(name: str) -> str:
    """The layer in words; empty for the network itself."""
    return f" in layer {name!r}" if name else ""


class Remarks:
    """The remarks of one pass, each on the energies from which on it holds."""

    def __init__(self) -> None:
        self.gates: dict[str, None] = {}  # operations that take energies as constants, in order
        self._approximate: list[tuple[Tensor, Approximation]] = []
        self._lossy: list[tuple[Tensor, str]] = []
        self._applications = Applications()

    def add(self, out: Tensor, why: Approximation) -> None:
        """Remark that `out` is not exact."""
        self._approximate.append((out, why))

    def on_gate(self, name: str, tensors: Sequence[Tensor], out: Any, layer: str) -> None:
        """Remark on an operation that reads energies, if its result has none of their gradients."""
        if name in PLACES_OF_MAXIMA:
            for t in tensors_in(out):
                if not t.is_floating_point():
                    t.passed_through = frozenset({name})  # type: ignore[attr-defined]
        passes = any(t.requires_grad for t in tensors_in(out))
        if not passes and any(t.requires_grad for t in tensors):
            self.gates[f"{name!r}{in_layer(layer)}"] = None
            for t in tensors_in(out):
                t.passed_through = frozenset({name})  # type: ignore[attr-defined]
                if name in SIGMOIDS and _is_map(t):
                    t.gates_places = True  # type: ignore[attr-defined]

    def on_result(self, name: str, tensors: Sequence[Tensor], out: Any, layer: str) -> None:
        """Remark on weights that are applied again, and on constants that are added to energies.

        The constants are those that depend on the image. Gates are constants by definition; squares
        and norms are as statistics.
        """
        energies = [t for t in tensors if is_energy(t)]
        if not energies:
            return
        weights = [t for t in tensors if is_weight(t)] if name in MIXTURES else []
        for doubt in [getattr(w, KERNEL_DOUBT) for w in weights if _is_doubtful(w)]:
            self.add(out, Approximation(doubt, assumed=True, layer=layer))
        if weights and self._applications.repeated(weights, energies[0], out):
            self.add(out, Approximation(REPEATED, assumed=True, layer=layer))
        if name in PRODUCTS_OF_UNITS | MATRIX_PRODUCTS and any(map(_is_square, tensors)):
            what = f"squares by which {name!r} multiplies are constants"
            self.add(out, Approximation(what, assumed=True, layer=layer))
        if name == "glu" or (name in PRODUCTS_OF_UNITS and any(map(_gates_places, tensors))):
            what = f"gates by which {name!r} multiplies places are constants"
            self.add(out, Approximation(what, assumed=True, layer=layer))
        lost = [_passed_through(t) for t in tensors if _is_gate(t)] if name in JOINS else []
        if any(functions - GATES for functions in lost):
            what = f"the operation {name!r}{in_layer(layer)} has no energy rule: {LOST}"
            self._lossy.append((out, what))
        elif lost:
            kind = "gates" if any(lost) else "detached tensors"
            what = f"what {name!r} adds of {kind} alone is constant"
            self.add(out, Approximation(what, assumed=True, layer=layer))

    def on_target(self, *tensors: Tensor) -> dict[Approximation, None]:
        """The remarks on what `tensors` depend on, in order."""
        used = nodes_behind(tensors) if self._approximate else set()
        return {why: None for t, why in self._approximate if node_of(t) in used}

    def loss(self, target: Tensor) -> str | None:
        """Why the energy of `target` is too small, if a term of a sum was left out."""
        used = nodes_behind([target]) if self._lossy else set()
        return next((why for t, why in self._lossy if node_of(t) in used), None)


def pass_on_gates(name: str, tensors: Sequence[Tensor], results: Sequence[Tensor]) -> None:
    """Tell constants that are made of `tensors` which functions made constants of these.

    `name` is the function that made them of the tensors. It is among these if it jumps, as what is
    chosen by gates, by what was detached, or by their order, is not known; and if it makes a size
    of squares.
    """
    behind = frozenset[str]().union(*map(_passed_through, tensors))
    detached = any(_is_gate(t) and not _passed_through(t) for t in tensors)
    noted = (
        (name in CHOICES and (behind or name not in ROUNDINGS))
        or (name in COMPARISONS and (behind & GATES or detached))
        or (behind & SQUARES and _makes_size(name, tensors))
    )
    for out in results if behind or detached else ():
        if not is_energy(out):
            places = detached and not out.is_floating_point()
            made_by = {name} if noted else {CONVERTED} if places else set()
            out.passed_through = behind | _passed_through(out) | made_by  # type: ignore[attr-defined]
            if any(hasattr(t, "gates_places") for t in tensors):
                out.gates_places = True  # type: ignore[attr-defined]


def _makes_size(name: str, tensors: Sequence[Tensor]) -> bool:
    """Whether a function of squares makes a statistic: not of random weights, or two of them."""
    if name not in SIZES or any(map(is_weight, tensors)):
        return False
    return name not in MATRIX_PRODUCTS or not all(map(_passed_through, tensors))


def chosen_by_image(t: Tensor) -> str | None:
    """The function that chose the constant `t`, or what it is made of, by values of the image."""
    if is_energy(t):
        return None
    return min(_passed_through(t) & JUMPS, default=None)


def leaves_as_number(name: str, t: Tensor) -> bool:
    """Whether the method `name` reads a number of `t` that depends on the image.

    What gates decide, such as whether a detector found anything, may be asked for.
    """
    if name not in NUMBERS:
        return False
    if name == "__bool__" and not is_energy(t):
        return chosen_by_image(t) is not None and not _passed_through(t) & GATES
    return history_of(t) is not None


def is_statistic(t: Tensor) -> bool:
    """Whether `t` is a constant computed from energies by a square, a root or a norm."""
    return not is_energy(t) and bool(_passed_through(t) - GATES)


def _is_doubtful(weight: Tensor) -> bool:
    """Whether something is assumed of a weight that kernel padding has not replaced."""
    return hasattr(weight, KERNEL_DOUBT) and not hasattr(weight, "tap_energy")


def _is_square(t: Tensor) -> bool:
    """Whether `t` is a square of units, and no size of several, or root of a square."""
    return not is_energy(t) and bool(_passed_through(t)) and _passed_through(t) <= SQUARES


def _passed_through(t: Tensor) -> frozenset[str]:
    found: frozenset[str] = getattr(t, "passed_through", frozenset())
    return found


def _is_gate(t: Tensor) -> bool:
    """Whether `t` depends on the image and is a constant here."""
    return not is_energy(t) and history_of(t) is not None


def _gates_places(t: Tensor) -> bool:
    """Whether `t` is made of gates of the places of a map, and not of its channels alone."""
    several = sum(n > 1 for n in t.shape[1:]) > 1  # also where it was resized
    return _is_gate(t) and hasattr(t, "gates_places") and (several or _is_map(t))


def _is_map(t: Tensor) -> bool:
    """Whether axes of `t` run over the places of the map that it comes from."""
    history = history_of(t)
    if history is None or prod(history.grid) == 1:
        return False
    pairs = zip(t.shape[1:], t.shape[2:], strict=False)
    return history.grid in pairs or prod(history.grid) in t.shape[1:]
