"""How far the gradient route goes: to target and logits, not to what is computed behind them.

Files end in operators without a gradient, such as NonMaxSuppression, TopK or ZipMap. Only the nodes
that target and logits need are interpreted. If a node between the two has no rule, the target has
gradients and the logits have none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import NO_GRADIENTS
from ..files.read import printable
from ..interpreter import why_no_rule, without_rules
from ..session import with_outputs

if TYPE_CHECKING:
    import onnx


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
