"""LSTM, GRU and RNN as ONNX defines them, in one or both directions; branches and loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..graph import Graph, OperatorCall

    States = tuple[Tensor, ...]
    Move = Callable[[Tensor, States, Tensor, Tensor], States]


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
) -> tuple[Tensor, ...]:
    """Long short-term memory."""
    if call.get("input_forget") or peepholes is not None:
        raise call.decline("this variant of LSTM")
    _check(call, x, lengths, ["sigmoid", "tanh", "tanh"])
    return _both(call, x, (w, r, bias), [hidden, cell], _lstm)


def _lstm(given: Tensor, state: States, r: Tensor, bias: Tensor) -> States:
    """The next states (batch, hidden); gates in the order input, output, forget, cell."""
    h, c = state
    i, o, f, g = (given + h @ r.t() + bias).chunk(4, 1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(c), c


def gru(
    call: OperatorCall,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """Gated recurrent unit; gates in the order update, reset, hidden."""
    _check(call, x, lengths, ["sigmoid", "tanh"])
    after = bool(call.get("linear_before_reset"))

    def move(given: Tensor, state: States, r: Tensor, bias: Tensor) -> States:
        (h,), size = state, r.shape[1]
        gates = given[:, : 2 * size] + h @ r[: 2 * size].t() + bias[: 2 * size]
        update, reset = torch.sigmoid(gates).chunk(2, 1)
        last, shift, new = r[2 * size :].t(), bias[2 * size :], given[:, 2 * size :]
        read = reset * (h @ last + shift) if after else (reset * h) @ last + shift
        return ((1 - update) * torch.tanh(new + read) + update * h,)

    return _both(call, x, (w, r, bias), [hidden], move)


def rnn(
    call: OperatorCall,
    x: Tensor,
    w: Tensor,
    r: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """A recurrent layer without gates."""
    first = next(iter(_activations(call)), "tanh")
    name, act = ("relu", torch.relu) if first == "relu" else ("tanh", torch.tanh)
    _check(call, x, lengths, [name])

    def move(given: Tensor, state: States, r: Tensor, bias: Tensor) -> States:
        return (act(given + state[0] @ r.t() + bias),)

    return _both(call, x, (w, r, bias), [hidden], move)


def _activations(call: OperatorCall) -> list[str]:
    found = [a.decode() if isinstance(a, bytes) else a for a in call.get("activations", []) or []]
    return [a.lower() for a in found]


def _check(call: OperatorCall, x: Tensor, lengths: Tensor | None, usual: Sequence[str]) -> None:
    """Decline other activations than the `usual` ones of each direction, and padded sequences."""
    names = _activations(call)
    plain = all(names[i : i + len(usual)] == list(usual) for i in range(0, len(names), len(usual)))
    if call.get("layout") or call.get("clip") or not plain:
        raise call.decline(f"this variant of {call.node.op}")
    if lengths is not None and bool((lengths != x.shape[0]).any()):
        raise call.decline(f"{call.node.op} over sequences of unequal length")


def _both(
    call: OperatorCall,
    x: Tensor,
    weights: tuple[Tensor, Tensor, Tensor | None],
    start: Sequence[Tensor | None],
    move: Move,
) -> tuple[Tensor, ...]:
    """All directions: outputs (time, directions, batch, hidden), then the last states.

    `x` is (time, batch, channels), `start` has the first states (directions, batch, hidden), None
    for zeros. `move` takes what the input gives to the gates, the states, and the weights and bias
    of the states.
    """
    w, r, bias = weights
    size, results = r.shape[2], []
    for d in range(w.shape[0]):
        both = x.new_zeros(2 * w.shape[1]) if bias is None else bias[d]
        of_input, of_state = both.chunk(2)
        blank = x.new_zeros(x.shape[1], size)
        state = tuple(blank if one is None else one[d] for one in start)
        backwards = d == 1 or call.get("direction") in ("reverse", b"reverse")
        given, outputs = x @ w[d].t() + of_input, []
        for t in reversed(range(len(x))) if backwards else range(len(x)):
            state = move(given[t], state, r[d], of_state)
            outputs.append(state[0])
        results.append((torch.stack(outputs[::-1] if backwards else outputs), *state))
    first, *last = zip(*results, strict=True)
    return torch.stack(first, 1), *(torch.stack(one) for one in last)


RECURRENT: dict[str, Callable[..., Any]] = {"LSTM": lstm, "GRU": gru, "RNN": rnn}


LOOP_LIMIT = 10_000
"""Maximum number of iterations of a loop; no vision graph needs more."""


def branch(call: OperatorCall, condition: Tensor) -> tuple[Tensor, ...]:
    """Evaluate one of two subgraphs."""
    return tuple(call.evaluate(call.get("then_branch" if bool(condition) else "else_branch"), {}))


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
        head, *out = call.evaluate(body, dict(zip(body.inputs, feeds, strict=True)))
        going, values = bool(head), out[: len(state)]
        scans.append(out[len(state) :])
        done += 1
    if going and done == LOOP_LIMIT:
        raise call.decline(f"a loop of more than {LOOP_LIMIT} rounds")
    return (*values, *(torch.stack(scan) for scan in zip(*scans, strict=True)))


CONTROL: dict[str, Callable[..., Any]] = {"If": branch, "Loop": loop}
