"""Branches, loops and recurrent layers as ONNX defines them."""

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


def lstm(
    call: OperatorCall,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    peepholes: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Long short-term memory, one or both directions, standard activations."""
    size = call.get("hidden_size")
    plain = [a.lower() for a in call.get("activations", [])][:3] in (
        [],
        ["sigmoid", "tanh", "tanh"],
    )
    if call.get("layout") or call.get("input_forget") or peepholes is not None or not plain:
        raise call.decline("this variant of LSTM")
    if lengths is not None and bool((lengths != x.shape[0]).any()):
        raise call.decline("LSTM over sequences of unequal length")
    results = []
    for d in range(w.shape[0]):
        blank = x.new_zeros(x.shape[1], size)
        shift = 0.0 if bias is None else bias[d, : 4 * size] + bias[d, 4 * size :]
        start = (blank if hidden is None else hidden[d], blank if cell is None else cell[d])
        backwards = d == 1 or call.get("direction") == "reverse"
        results.append(_lstm_pass(x @ w[d].t() + shift, r[d], start, backwards=backwards))
    outputs, last, cells = zip(*results, strict=True)
    return torch.stack(outputs, 1), torch.stack(last), torch.stack(cells)


def _lstm_pass(
    gates: Tensor, r: Tensor, state: tuple[Tensor, Tensor], *, backwards: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """One direction; `gates` (time, batch, 4 * hidden) in the order input, output, forget, cell."""
    h, c = state
    steps = range(len(gates) - 1, -1, -1) if backwards else range(len(gates))
    outputs = []
    for t in steps:
        i, o, f, g = (gates[t] + h @ r.t()).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs[::-1] if backwards else outputs), h, c


CONTROL: dict[str, Callable[..., Any]] = {"If": branch, "Loop": loop, "LSTM": lstm}
