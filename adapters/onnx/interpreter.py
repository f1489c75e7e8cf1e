"""An ONNX graph evaluated by torch, so that gradients reach the image.

Everything that does not depend on the image is computed once, when the graph is read. A pass runs
only the nodes that the wanted tensors need and drops each tensor after its last use.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..errors import NotApplicableError
from .files.protos import node_name, printable, subgraphs
from .graph import Graph, Mode, Node, OperatorCall, operator_of, read_graph
from .operators.elementwise import OPERATORS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import onnx


FOLD_LIMIT = 2**27
"""Maximum number of elements of a folded constant; larger ones are recomputed in each pass."""

RANDOM = {
    *("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike"),
    *("Bernoulli", "Multinomial"),
}
"""Operators that draw random numbers."""

PlannedNode = tuple[Node, tuple[str, ...]]
"""A node, and the tensors that no later node reads."""


class Interpreter(nn.Module):
    """A graph as a module that maps inputs by name to tensors by name.

    >>> Interpreter(proto)({"x": x}, ["logits"])["logits"]  # doctest: +SKIP
    """

    def __init__(self, proto: onnx.ModelProto, mode: Mode | None = None) -> None:
        super().__init__()
        self.mode = mode or Mode()
        reason = why_no_rule(proto)
        if reason is not None:
            raise NotApplicableError(reason)
        graph = read_graph(proto, self.mode)
        for unreadable in graph.unreadable.values():
            raise NotApplicableError(unreadable)
        self.graph = fold_constants(graph, self.mode)
        self._plans: dict[tuple[str, ...], list[PlannedNode]] = {}

    def replace_constants(self, constants: Mapping[str, Tensor]) -> None:
        """Replace some constants; later passes use the new ones."""
        self.graph = replace(self.graph, constants={**self.graph.constants, **constants})

    def forward(self, feeds: Mapping[str, Tensor], want: Sequence[str]) -> dict[str, Tensor]:
        """Evaluate the tensors named in `want` from the graph inputs `feeds`."""
        scope = {**self.graph.constants}
        scope.update({name: self.mode.place(x) for name, x in feeds.items()})
        execute(self.plan(tuple(want)), scope, self.mode)
        return {name: scope[name] for name in want}

    def plan(self, want: tuple[str, ...]) -> list[PlannedNode]:
        """Return the steps that `want` needs, from a cache after the first call."""
        if want not in self._plans:
            self._plans[want] = plan(self.graph, want)
        return self._plans[want]


def without_rules(nodes: Iterable[onnx.NodeProto]) -> dict[str, str]:
    """Operators of `nodes` and of their subgraphs without a rule, and a label of one node each."""
    found: dict[str, str] = {}
    for node in nodes:
        op = operator_of(node)
        if op != "Constant" and op not in OPERATORS:
            found.setdefault(op, f"{printable(op)} node {node_name(node)!r}")
        for inner in subgraphs(node):
            found = without_rules(inner.node) | found
    return found


def why_no_rule(proto: onnx.ModelProto) -> str | None:
    """Return None if all operators of the graph have a rule, else which have none."""
    missing = without_rules(proto.graph.node)
    if not missing:
        return None
    first = ", ".join(missing[op] for op in sorted(missing)[:8])
    return f"no rule for {len(missing)} of its operators: {first}"


def plan(graph: Graph, want: Sequence[str]) -> list[PlannedNode]:
    """The steps that `want` needs, in execution order."""
    needed = set(want)
    nodes = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            reads = node.reads()
            needed |= reads
            nodes.append((node, reads))
    seen = {*want, *graph.constants}
    steps: list[PlannedNode] = []
    for node, reads in nodes:
        steps.append((node, tuple((reads | set(node.outputs)) - seen)))
        seen |= reads
    return steps[::-1]


def execute(steps: Iterable[PlannedNode], scope: dict[str, Tensor], mode: Mode) -> None:
    """Run `steps`, reading from and writing to `scope`."""
    for node, done in steps:
        for name, value in zip(node.outputs, run_node(node, scope, mode), strict=False):
            scope[name] = value
        for name in done:
            scope.pop(name, None)


def run_node(node: Node, scope: Mapping[str, Tensor], mode: Mode) -> tuple[Any, ...]:
    """Run one node; an error carries the node's name as a note."""
    inputs = [scope[name] if name else None for name in node.inputs]
    try:
        out = OPERATORS[node.op](
            OperatorCall(node, mode, scope, partial(_subgraph, scope, mode)), *inputs
        )
    except NotApplicableError:
        raise
    except Exception as error:
        error.add_note(f"at {node.label()}")
        raise
    return tuple(out) if isinstance(out, tuple | list) else (out,)


def _subgraph(
    scope: Mapping[str, Tensor], mode: Mode, graph: Graph, feeds: Mapping[str, Tensor]
) -> list[Tensor]:
    """Return the outputs of a subgraph in the `scope` of its node."""
    inner = {**scope, **graph.constants, **feeds}
    execute(plan(graph, graph.outputs), inner, mode)
    return [inner[name] for name in graph.outputs]


def fold_constants(graph: Graph, mode: Mode, *, keep: bool = False) -> Graph:
    """Evaluate every node that depends on no input, such as a weight behind DequantizeLinear.

    With `keep`, constants that no remaining node reads are kept.
    """
    constants = dict(graph.constants)
    kept = []
    for node in graph.nodes:
        if (
            node.op in RANDOM
            or node.op not in OPERATORS
            or not node.reads() <= constants.keys()
            or not node.inputs
        ):
            kept.append(replace(node, constant=frozenset(node.inputs) & constants.keys()))
            continue
        with torch.no_grad():
            values = run_node(node, constants, mode)
        if sum(v.numel() for v in values if isinstance(v, Tensor)) > FOLD_LIMIT:
            kept.append(node)
        else:
            constants.update(zip(node.outputs, values, strict=False))
    constants = constants if keep else _used(constants, kept, graph.outputs)
    return replace(graph, nodes=tuple(kept), constants=constants)


def _used(
    constants: Mapping[str, Tensor], nodes: Sequence[Node], outputs: Sequence[str]
) -> dict[str, Tensor]:
    names = set(outputs).union(*(node.reads() for node in nodes))
    return {name: value for name, value in constants.items() if name in names}
