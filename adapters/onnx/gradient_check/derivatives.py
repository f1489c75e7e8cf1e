"""Check the gradients of an interpreted graph, and find the node with a wrong gradient."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...errors import PerimetryError
from ..files.protos import printable
from ..interpreter import Interpreter
from ..paths import bottlenecks, on_the_way
from ..session import Session
from .finite_differences import GOOD, gradient, gradient_error, resolution, rise
from .subject import CheckTarget, GradientVerdict, relative_l2_distance

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .finite_differences import Scalar


STEPS = {"float32": (1e-3, 1e-4), "float16": (3e-2, 1e-2)}
"""Steps of the central difference as shares of the norm of x, by the file's precision."""

MOST_TRIED = 48
"""Maximum number of tensors to test one by one in the search for a wrong gradient."""

RATIO = (0.9, 1.1)
"""Range of the ratio of onnxruntime's differences to the interpreter's, for one step size."""

UNIT = {"float32": 2.0**-24, "float16": 2.0**-11}
"""Relative rounding of a number, by the file's precision."""

ROUNDINGS = 4
"""Rounding of onnxruntime's values in such units, after a few layers."""

SHARE = 0.1
"""Largest share of rounding in a difference that onnxruntime's values can confirm."""

SINGLE = 0.1
"""Relative L2 difference allowed between the gradients in single and in double precision.

Decisions of ReLU and max-pool flip with the rounding: it is 4e-3 for an untrained DenseNet-121.
"""


class Derivatives:
    """Derivatives of a graph at one image `x` (1, channels, height, width), and their errors."""

    def __init__(self, subject: CheckTarget, x: Tensor) -> None:
        mode = replace(subject.interpreter.mode, dtype=torch.float64, rounding=False)
        self.subject = subject
        self.x = x.detach()
        self._interpreter = Interpreter(subject.proto, mode)
        self._gradients: dict[str, Tensor] = {}
        self._errors: dict[str, float] = {}
        self._sizes: dict[str, float] = {}

    def exact(self, name: str) -> Tensor:
        """Return the gradient of the tensor `name` in double precision, without rounding."""
        if name not in self._gradients:
            f = self._scalar(self._interpreter, name)
            self._gradients[name] = gradient(f, self.x.double())
        return self._gradients[name]

    def error(self, name: str) -> float:
        """Return the estimated relative L2 error of that gradient."""
        if name not in self._errors:
            f, g = self._scalar(self._interpreter, name), self.exact(name)
            self._errors[name] = gradient_error(f, self.x, g, self._size(name))
        return self._errors[name]

    def is_resolved(self, name: str) -> bool:
        """Whether rounding is small enough to judge that gradient, in both precisions.

        The output of a confident softmax is not: it is judged by the tensors before it.
        """
        g, size, kind = self.exact(name), self._size(name), self.subject.precision
        norm, step = float(g.norm()), max(STEPS[kind]) * float(self.x.norm())
        coarse = ROUNDINGS * UNIT[kind] * size > SHARE * 2 * step * norm
        return not coarse and resolution(g, self.x, size) <= GOOD

    def judged(self, name: str) -> str:
        """Return the last tensor on the way to `name` that shows an error or its absence.

        Every path to `name` passes through it. It is `name` itself if there is none.
        """
        subject = self.subject
        before = bottlenecks(subject.proto, subject.image, name)[-2:0:-1]
        tensors = (t for t in (name, *before) if self._is_differentiable(t))
        return next((t for t in tensors if self.is_resolved(t) or self.error(t) > GOOD), name)

    def _is_differentiable(self, name: str) -> bool:
        try:
            self.exact(name)
        except (RuntimeError, PerimetryError, KeyError):
            return False
        return True

    def _size(self, name: str) -> float:
        """Root sum of squares of the tensor `name` of the first image."""
        if name not in self._sizes:
            with torch.no_grad():
                values = self._interpreter(self.subject.feeds(self.x.double()), [name])[name]
            self._sizes[name] = float(first_of(values, self.subject.batch).double().norm())
        return self._sizes[name]

    def single(self, name: str) -> float:
        """Return the relative L2 difference of the gradient that suites use to the exact one.

        0 for quantised graphs, on which these are gradients of two functions.
        """
        if self.subject.straight_through:
            return 0.0
        used = gradient(self._scalar(self.subject.interpreter, name), self.x)
        return relative_l2_distance(used, self.exact(name))

    def ratios(self, name: str) -> tuple[float, ...]:
        """Return the ratios of onnxruntime's differences to the interpreter's along the gradient.

        There is one for each step; none for quantised graphs, or if the gradient is zero.
        """
        if self.subject.straight_through:
            return ()
        g = self.exact(name)
        if not g.any():
            return ()
        session = Session(self.subject.proto, [name])

        def reference(x: Tensor) -> Tensor:
            values = session.run(self.subject.arrays(x.to(self.x.dtype)))[name]
            return random_sum(torch.as_tensor(values).double(), self.subject.batch)

        shares = STEPS[self.subject.precision]
        moves = [g / g.norm() * share * float(self.x.norm()) for share in shares]
        x, f = self.x.double(), self._scalar(self._interpreter, name)
        return tuple(_over(rise(reference, x, m), rise(f, x, m)) for m in moves)

    def is_wrong(self, name: str) -> bool:
        """Whether the gradient of the tensor `name` is wrong; False if it has none."""
        try:
            return not (self.error(name) <= GOOD and self.single(name) <= SINGLE)
        except (RuntimeError, PerimetryError, KeyError):
            return False

    def _scalar(self, interpreter: Interpreter, name: str) -> Scalar:
        subject = self.subject
        return lambda x: random_sum(interpreter(subject.feeds(x), [name])[name], subject.batch)


def first_of(values: Tensor, batch: int) -> Tensor:
    """Output of the first image of a `batch`; all of it for one image, whatever its axes are."""
    return values if batch == 1 else values[:1]


def random_sum(values: Tensor, batch: int) -> Tensor:
    """Return the random-sign sum over the output of the first image of a `batch`.

    The same signs for the interpreter's values and onnxruntime's.
    """
    random = torch.Generator().manual_seed(0)
    own = first_of(values, batch)
    signs = torch.randint(0, 2, own.shape, generator=random) * 2.0 - 1
    return (own * signs.to(own)).sum()


def _over(a: float, b: float) -> float:
    """a / b; 1 where both are 0."""
    if b == 0.0:
        return 1.0 if a == 0.0 else float("inf")
    return a / b


def check_derivatives(found: Derivatives, outputs: Sequence[str]) -> GradientVerdict:
    """Return a verdict on the gradients of the tensors `outputs`, each by `Derivatives.judged`."""
    ratios: tuple[float, ...] = ()
    errors = [0.0]
    for output in outputs:
        name = found.judged(output)
        errors += [found.error(name), found.error(output)]
        ratios += (own := found.ratios(name))
        reason = _objection(found, name, errors[-2], own)
        if reason is None and not errors[-1] <= GOOD:
            reason = _disagreement(found, output, errors[-1])
        if reason:
            return GradientVerdict(reason, ratios=ratios, gradient=max(errors))
    return GradientVerdict(None, ratios=ratios, gradient=max(errors))


def _objection(found: Derivatives, name: str, error: float, ratios: Sequence[float]) -> str | None:
    """Return why the gradient of `name` cannot be trusted, with the node at fault, or None."""
    if not error <= GOOD:
        return _disagreement(found, name, error)
    if not agree(ratios):
        shown = ", ".join(f"{r:.3f}" for r in ratios)
        return (
            f"{printable(name)!r} does not change as through onnxruntime beside the test image "
            f"(ratio of differences {shown}; expected 1)"
        )
    single = found.single(name)
    if not single <= SINGLE:
        return (
            f"the gradient of {printable(name)!r} depends on the precision (relative difference "
            f"{single:.2g}){wrong_rule(found, name)}"
        )
    return None


def _disagreement(found: Derivatives, name: str, error: float) -> str:
    return (
        f"the gradient of {printable(name)!r} disagrees with finite differences (relative error "
        f"{error:.2g}){wrong_rule(found, name)}"
    )


def agree(ratios: Sequence[float]) -> bool:
    """Whether one of the step sizes confirms the function; True if there is nothing to compare."""
    return not ratios or any(RATIO[0] <= r <= RATIO[1] for r in ratios)


def wrong_rule(found: Derivatives, name: str) -> str:
    """Return a clause that names the node with a wrong gradient; empty if it is unknown.

    Halves the tensors that every path to `name` passes through until it has the first one whose
    gradient is wrong, then tries the tensors between it and the last right one in order.
    """
    subject = found.subject
    place = {t: i for i, t in enumerate(on_the_way(subject.proto, subject.image, name))}
    marks = [t for t in bottlenecks(subject.proto, subject.image, name) if t != subject.image]
    low, high = 0, len(marks) - 1
    while low < high:
        middle = (low + high) // 2
        if found.is_wrong(marks[middle]):
            high = middle
        else:
            low = middle + 1
    begin = place[marks[low - 1]] if low else 0
    between = [t for t, i in place.items() if begin < i <= place[marks[low]]]
    for tensor in between[:MOST_TRIED]:
        if found.is_wrong(tensor):
            nodes = subject.interpreter.graph.nodes
            label = next((n.label() for n in nodes if tensor in n.outputs), printable(tensor))
            return f"; it goes wrong at the {label}"
    return ""
