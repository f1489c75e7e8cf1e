"""Branches and loops as ONNX defines them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..graph import Graph, OperatorCall

if TYPE_CHECKING:
    from collections.abc import Callable


LOOP_LIMIT = 10_000
"""Maximum number of iterations of a loop; no vision graph needs more."""


def _run(call: OperatorCall, graph: Graph, feeds: dict[str, Tensor]) -> list[Tensor]:
    """Evaluate a subgraph, which can read the tensors of the graph around it."""
    return call.evaluate(graph, feeds)


def branch(call: OperatorCall, condition: Tensor) -> tuple[Tensor, ...]:
    """Evaluate one of two subgraphs."""
    return tuple(_run(call, call.get("then_branch" if bool(condition) else "else_branch"), {}))


def loop(
    call: OperatorCall, count: Tensor | None, condition: Tensor | None, *state: Tensor
) -> tuple[Tensor, ...]:
    """Evaluate a subgraph repeatedly; return the last state and the stacked scan outputs."""
    body: Graph = call.get("body")
    rounds = LOOP_LIMIT if count is None else min(int(count), LOOP_LIMIT)
    going = condition is None or bool(condition)
    values, scans, done = list(state), [], 0
    while going and done < rounds:
        feeds = [torch.tensor(done), torch.tensor(True), *values]
        head, *out = _run(call, body, dict(zip(body.inputs, feeds, strict=True)))
        going, values = bool(head), out[: len(state)]
        scans.append(out[len(state) :])
        done += 1
    if going and done == LOOP_LIMIT:
        raise call.decline(f"a loop of more than {LOOP_LIMIT} rounds")
    return (*values, *(torch.stack(scan) for scan in zip(*scans, strict=True)))


CONTROL: dict[str, Callable[..., Any]] = {"If": branch, "Loop": loop}
