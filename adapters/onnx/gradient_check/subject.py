"""The target of the gradient check of an ONNX file, its verdict, and how far gradients go.

Files end in operators without a gradient, such as NonMaxSuppression, TopK or ZipMap. Only the nodes
that target and logits need are interpreted. If a node between the two has no rule, the target has
gradients and the logits have none.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import torch
from torch import Tensor

from ...errors import NO_GRADIENTS
from ..files.protos import printable
from ..interpreter import why_no_rule, without_rules
from ..session import feed, with_outputs

if TYPE_CHECKING:
    import onnx

    from ...input_spec import InputSpec
    from ..interpreter import Interpreter


@dataclass(frozen=True)
class CheckTarget:
    """Target of a check: a graph and its interpreter, for images (1, channels, height, width)."""

    proto: onnx.ModelProto
    interpreter: Interpreter
    spec: InputSpec
    image: str
    outputs: tuple[str, ...]
    precision: str
    straight_through: bool
    batch: int

    def feeds(self, x: Tensor) -> dict[str, Tensor]:
        """Return `x` as the interpreter's input, repeated to the batch size of the file."""
        x = x.expand(self.batch, *x.shape[1:])
        return {self.image: x.permute(0, 2, 3, 1) if self.spec.layout == "NHWC" else x}

    def arrays(self, x: Tensor) -> dict[str, Any]:
        """Return `x` as onnxruntime's input."""
        return {self.image: feed(x.expand(self.batch, *x.shape[1:]), self.spec)}


@dataclass(frozen=True)
class GradientVerdict:
    """`reason` is None when the gradients can be trusted; the numbers are measured differences."""

    reason: str | None
    forward: float | None = None
    ratios: tuple[float, ...] = ()
    gradient: float | None = None

    def note(self) -> str:
        """Return a line for the record."""
        if self.reason is not None:
            return f"{NO_GRADIENTS}{self.reason}"
        ratios = ", ".join(f"{r:.3f}" for r in self.ratios) or "not defined (quantised)"
        return (
            f"gradient route verified: outputs differ from onnxruntime's by {self.forward:.1e}, "
            f"ratio of differences {ratios}; estimated error of the gradient {self.gradient:.1e}"
        )


def as_float(proto: onnx.ModelProto, image: str) -> onnx.ModelProto:
    """Return a copy of a graph with a float input in place of bytes, which have no small steps."""
    copy = deepcopy(proto)
    del copy.graph.value_info[:]
    for value in copy.graph.input:
        if value.name == image:
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    return copy


def relative_l2_distance(a: Tensor, b: Tensor) -> float:
    """Relative L2 distance of two tensors; infinite when their shapes differ."""
    if a.shape != b.shape:
        return float("inf")
    a, b = a.detach().to("cpu", torch.float64), b.to("cpu", torch.float64)
    return float((a - b).norm() / b.norm().clamp(min=1e-30))


@dataclass(frozen=True)
class GradientReach:
    """`outputs` are the tensors with gradients; `left_out` names operators that they do not need.

    `why_no_logits` is the reason why the logits are not among them.
    """

    outputs: tuple[str, ...]
    why_no_logits: str | None = None
    left_out: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """Return lines for the record."""
        cut = f"gradients and structure do not go through {', '.join(self.left_out)}"
        lost = [self.why_no_logits] if self.why_no_logits else []
        return lost + ([cut] if self.left_out else [])


def gradient_reach(proto: onnx.ModelProto, target: str | None, logits: str | None) -> GradientReach:
    """Return how far gradients can go in a graph with these names of its target and logits."""
    wanted = tuple(dict.fromkeys(name for name in (target, logits) if name))
    reason, near = why_no_rule(with_outputs(proto, wanted)), wanted[:1]
    if reason is None:
        return GradientReach(wanted, left_out=_left_out(proto, wanted))
    if target is None or why_no_rule(with_outputs(proto, near)) is not None:
        return GradientReach(wanted)
    why = f"{NO_GRADIENTS[:-2]} to the output {printable(logits or '')!r}: {reason}"
    return GradientReach(near, why, _left_out(proto, near))


def _left_out(proto: onnx.ModelProto, outputs: tuple[str, ...]) -> tuple[str, ...]:
    """Labels of the operators without a rule that `outputs` do not need."""
    return tuple(without_rules(proto.graph.node).values()) if outputs else ()
