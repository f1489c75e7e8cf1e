"""Energy rules of functions that resample a map at fixed places."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ....adapters.errors import NotApplicableError
from ....adapters.torch_calls import Interpolation, each_axis
from ..compact import compress, equal_axes, widen
from ..rule_table import history_of, is_energy, rule, spans_of, with_history

if TYPE_CHECKING:
    from ..trace import EnergyTrace


@rule("interpolate", "upsample", reads=Interpolation)
def _interpolate(trace: EnergyTrace, call: Interpolation) -> Tensor:
    """Each unit is a fixed combination of units: its coefficients squared, axis by axis."""
    x = call.input
    out = compress(x, [d for d in equal_axes(x) if d < 2]).to(torch.float64)
    for axis, matrix in enumerate(interpolation_matrices(call), start=2):
        energies = (matrix != 0).to(out) if trace.paths else matrix**2
        out = (out.movedim(axis, -1) @ energies.T).movedim(-1, axis)
    out = widen(out, (*x.shape[:2], *out.shape[2:]))
    found = history_of(x)
    if found is None or x.ndim != 4:
        return out
    found = found.regridded((x.shape[2], x.shape[3]))
    return with_history(out, found.resized((out.shape[2], out.shape[3])))


def interpolation_matrices(call: Interpolation) -> list[Tensor]:
    """The coefficients (outputs, inputs) of an interpolation along each of its axes."""
    have = call.input.shape[2:]
    mode = {"linear": "bilinear", "trilinear": "bilinear"}.get(call.mode, call.mode)
    sizes, scales = each_axis(call.size, len(have)), each_axis(call.scale_factor, len(have))
    matrices = []
    for n, wanted, scale in zip(have, sizes, scales, strict=True):
        # (inputs, 1, inputs, 2); torch 2.15 misreads maps of one column when it removes aliasing
        lines = torch.eye(n, dtype=torch.float64)[:, None, :, None].repeat(1, 1, 1, 2)
        out = F.interpolate(
            lines,
            size=None if wanted is None else (int(wanted), 2),
            # torch samples at steps of 1 / scale, which are not the ratio of the rounded sizes
            scale_factor=None if wanted is not None else (float(scale), 1.0),
            mode=mode,
            align_corners=call.align_corners,
            recompute_scale_factor=call.recompute_scale_factor if wanted is None else None,
            antialias=call.antialias,
        )
        matrices.append(out[:, 0, :, 0].T)
    return matrices


LARGEST_SAMPLING = 1 << 24
"""Most coefficients of a `grid_sample` that are computed."""


@rule("grid_sample")
def _grid_sample(
    trace: EnergyTrace,
    input: Tensor,  # noqa: A002 - torch's name
    grid: Tensor,
    *args: Any,
    **kwargs: Any,
) -> Tensor:
    """A fixed grid gives fixed combinations of units: their coefficients squared."""
    matrix = sampling_matrix(input, grid, *args, **kwargs)
    energies = (matrix != 0).to(matrix) if trace.paths else matrix**2
    small = compress(input, [1])
    out = (small.flatten(2) @ energies.T).unflatten(2, grid.shape[1:3])
    return widen(out, (*input.shape[:2], *out.shape[2:]))


def sampling_matrix(input: Tensor, grid: Tensor, *args: Any, **kwargs: Any) -> Tensor:  # noqa: A002
    """The coefficients (outputs, inputs) of `F.grid_sample` on a flattened map.

    Raises `NotApplicableError` if the grid depends on the image or differs within the batch.
    """
    if spans_of(grid) is not None or is_energy(grid):
        raise NotApplicableError("the places that it samples depend on the image")
    if grid.ndim != 4 or bool((grid != grid[:1]).any()):
        raise NotApplicableError("it samples volumes, or other places in each image of a batch")
    rows, columns = input.shape[2:]
    count, outputs = rows * columns, grid.shape[1] * grid.shape[2]
    if count * outputs > LARGEST_SAMPLING:
        raise NotApplicableError(f"a map of {rows} x {columns} units is too large for its rule")
    units = torch.eye(count, dtype=torch.float64).view(1, count, rows, columns)
    out = F.grid_sample(units, grid[:1].to(torch.float64), *args, **kwargs)
    return out.view(count, outputs).T
