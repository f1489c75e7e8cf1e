"""`erf`: the effective receptive field of one target unit.

Protocols (target scalar; gradient to map; over images), each as published
-------------------------------------------------------------------------
energy (default, ours)
    random-sign combination of the unit's channels, whose squared gradient is unbiased for the sum
    over channels; square, sum over input channels, per pixel value in [0, 1]; mean. The maps of
    several weight sets are first scaled to mean 1 each (`normalise_members`).
kim2023 (Kim et al. 2023, arXiv 2108.13576)
    channel mean of the unit; mean over input channels, then ReLU; sum of per-image maps, scaled to
    sum 1. On token grids of even size the centre is the upper left of the four central tokens.
replknet2022 (Ding et al. 2022, arXiv 2203.06717)
    ReLU of the unit, summed over channels; ReLU per input channel, then sum; mean.
luo2016 (Luo et al. 2016, arXiv 1701.04128)
    the unit, one gradient of 1 (into all its channels); absolute value, mean over input channels;
    mean.
blocks (ours; see `blocks`)
    the map of energy, averaged within blocks of `block` x `block` pixels, from forward passes on
    the first `block_images` images; for models without gradients. The table `blocks` has the cost
    and the errors.

The unit is the central one, (floor(h/2), floor(w/2)), unless the setting `unit` names another
(row, column). The setting `grid` = n adds n x n units, spread evenly from border to border: their
maps (n, n, height, width), and a table with the sizes and offsets of each.

Metrics
-------
`sigma_x`, `sigma_y`, `center_x`, `center_y`, `r_squared`: Kim's Gaussian fit (see `gaussian`).
`luo_size`: square root of the number of pixels above 4.55 % of the peak (Luo et al.), the peak
being read on different samples from those it is found on (see `unbiased`), as noise would raise it.
`mass@f`: share of the map within f times the image's shorter side of the unit's geometric centre.
`radius`: root of the second moment about the centre of mass. `anisotropy`: root of the ratio of the
second-moment matrix's eigenvalues. `offset_y`, `offset_x`, `offset`: centre of mass minus the
unit's geometric centre (Araujo et al., Distill 2019). `area@t`: smallest square around the image's
centre that contains the share t of log10(1 + map), over the image's area (Ding et al.); not
scale-free. `erf_trf`: `luo_size` over the side of the theoretical receptive field, if that is
bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import InputError, PerimetryError
from ..base import Context, Measurement, Metric, Probe, Suite, require_at_least
from ..measuring.bootstrap import Bootstrap, bootstrap
from ..measuring.gradients import normalise_members, pixel_energy, require
from .blocks import block_maps
from .metrics import erf_metrics, gaussian_metrics, moment_metrics, size_metrics
from .protocols import BLOCKS, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..architecture.receptive_field import ReceptiveField
    from ..base import Array

UNIT_METRICS = ("luo_size", "radius", "offset_y", "offset_x")
"""The metrics in the table of a grid's units."""

Unit = tuple[int, int]


@dataclass(frozen=True)
class Erf(Suite):
    """The suite; its module's docstring is the definition. `unit` is (row, column) or None."""

    unit: Unit | None = None
    grid: int = 0
    block: int | None = field(default=None, metadata={"protocol": BLOCKS})
    block_images: int = field(default=4, metadata={"protocol": BLOCKS})
    name: ClassVar[str] = "erf"
    protocols: ClassVar[Mapping[str, str]] = {n: p.version for n, p in PROTOCOLS.items()}
    metrics: ClassVar[tuple[Metric, ...]] = erf_metrics()
    headline: ClassVar[str] = "luo_size"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "which pixels one unit of the target depends on"
    topic: ClassVar[str] = "Receptive field"
    captions: ClassVar[Mapping[str, str]] = {"units": "Unit by unit"}
    setting_help: ClassVar[Mapping[str, str]] = {
        "unit": "row,column of the target's unit; None for the central one",
        "grid": "also measure GRID x GRID units, from border to border; 0 for none",
        "block": "side in pixels of the blocks of protocol blocks; None for a default by size",
        "block_images": "number of images of protocol blocks",
    }

    def __post_init__(self) -> None:
        if self.grid < 0:
            raise InputError(f"erf.grid = {self.grid}; expected 0 (no grid) or units along a side")
        require_at_least(self, 1, "block", "block_images")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A spatial target is needed, and gradients except for `blocks`."""
        needs_gradients = PROTOCOLS[protocol].scalar is not None
        return (model.why_no_gradients if needs_gradients else None) or model.why_not_spatial

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """One gradient for each unit. Raises `InputError` if the target has no such unit."""
        units = [self.target_unit(model, protocol), *self.grid_units(model)]
        if PROTOCOLS[protocol].scalar is None:
            return ()
        return [_probe(model, protocol, unit, seed) for unit in dict.fromkeys(units)]

    def grid_units(self, model: Model) -> list[Unit]:
        """The units of the grid, row by row."""
        grid = require(model.target, "target")
        if self.grid > min(grid.height, grid.width):
            raise InputError(
                f"erf.grid = {self.grid} is more than the target's {grid.height} x {grid.width} "
                "units; expected at most the smaller of the two"
            )
        rows, columns = (
            np.linspace(0, side - 1, self.grid).round().astype(int).tolist()
            for side in (grid.height, grid.width)
        )
        return [(row, column) for row in rows for column in columns]

    def target_unit(self, model: Model, protocol: str) -> Unit:
        """The (row, column) of the unit that is measured in `model`."""
        grid = require(model.target, "target")
        if self.unit is None:
            return central_unit(grid, tokens_up_left=PROTOCOLS[protocol].tokens_up_left)
        row, column = self.unit
        if not (0 <= row < grid.height and 0 <= column < grid.width):
            raise InputError(
                f"unit {self.unit} is outside the target's {grid.height} x {grid.width} units "
                "(rows x columns, from 0)"
            )
        return self.unit

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Compute the metrics from the samples in `maps`, (samples, height, width)."""
        unit = self.target_unit(model, protocol)
        found = Measurement({})
        if protocol == BLOCKS:
            maps = self._by_blocks(model, context, found)
        if PROTOCOLS[protocol].normalised:
            own_maps = {n: m for n, m in maps.items() if n.startswith(f"erf/{protocol}/")}
            maps = {name: normalise_members(model, samples) for name, samples in own_maps.items()}
        samples = maps[_name(protocol, unit)]
        found.maps["erf"] = PROTOCOLS[protocol].finish(samples)
        resamples = bootstrap(len(samples), context.draws, context.seed)
        theory = _field(model, found)
        found.metrics.update(gaussian_metrics(samples, resamples))
        found.metrics.update(moment_metrics(samples, resamples, _centre(theory, unit)))
        found.metrics.update(size_metrics(samples, resamples, theory and theory.at(unit)))
        if self.grid:
            own = {place: maps[_name(protocol, place)] for place in self.grid_units(model)}
            found.tables["units"] = [_unit_row(u, s, resamples, theory) for u, s in own.items()]
            shown = np.stack([PROTOCOLS[protocol].finish(s) for s in own.values()])
            found.maps["units"] = shown.reshape(self.grid, self.grid, *shown.shape[1:])
        return found

    def _by_blocks(self, model: Model, context: Context, found: Measurement) -> Mapping[str, Array]:
        """Maps of all units without gradients; their cost and errors are added to `found`."""
        units = list(dict.fromkeys([self.target_unit(model, BLOCKS), *self.grid_units(model)]))
        made = block_maps(model, context, units, block=self.block, images=self.block_images)
        found.tables["blocks"] = [made.row]
        found.notes += made.notes
        return {_name(BLOCKS, unit): own for unit, own in made.maps.items()}


def _name(protocol: str, unit: Unit) -> str:
    return f"erf/{protocol}/{unit[0]},{unit[1]}"


def _probe(model: Model, protocol: str, unit: Unit, seed: int) -> Probe:
    row = PROTOCOLS[protocol]
    scalar = partial(row.unit_scalar, unit=unit, seed=seed)
    reduce = row.reduce or partial(pixel_energy, spec=model.spec)
    return Probe(_name(protocol, unit), scalar, reduce, silent=row.silent)


def _centre(field: ReceptiveField | None, unit: Unit) -> tuple[float, float] | None:
    return field.center(unit) if field else None


def _unit_row(
    unit: Unit, samples: Array, resamples: Bootstrap, field: ReceptiveField | None
) -> dict[str, Any]:
    """One unit of the grid: its place, and its sizes and offsets with their intervals."""
    found = moment_metrics(samples, resamples, _centre(field, unit))
    found |= size_metrics(samples, resamples, field and field.at(unit))
    row: dict[str, Any] = {"row": unit[0], "column": unit[1]}
    for name in UNIT_METRICS:
        row |= {name: found[name].value, f"{name}.low": found[name].low}
        row[f"{name}.high"] = found[name].high
    return row


def central_unit(grid: Grid, *, tokens_up_left: bool) -> Unit:
    """The unit (floor(h/2), floor(w/2)), or the upper left of the central four tokens."""
    lower = 1 if tokens_up_left and grid.kind != "NCHW" else 0
    return (grid.height - lower) // 2, (grid.width - lower) // 2


def _field(model: Model, found: Measurement) -> ReceptiveField | None:
    """The theoretical receptive field, or None and a note that says why it is unknown."""
    from ..architecture.receptive_field import model_receptive_field

    try:
        return model_receptive_field(model)
    except PerimetryError as error:
        found.notes.append(f"theoretical receptive field unknown: {error}")
        return None


ERF = Erf()
