"""`erf`: the effective receptive field of one target unit.

Protocols (target scalar; gradient to map; over images), each as published
-------------------------------------------------------------------------
energy (default, ours)
    random-sign combination of the unit's channels, so that its square is unbiased for the sum over
    channels; square, sum over input channels, per pixel value in [0, 1]; mean, over several weight
    sets of their maps scaled to mean 1 each (`normalise_members`).
kim2023 (Kim et al. 2023, arXiv 2108.13576)
    channel mean of the unit; mean over input channels, then ReLU; sum of per-image maps, scaled to
    sum 1. On token grids of even size the centre is the upper left of the four central tokens.
replknet2022 (Ding et al. 2022, arXiv 2203.06717)
    ReLU of the unit, summed over channels; ReLU per input channel, then sum; mean.
luo2016 (Luo et al. 2016, arXiv 1701.04128)
    the unit, one gradient of 1 (into all its channels); absolute value, mean over input channels;
    mean.
blocks (ours; see `blocks`)
    the map of energy, averaged within blocks of `block` x `block` pixels, by forward passes alone
    over the first `block_images` images; for models without gradients. The table `blocks` has its
    cost and its errors.

The unit is the central one, (floor(h/2), floor(w/2)), unless the setting `unit` names another
(row, column). The setting `grid` = n adds n x n units, spread evenly from border to border: their
maps (n, n, height, width), and a table with the sizes and offsets of each.

Metrics
-------
`sigma_x`, `sigma_y`, `center_x`, `center_y`, `r_squared`: Kim's Gaussian fit (see `gaussian`).
`luo_size`: square root of the number of pixels above 4.55 % of the peak (Luo et al.), the peak
being read on other samples than it is found on (see `unbiased`): noise would raise it.
`mass@f`: share of the map within f times the image's shorter side of the unit's geometric centre.
`radius`: root of the second moment about the centre of mass. `anisotropy`: root of the ratio of the
second-moment matrix's eigenvalues. `offset_y`, `offset_x`, `offset`: centre of mass less the unit's
geometric centre (Araujo et al., Distill 2019). `area@t`: smallest square about the image's centre
that holds the share t of log10(1 + map), over the image's area (Ding et al.); it is not scale-free.
`erf_trf`: `luo_size` over the side of the theoretical receptive field, where that is bounded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import InputError, PerimetryError
from ..architecture.receptive_field import ReceptiveField, model_receptive_field
from ..base import Context, Measurement, Metric, Probe, Suite
from ..measuring.bootstrap import Bootstrap, bootstrap
from ..measuring.gradients import normalise_members, pixel_energy, random_signs, require
from .blocks import block_maps
from .metrics import erf_metrics, gaussian_metrics, moment_metrics, size_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model, Outputs
    from ..base import Array

BLOCKS = "blocks"

STREAM = 2

CANCELLED = 1e-5
"""Share of the sum of magnitudes below which a sum of channels is rounding noise."""

CHANNELS_CANCEL = (
    "the target is constant, or the unit's channels always sum to 0, as behind a layer norm whose "
    "scales are all 1, and there would be rounding noise alone; use the protocol energy"
)


@dataclass(frozen=True)
class ErfProtocol:
    """One way to measure: what is differentiated, and how the gradients become the map.

    `scalar` takes the unit's channels (batch, channels), times random signs if `signed`, and gives
    the sum over the batch of the target scalar; None for a protocol that takes no gradients.
    `reduce` takes gradients (batch, channels, height, width) to (batch, height, width); None stands
    for `pixel_energy`. `finish` takes the samples (samples, height, width) to the published map.
    """

    scalar: Callable[[Tensor], Tensor] | None
    reduce: Callable[[Tensor], Tensor] | None
    finish: Callable[[Array], Array]
    version: str
    signed: bool = False
    normalised: bool = False
    """Whether the maps of several weight sets are scaled to mean 1 (`normalise_members`)."""
    tokens_up_left: bool = False
    silent: str = "the target is constant"


def _sum(channels: Tensor) -> Tensor:
    return channels.sum()


def _uncancelled_sum(channels: Tensor) -> Tensor:
    """The sum over channels and batch; 0 where the channels of every image cancel.

    By a factor of 0 or 1: to branch on a number would make a GPU wait for it.
    """
    total = channels.sum(1)
    cancelled = (total.abs() < CANCELLED * channels.abs().sum(1)).all()
    return (total * (~cancelled).to(total.dtype).detach()).sum()


def _uncancelled_mean(channels: Tensor) -> Tensor:
    return _uncancelled_sum(channels) / channels.shape[1]


def _positive_sum(channels: Tensor) -> Tensor:
    return channels.relu().sum()


def _reduce_positive_mean(gradient: Tensor) -> Tensor:
    return gradient.mean(1).relu()


def _reduce_positive_sum(gradient: Tensor) -> Tensor:
    return gradient.relu().sum(1)


def _reduce_absolute_mean(gradient: Tensor) -> Tensor:
    return gradient.abs().mean(1)


def _mean(samples: Array) -> Array:
    mean: Array = samples.mean(0)
    return mean


def _share_of_sum(samples: Array) -> Array:
    mean = _mean(samples)
    share: Array = mean / mean.sum()
    return share


PROTOCOLS: Mapping[str, ErfProtocol] = {
    "energy": ErfProtocol(_sum, None, _mean, "1", signed=True, normalised=True),
    "kim2023": ErfProtocol(
        _uncancelled_mean,
        _reduce_positive_mean,
        _share_of_sum,
        "1",
        tokens_up_left=True,
        silent=CHANNELS_CANCEL,
    ),
    "replknet2022": ErfProtocol(_positive_sum, _reduce_positive_sum, _mean, "1"),
    "luo2016": ErfProtocol(
        _uncancelled_sum, _reduce_absolute_mean, _mean, "1", silent=CHANNELS_CANCEL
    ),
    BLOCKS: ErfProtocol(None, None, _mean, "1", normalised=True),
}
"""The published protocols as rows of one table; the module's docstring has their sources."""

UNIT_METRICS = ("luo_size", "radius", "offset_y", "offset_x")
"""What is told of every unit of a grid."""

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

    def __post_init__(self) -> None:
        if self.grid < 0:
            raise InputError(f"erf.grid = {self.grid}; expected 0 (no grid) or units along a side")
        for name in ("block", "block_images"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise InputError(f"erf.{name} = {getattr(self, name)}; expected at least 1")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A spatial target is needed, and gradients but for `blocks`."""
        needs_gradients = PROTOCOLS[protocol].scalar is not None
        return (model.why_no_gradients if needs_gradients else None) or model.why_not_spatial

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """One backward pass a unit. Raises `InputError` when the target has no such unit."""
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
        """The (row, column) of the unit that is audited in `model`."""
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
        """Read the metrics off `maps[...]` (samples, height, width)."""
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
        found.metrics.update(size_metrics(samples, resamples, theory))
        if self.grid:
            own = {place: maps[_name(protocol, place)] for place in self.grid_units(model)}
            found.tables["units"] = [_unit_row(u, s, resamples, theory) for u, s in own.items()]
            shown = np.stack([PROTOCOLS[protocol].finish(s) for s in own.values()])
            found.maps["units"] = shown.reshape(self.grid, self.grid, *shown.shape[1:])
        return found

    def _by_blocks(self, model: Model, context: Context, found: Measurement) -> Mapping[str, Array]:
        """What stands for the gradients of all units; its cost and errors go into `found`."""
        units = list(dict.fromkeys([self.target_unit(model, BLOCKS), *self.grid_units(model)]))
        made = block_maps(model, context, units, block=self.block, images=self.block_images)
        found.tables["blocks"] = [made.row]
        found.notes += made.notes
        return {_name(BLOCKS, unit): own for unit, own in made.maps.items()}


def _name(protocol: str, unit: Unit) -> str:
    return f"erf/{protocol}/{unit[0]},{unit[1]}"


def _probe(model: Model, protocol: str, unit: Unit, seed: int) -> Probe:
    row = PROTOCOLS[protocol]
    scalar = partial(_unit_scalar, protocol=row, unit=unit, seed=seed)
    reduce = row.reduce or partial(pixel_energy, spec=model.spec)
    return Probe(_name(protocol, unit), scalar, reduce, silent=row.silent)


def _unit_scalar(
    outputs: Outputs, indices: Sequence[int], *, protocol: ErfProtocol, unit: Unit, seed: int
) -> Tensor:
    channels = require(outputs.target, "target")[:, :, unit[0], unit[1]]
    if protocol.signed:
        channels = channels * random_signs(channels, indices, seed=seed, stream=STREAM)
    scalar = require(protocol.scalar, "gradient")
    return scalar(channels)


def _centre(field: ReceptiveField | None, unit: Unit) -> tuple[float, float] | None:
    return field.center(unit) if field else None


def _unit_row(
    unit: Unit, samples: Array, resamples: Bootstrap, field: ReceptiveField | None
) -> dict[str, Any]:
    """One unit of the grid: its place, and its sizes and offsets with their intervals."""
    found = moment_metrics(samples, resamples, _centre(field, unit))
    found |= size_metrics(samples, resamples, field)
    row: dict[str, Any] = {"row": unit[0], "column": unit[1]}
    for name in UNIT_METRICS:
        row |= {name: found[name].value, f"{name}.low": found[name].low}
        row[f"{name}.high"] = found[name].high
    return row


def central_unit(grid: Grid, *, tokens_up_left: bool) -> Unit:
    """The unit (floor(h/2), floor(w/2)); for tokens, Kim's upper left of the central four."""
    lower = 1 if tokens_up_left and grid.kind != "NCHW" else 0
    return (grid.height - lower) // 2, (grid.width - lower) // 2


def _field(model: Model, found: Measurement) -> ReceptiveField | None:
    """Give the theoretical receptive field, or None with a note that says why it is unknown."""
    try:
        return model_receptive_field(model)
    except PerimetryError as error:
        found.notes.append(f"theoretical receptive field unknown: {error}")
        return None


ERF = Erf()
