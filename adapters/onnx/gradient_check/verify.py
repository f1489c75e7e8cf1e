"""The check of an ONNX file's gradients before they are used.

1. The interpreter's outputs are compared with onnxruntime's by relative L2: on one image, and as
differences between two points near it, so that both have the same derivative. 2. The interpreter's
gradient against its own differences in double precision (`onnx_derivative`): a right forward pass
does not make a right gradient. 3. Its gradient in the precision that suites use against that in
double precision.

Quantised graphs are piecewise constant. Their straight-through gradient is that of the graph
without rounding, to which the second check applies. The first check then compares with
onnxruntime's own spread, and uses no differences.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from ...errors import PerimetryError
from ..session import Session
from .derivatives import Derivatives, check_derivatives
from .subject import CheckTarget, GradientVerdict, relative_l2_distance

FORWARD = {"float32": 1e-4, "float16": 5e-3}
"""Relative L2 difference allowed between interpreter and onnxruntime, by the file's precision."""

CLEARLY = {"float32": 1e-2, "float16": 5e-2}
"""Relative L2 difference from which on they compute different functions, by the precision."""

CLEARLY_ROUNDED = 0.5
"""The same of quantised graphs, if it is more than twice onnxruntime's own spread."""

FLOAT_NOISE = 1e-6
"""Relative size of float32's rounding, after a few operations."""


def verify_gradients(subject: CheckTarget, x: Tensor) -> GradientVerdict:
    """Compare the gradient route with onnxruntime on one image."""
    if not subject.outputs:
        return GradientVerdict("the file gives neither a spatial map nor logits")
    try:
        return _verify(subject, x)
    except Exception as error:  # any failure here means: no gradients for this file
        where = " ".join(getattr(error, "__notes__", []))
        text = str(error) if isinstance(error, PerimetryError) else repr(error)[:200]
        return GradientVerdict(f"{text} {where}".strip())


def _verify(subject: CheckTarget, x: Tensor) -> GradientVerdict:
    reference = Session(subject.proto, subject.outputs).run(subject.arrays(x))
    with torch.no_grad():
        ours = subject.interpreter(subject.feeds(x), subject.outputs)
    expected = {name: torch.as_tensor(value).double() for name, value in reference.items()}
    if not all(bool(value.isfinite().all()) for value in expected.values()):
        return GradientVerdict("the model's own outputs are not finite on a test image")
    error = max(relative_l2_distance(ours[name], expected[name]) for name in subject.outputs)
    limit = FORWARD[subject.precision]
    if subject.straight_through:
        limit = max(limit, rounding_spread(subject, x, expected))
    if not error <= limit:
        return GradientVerdict(
            f"outputs differ from onnxruntime's by {error:.1e}, more than {limit:.0e}"
            f"{first_divergent_node(subject, x)}",
            error,
        )
    found = check_derivatives(Derivatives(subject, x), subject.outputs)
    return replace(found, forward=error)


def why_another_function(subject: CheckTarget, x: Tensor) -> str | None:
    """Return why the interpreter does not compute what onnxruntime does at all, or None.

    One forward pass of each. Rounding, and what cannot be computed, are no reasons.
    """
    try:
        reference = Session(subject.proto, subject.outputs).run(subject.arrays(x))
        with torch.no_grad():
            ours = subject.interpreter(subject.feeds(x), subject.outputs)
    except Exception:  # others say so
        return None
    expected = {name: torch.as_tensor(value).double() for name, value in reference.items()}
    if not all(bool(value.isfinite().all()) for value in expected.values()):
        return None
    error = max(relative_l2_distance(ours[name], expected[name]) for name in subject.outputs)
    limit = CLEARLY_ROUNDED if subject.straight_through else CLEARLY[subject.precision]
    if not error <= limit and subject.straight_through:
        limit = max(limit, 2 * rounding_spread(subject, x, expected))
    if error <= limit:
        return None
    where = first_divergent_node(subject, x)
    return f"the target differs from onnxruntime's by {error:.1e}, more than {limit:.0e}{where}"


def rounding_spread(subject: CheckTarget, x: Tensor, expected: dict[str, Tensor]) -> float:
    """Return onnxruntime's own spread: without optimisation, and on an image with float noise.

    A float that is rounded to another level changes a quantised network's output by far more than
    float noise, in onnxruntime as in the interpreter.
    """
    names = subject.outputs
    move = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    moved = x + FLOAT_NOISE * x.norm() * move.to(x) / move.norm()
    others = (
        Session(subject.proto, names, optimise=False).run(subject.arrays(x)),
        Session(subject.proto, names).run(subject.arrays(moved)),
    )
    return max(
        relative_l2_distance(torch.as_tensor(o[n]), expected[n]) for o in others for n in names
    )


def first_divergent_node(subject: CheckTarget, x: Tensor) -> str:
    """Return a clause that names the first node where both diverge; empty if it is unknown."""
    made = {name for node in subject.proto.graph.node for name in node.output if name}
    nodes = [n for n in subject.interpreter.graph.nodes if n.outputs[0] in made]
    names = [n.outputs[0] for n in nodes]
    expected = Session(subject.proto, names, optimise=False).run(subject.arrays(x))
    with torch.no_grad():
        ours = subject.interpreter(subject.feeds(x), names)
    for node, name in zip(nodes, names, strict=True):
        value = torch.as_tensor(expected[name])
        if relative_l2_distance(ours[name], value) > FORWARD[subject.precision]:
            return f"; they part at the {node.label()}"
    return ""
