"""One pass through an architecture in the energy domain, without weights, data or sampling.

Definition (ours). For independent zero-mean weights the expected squared Jacobian of a layer,
E (dy_o / dx_i)^2, is a matrix of its own, and these matrices multiply from layer to layer. So the
*expected sensitivity map* E sum_o (dF_o / dx_ij)^2 is the vector-Jacobian product of ones with a
network whose layers are replaced by their energy matrices:

- convolution, linear: every tap 1 / fan_in (its second moment); biases vanish. A fixed filter,
  which is no parameter: its taps squared. A weight with the attribute `tap_energy` (kernel height,
  kernel width): those second moments.
- normalisation: division by the detached mean energy. Batch and instance norm first subtract the
  mean over the map, so their gradient is divided by the variance: the energy minus the share that
  is constant over the map. That share is tracked: 0 behind such a norm, 1 / pi behind a ReLU after
  it (arc-cosine kernel), unchanged by random weights.
- ReLU and similar functions: 1/2 (1 behind another); then squared, 8 times its energy. A unit times
  a gate of itself: as an activation. Other saturating gates: constant
  1/4. Softmax: uniform, so attention is a mean over tokens; queries and keys contribute nothing.
- max-pool: 1 / window; maximum of n: 1 / n; in a row as one (see `maxima`). Mean over n: mean / n.
  Constant factors: their square. Additive constants vanish. Product of two activations: product of
  energies (its derivative is the product rule).
- interpolation: its coefficients squared.
- fixed functions of one tensor, in a row or in a sum: the coefficients of all of them together,
  squared (see `fixed_functions`).

With `paths=True` the same pass counts paths (Perone 2017; Alsallakh et al. 2021): all taps and
factors 1, activations and normalisations the identity, pools sum; one channel per layer.

Energies of all channels of a layer are equal unless branches were concatenated, so they are stored
once (see `compact`). Tensors that require a gradient are energies; all others are constants, kept
as amplitudes. Only the shapes of weights are needed; weights may be on the `meta` device.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointError

from ...adapters.errors import NotApplicableError, PerimetryError
from ...adapters.torch_calls import running_layers
from .compact import compress, widen
from .remarks import in_layer
from .rule_table import history_of, spans_of, with_constant_share, with_history
from .rules import (  # noqa: F401
    convolutions,
    elementwise,
    normalisation,
    pooling,
    products,
    resampling,
    reshaping,
)
from .span_rules import attention, einsum, joining, resizing, sliding, sums  # noqa: F401
from .spans import UnitSpans, pixel_spans, unit_spans
from .trace import EnergyTrace
from .windows import History

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .remarks import Approximation


def energy_map(
    skeleton: nn.Module,
    size: tuple[int, int, int],
    *,
    padded: Sequence[int | None] = (None,),
    approximate: dict[Approximation, None] | None = None,
) -> Tensor:
    """Expected sensitivity maps (variants, height, width): E over weights of sum_o (dF_o/dx)^2.

    `size` is (channels, height, width). In variant v the layer of index `padded[v]` has its kernel
    padded with a box. The scale is arbitrary. `approximate` is filled with the
    approximations that the map depends on: not those that lead to a gate or to a softmax alone.
    Raises `NotApplicableError` if an operation has no energy rule.
    """
    trace = EnergyTrace(padded=padded)
    x, target = run_skeleton(skeleton, size, trace)
    if approximate is not None:
        approximate |= trace.remarks.on_target(target, *trace.read_as_constants)
    return _vjp(x, target)


def path_count_map(
    skeleton: nn.Module, size: tuple[int, int, int]
) -> tuple[Tensor, EnergyTrace, UnitSpans]:
    """Number of paths from each pixel to the target (height, width), the trace, the units' fields.

    `size` is (channels, height, width). Every layer counts as one channel. Raises
    `NotApplicableError` if an operation has no energy rule.
    """
    trace = EnergyTrace(paths=True)
    x, target = run_skeleton(skeleton, size, trace)
    return _vjp(x, target)[0], trace, _units_of(target)


def _units_of(target: Tensor) -> UnitSpans:
    spans, history = spans_of(target), history_of(target)
    assert spans is not None  # noqa: S101 - `run_skeleton` gives targets that the input reaches
    assert history is not None  # noqa: S101 - set with the spans
    return unit_spans(spans, history)


def output_map(
    skeleton: nn.Module, size: tuple[int, int, int], *, paths: bool = False, padded: bool = False
) -> tuple[Tensor, EnergyTrace, UnitSpans | None]:
    """Expected energy of the target's units (rows, columns), the trace, and the units' fields.

    The input is white noise of energy 1; mean over channels. With `paths` the number of paths from
    the input to each unit, and their fields, else None; with `padded` every random kernel of a
    transposed convolution is first grown to a multiple of its stride. Raises `NotApplicableError`
    as `energy_map` does.
    """
    trace = EnergyTrace(paths=paths, padded_outputs=padded)
    _, target = run_skeleton(skeleton, size, trace)
    found = compress(target, [1]).detach().mean(1)[0]
    if not bool(found.isfinite().all()):
        raise NotApplicableError("the expected energy of the output overflows float64")
    return found, trace, _units_of(target) if paths else None


MOST_GATES = 3
"""Gates that a message names, the last ones."""


def run_skeleton(
    skeleton: nn.Module, size: tuple[int, int, int], trace: EnergyTrace
) -> tuple[Tensor, Tensor]:
    """Run `skeleton` under `trace` on an input of ones, size (channels, height, width).

    Returns the input (variants, 1, height, width), one channel in place of all, and the target
    (variants, channels, h, w). Raises `NotApplicableError` with the layer and the cause.
    """
    channels, height, width = size
    entries = len(trace.padded)
    x = torch.ones(entries, 1, height, width, dtype=torch.float64, requires_grad=True)
    wide = with_history(widen(x, (entries, channels, height, width)), History((height, width)))
    wide.in_pass = trace.number  # type: ignore[attr-defined]
    wide.spans = pixel_spans(wide.shape)  # type: ignore[attr-defined]
    with_constant_share(wide, torch.zeros(entries, dtype=torch.float64))
    skeleton.requires_grad_(False).double()
    layers = getattr(skeleton, "body", skeleton)
    with running_layers(layers, trace.running, keep_failed=True), one_thread():
        target = _forward(skeleton, wide, trace)
    if not (isinstance(target, Tensor) and target.requires_grad):
        last = list(trace.remarks.gates)[-MOST_GATES:]
        named = f" ({', '.join(last)})" if last else ""
        raise NotApplicableError(
            f"the input reaches the target only through gates{named}, which pass no energy"
        )
    loss = trace.remarks.loss(target)
    if loss is not None:
        raise NotApplicableError(loss)
    return x, target


def _forward(skeleton: nn.Module, x: Tensor, trace: EnergyTrace) -> Tensor:
    as_before = torch.set_grad_enabled(torch.is_grad_enabled())  # exported no_grad leaves it off
    try:
        with as_before, trace:
            target = trace.finished(skeleton(x))
    except PerimetryError:
        raise
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        where = in_layer(trace.layer_name) or " outside of its layers"
        raise NotApplicableError(f"the forward pass failed{where}: {what}") from error
    finally:
        trace.let_go()
    return target  # type: ignore[no-any-return]


def _vjp(x: Tensor, target: Tensor) -> Tensor:
    target = compress(target, [1])
    try:
        with one_thread():
            (gradient,) = torch.autograd.grad(target, x, torch.ones_like(target), allow_unused=True)
    except CheckpointError as error:
        raise NotApplicableError(
            "a part of the network is computed again in the backward pass "
            "(torch.utils.checkpoint), where energies cannot follow it"
        ) from error
    if gradient is None:
        raise NotApplicableError(
            "the target does not depend on the image of this pass: the network keeps tensors of an "
            "earlier one"
        )
    if not bool(gradient.isfinite().all()):
        raise NotApplicableError("the expected sensitivity overflows float64")
    return gradient.detach().squeeze(1)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread: for small tensors the overhead of more exceeds the work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
