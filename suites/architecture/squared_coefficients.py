"""The squared coefficients of a fixed linear function of maps, read off probes.

A probe is a map of zeros with a few numbers so far apart that no output reads two of them: what an
output returns is then one coefficient times one number.
"""

from __future__ import annotations

import math
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Function = Callable[[Tensor], Tensor]

FEW = 16
"""Most outputs that are read one by one, whatever they read."""

LARGEST = 1 << 24
"""Most numbers in the probes of one reading."""


def squared_coefficients(
    function: Function, axis: int, have: Sequence[int], wanted: Sequence[int]
) -> Tensor | None:
    """Squares (outputs, inputs), sparse, of the coefficients of `function`; None if out of reach.

    It maps tensors with the axes (batch, channels, *have), the channels moved to `axis`, to those
    with the axes (batch, channels, *wanted). Out of reach are functions of several channels, those
    made for one number of images or channels, and those that need more than `LARGEST` numbers.
    """
    inputs, outputs = math.prod(have), math.prod(wanted)
    if outputs <= FEW:
        return _squared_rows(function, axis, have, wanted)
    spacing = 4
    while True:
        steps = [min(spacing, n) for n in have]
        if 2 * math.prod(steps) * max(inputs, outputs) > LARGEST:
            return None
        readings = _read(function, axis, have, wanted, steps)
        if readings is None:
            return None
        found = _coefficients(*readings)
        if found is not None or steps == list(have):
            break
        spacing *= 2
    if found is None:
        return None
    coefficients, places = found
    probe, output = coefficients.nonzero(as_tuple=True)
    entries = torch.stack([output, places[probe, output]])
    squares = coefficients[probe, output] ** 2
    return torch.sparse_coo_tensor(entries, squares, (outputs, inputs), check_invariants=True)


def _squared_rows(
    function: Function, axis: int, have: Sequence[int], wanted: Sequence[int]
) -> Tensor | None:
    """The same for few outputs, each by one backward pass."""
    x = torch.zeros(2, *have, dtype=torch.float64, requires_grad=True)
    with torch.enable_grad():
        out = _call(function, x.movedim(0, axis - 1)[None])
    if out is None or out.shape != (1, 2, *wanted):
        return None
    rows = [torch.autograd.grad(one, x, retain_graph=True)[0] for one in out[0, 0].reshape(-1)]
    both = torch.stack(rows)
    return None if bool(both[:, 1].any()) else (both[:, 0].flatten(1) ** 2).to_sparse()


def _call(function: Function, x: Tensor) -> Tensor | None:
    """`function(x)`; None if it was made for another number of images or channels."""
    try:
        return function(x)
    except (RuntimeError, IndexError, TypeError, ValueError):
        return None


Readings = tuple[Tensor, Tensor, Tensor, Tensor]


def _read(
    function: Function,
    axis: int,
    have: Sequence[int],
    wanted: Sequence[int],
    steps: Sequence[int],
) -> Readings | None:
    """Results (probes, outputs) for ones, for places and for random numbers; and these numbers.

    A second channel, of zeros, has to stay one.
    """
    places = torch.arange(1, math.prod(have) + 1, dtype=torch.float64)
    generator = torch.Generator().manual_seed(0)
    numbers = 1 + torch.rand(places.shape, generator=generator, dtype=torch.float64)
    results = []
    for values in (torch.ones_like(places), places, numbers):
        probes = _probes(values.view(*have), steps)
        x = torch.stack([probes, torch.zeros_like(probes)], axis)
        out = _call(function, x)
        if out is None or out.shape != (len(probes), 2, *wanted) or bool(out[:, 1].any()):
            return None
        results.append(out[:, 0].flatten(1))
    ones, of_places, of_numbers = results
    return ones, of_places, of_numbers, numbers


def _probes(values: Tensor, steps: Sequence[int]) -> Tensor:
    """Maps (probes, *axes of `values`) that together hold each value once, every `steps` units."""
    probes = values.new_zeros(math.prod(steps), *values.shape)
    for probe, start in zip(probes, product(*map(range, steps)), strict=True):
        grid = tuple(slice(s, None, step) for s, step in zip(start, steps, strict=True))
        probe[grid] = values[grid]
    return probes


def _coefficients(
    ones: Tensor, of_places: Tensor, of_numbers: Tensor, numbers: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Coefficients and the places that they belong to (probes, outputs), see `_read`.

    None where an output reads several values of one probe: the random numbers do not fit.
    """
    least = 1e-12 * float(ones.abs().max())
    some = ones.abs() > least
    places = torch.where(some, of_places / torch.where(some, ones, 1.0), 1.0).round().long() - 1
    inside = (places >= 0) & (places < len(numbers))
    places = places.clamp(0, len(numbers) - 1)
    misfit = (of_numbers - torch.where(some, ones * numbers[places], 0.0)).abs()
    if not bool((inside & (misfit <= 1e-9 * ones.abs() + least)).all()):
        return None
    return torch.where(some, ones, 0.0), places
