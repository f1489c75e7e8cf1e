"""The gate every ONNX file passes before its gradients are used.

1. The interpreter's outputs against onnxruntime's, relative L2.
2. One directional derivative, along the gradient, against central differences through onnxruntime,
   at two step sizes: a right forward pass does not make a right gradient.

Quantised graphs are a staircase: their straight-through gradient has no finite difference, so only
the first check applies, with onnxruntime's own optimisation as the yardstick.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor

from .errors import NO_GRADIENTS, PerimetryError
from .onnx_file import plain
from .onnx_session import Session, feed
from .onnx_target import bottlenecks, on_the_way

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .model import InputSpec
    from .onnx_interpreter import Interpreter

FORWARD = {"float32": 1e-4, "float16": 5e-3}
"""Relative L2 difference allowed between interpreter and onnxruntime, by the file's precision."""

STEPS = {"float32": (1e-3, 1e-4), "float16": (3e-2, 1e-2)}
"""Steps of the central difference as shares of the norm of x, by the file's precision."""

MOST_TRIED = 48
"""Tensors that are tried one by one in search of a wrong gradient."""

RATIO = (0.9, 1.1)
"""Derivative by differences over derivative by gradient; one step size must fall in here."""


@dataclass(frozen=True)
class Subject:
    """What is verified: a graph, its interpreter, one image `x` (1, channels, height, width)."""

    proto: onnx.ModelProto
    interpreter: Interpreter
    spec: InputSpec
    image: str
    outputs: tuple[str, ...]
    precision: str
    straight_through: bool
    batch: int

    def feeds(self, x: Tensor) -> dict[str, Tensor]:
        """`x` as the interpreter takes it, repeated to the batch the file insists on."""
        x = x.expand(self.batch, *x.shape[1:])
        return {self.image: x.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else x}

    def arrays(self, x: Tensor) -> dict[str, Any]:
        """`x` as onnxruntime takes it."""
        return {self.image: feed(x.expand(self.batch, *x.shape[1:]), self.spec)}


@dataclass(frozen=True)
class Verdict:
    """`reason` is None when the gradients can be trusted; the figures are what was measured."""

    reason: str | None
    forward: float | None = None
    ratios: tuple[float, ...] = ()

    def note(self) -> str:
        """One line for the record."""
        if self.reason is not None:
            return f"{NO_GRADIENTS}{self.reason}"
        derivative = ", ".join(f"{r:.3f}" for r in self.ratios) or "not defined (quantised)"
        return (
            f"gradient route verified against onnxruntime: outputs differ by {self.forward:.1e}, "
            f"directional derivative ratio {derivative}"
        )


def as_float(proto: onnx.ModelProto, image: str) -> onnx.ModelProto:
    """A copy of a graph that takes bytes, which takes floats instead: bytes have no small steps."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if value.name == image:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return copy


def verify(subject: Subject, x: Tensor) -> Verdict:
    """Compare the gradient route with onnxruntime on one image."""
    if not subject.outputs:
        return Verdict("the file gives neither a spatial map nor logits")
    try:
        return _verify(subject, x)
    except Exception as error:  # any failure here means: no gradients for this file
        where = " ".join(getattr(error, "__notes__", []))
        text = str(error) if isinstance(error, PerimetryError) else repr(error)[:200]
        return Verdict(f"{text} {where}".strip())


def _verify(subject: Subject, x: Tensor) -> Verdict:
    reference = Session(subject.proto, subject.outputs).run(subject.arrays(x))
    with torch.no_grad():
        ours = subject.interpreter(subject.feeds(x), subject.outputs)
    expected = {name: torch.as_tensor(value).double() for name, value in reference.items()}
    if not all(bool(value.isfinite().all()) for value in expected.values()):
        return Verdict("the model's own outputs are not finite on a test image")
    error = max(difference(ours[name], expected[name]) for name in subject.outputs)
    limit = FORWARD[subject.precision]
    if subject.straight_through:
        limit = max(limit, rounding_spread(subject, x, expected))
    if not error <= limit:
        return Verdict(
            f"outputs differ from onnxruntime's by {error:.1e}, more than {limit:.0e}"
            f"{culprit(subject, x)}",
            error,
        )
    if subject.straight_through:
        return Verdict(None, error)
    return _check_derivatives(subject, x, error)


def difference(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance of two tensors; infinite when their shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().to("cpu", torch.float64), b.to("cpu", torch.float64)
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


def rounding_spread(subject: Subject, x: Tensor, expected: dict[str, Tensor]) -> float:
    """How far onnxruntime, not optimised, is from itself optimised."""
    names = subject.outputs
    other = Session(subject.proto, names, optimise=False).run(subject.arrays(x))
    return max(difference(torch.as_tensor(other[n]), expected[n]) for n in names)


def _check_derivatives(subject: Subject, x: Tensor, error: float) -> Verdict:
    ratios: list[float] = []
    for name in subject.outputs:
        found = derivative_ratios(subject, x, name)
        ratios += found
        if not agree(found):
            shown = ", ".join(f"{r:.3f}" for r in found)
            return Verdict(
                f"the gradient of {plain(name)!r} disagrees with finite differences through "
                f"onnxruntime (ratio {shown}; expected 1){wrong_rule(subject, x, name)}",
                error,
                tuple(ratios),
            )
    return Verdict(None, error, tuple(ratios))


def derivative_ratios(subject: Subject, x: Tensor, name: str) -> list[float]:
    """Difference quotient over gradient norm, along the gradient, for each step size.

    The scalar is a random-sign sum over the output `name`. A zero gradient gives an empty list when
    the differences vanish too, else infinity.
    """
    x = x.detach().clone().requires_grad_(True)
    y = subject.interpreter(subject.feeds(x), [name])[name]
    signs = torch.randint(0, 2, y.shape[1:], generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    # A fixed batch repeats the image: only the first copy counts, the others follow it.
    (gradient,) = torch.autograd.grad((y[:1] * signs.to(y)).sum(), x)
    gradient = gradient.to("cpu", torch.float64)
    norm = float(gradient.norm())
    session = Session(subject.proto, [name])
    if norm == 0.0:
        return []
    ratios = []
    for share in STEPS[subject.precision]:
        step = share * float(x.detach().norm())
        move = (gradient / norm * step).to(x.dtype)
        ends = [
            torch.as_tensor(session.run(subject.arrays(x.detach() + sign * move))[name])[:1]
            for sign in (1, -1)
        ]
        rise = float(((ends[0].double() - ends[1].double()) * signs).sum())
        ratios.append(rise / (2 * step) / norm)
    return ratios


def agree(ratios: Sequence[float]) -> bool:
    """Whether one of the step sizes confirms the gradient; nothing to compare is no objection."""
    return not ratios or any(RATIO[0] <= r <= RATIO[1] for r in ratios)


def wrong_rule(subject: Subject, x: Tensor, name: str) -> str:
    """Which node's gradient is wrong, as a clause; empty when it cannot be told.

    Halves the tensors that every path to `name` passes through until it has the first one whose
    gradient is wrong, then tries the tensors between it and the last right one in order.
    """
    place = {t: i for i, t in enumerate(on_the_way(subject.proto, subject.image, name))}
    marks = [t for t in bottlenecks(subject.proto, subject.image, name) if t != subject.image]
    low, high = 0, len(marks) - 1
    while low < high:
        middle = (low + high) // 2
        if agree(_ratios_or_none(subject, x, marks[middle])):
            low = middle + 1
        else:
            high = middle
    begin = place[marks[low - 1]] if low else 0
    between = [t for t, i in place.items() if begin < i <= place[marks[low]]]
    for tensor in between[:MOST_TRIED]:
        if not agree(_ratios_or_none(subject, x, tensor)):
            nodes = subject.interpreter.graph.nodes
            label = next((n.label() for n in nodes if tensor in n.outputs), plain(tensor))
            return f"; it goes wrong at the {label}"
    return ""


def _ratios_or_none(subject: Subject, x: Tensor, name: str) -> list[float]:
    """`derivative_ratios`; empty where the tensor has no gradient, as indices have none."""
    try:
        return derivative_ratios(subject, x, name)
    except (RuntimeError, PerimetryError, KeyError):
        return []


def culprit(subject: Subject, x: Tensor) -> str:
    """Where interpreter and onnxruntime part first, as a clause; empty when it cannot be told."""
    nodes = [n for n in subject.interpreter.graph.nodes if n.outputs[0]]
    names = [n.outputs[0] for n in nodes]
    expected = Session(subject.proto, names, optimise=False).run(subject.arrays(x))
    with torch.no_grad():
        ours = subject.interpreter(subject.feeds(x), names)
    for node, name in zip(nodes, names, strict=True):
        value = torch.as_tensor(expected[name])
        if difference(ours[name], value) > FORWARD[subject.precision]:
            return f"; they part at the {node.label()}"
    return ""


def outputs_to_check(target: str | None, logits: Sequence[str]) -> tuple[str, ...]:
    """The tensors whose gradients suites may use."""
    return tuple(dict.fromkeys([*([target] if target else []), *logits]))
