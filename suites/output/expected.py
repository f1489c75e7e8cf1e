"""The exact part: paths to each unit of the output, and its expected energy over random weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...adapters.errors import NotApplicableError, PerimetryError
from ...adapters.model import ModelOfScales
from ..measuring import phases
from ..measuring.output_view import at_output, map_of

if TYPE_CHECKING:
    from ...adapters.feature_grid import Grid
    from ...adapters.model import Model
    from ..architecture.spans import UnitSpans
    from ..architecture.windows import Upsampling
    from ..base import Array

Pair = phases.Pair


def coarsest_map(model: Model) -> Grid | None:
    """The coarsest map on the way to the output, or None where that is the image itself."""
    scales = model.scales() if isinstance(model, ModelOfScales) else []
    return scales[-1] if scales else model.target


def upsampling(model: Model) -> Pair:
    """Units of the output per unit of the coarsest map, along (rows, columns).

    Raises `NotApplicableError` where that is no whole number, or 1 along both axes.
    """
    from ..architecture.receptive_field import total_stride

    view, coarse, spec = at_output(model), coarsest_map(model), model.spec
    out, pixels = map_of(view), (spec.height, spec.width)
    units = pixels if coarse is None else (coarse.height, coarse.width)
    axes = zip((out.height, out.width), units, strict=True)
    ratios = [n // m if n % m == 0 else None for n, m in axes]
    if None in ratios:
        strides = (1.0, 1.0)
        if coarse is not None and isinstance(model, ModelOfScales):
            strides = total_stride(model.at(coarse))
        ratios = _by_fields(view, strides)
    if None in ratios:
        raise NotApplicableError(
            f"the output of {out.height} x {out.width} units is not a whole number of times as "
            f"fine as the coarsest map of {units[0]} x {units[1]}, so there are no phases; the "
            "setting output.period names one"
        )
    if ratios == [1, 1]:
        raise NotApplicableError(
            f"the measured map {out.name!a} is as coarse as the coarsest map, of {units[0]} x "
            f"{units[1]} units: nothing is upsampled"
        )
    return ratios[0] or 1, ratios[1] or 1


def _by_fields(view: Model, strides: tuple[float, float]) -> list[int | None]:
    """The strides over the pixels per unit of the output, where maps are cut off at borders."""
    from ..architecture.receptive_field import field_period, traced

    spec = view.spec
    try:
        _, units = traced(view)
        found = [field_period(units, axis, n) for axis, n in enumerate((spec.height, spec.width))]
    except NotApplicableError:
        return [None, None]
    ratios = [s / f.per_unit if f else 0.5 for s, f in zip(strides, found, strict=True)]
    return [round(r) if r >= 1 and r == round(r) else None for r in ratios]


@dataclass(frozen=True)
class Expected:
    """Phase profiles (phase row, phase column) of paths, of energy, and of energy when padded."""

    paths: Array
    energy: Array
    padded: Array
    layers: list[Upsampling]

    def table(self) -> list[dict[str, Any]]:
        """A row for each transposed convolution: kernel, stride, taps by output phase."""
        rows = []
        for layer in self.layers:
            along_rows, along_columns = layer.counts()
            rows.append(
                {
                    "name": layer.name,
                    "kernel": layer.kernel,
                    "stride": layer.stride,
                    "taps_rows": tuple(along_rows),
                    "taps_columns": tuple(along_columns),
                    "padded_kernel": layer.padded,
                }
            )
        return rows


MAGNIFIED = (1, 2, 4)
"""Sizes of the input that are tried, in multiples of the model's own."""


def expected_output(model: Model, period: Pair) -> Expected:
    """What the architecture implies for the output of `model`, by phases of `period`.

    The profile is that of the central cell of the upsampling, folded to `period`, of an input large
    enough that the cell's fields do not leave the image; where the model takes no such input, that
    of the map. Raises `NotApplicableError` if the architecture cannot be traced.
    """
    whole = _whole_cell(model, period)
    for times in MAGNIFIED:
        try:
            larger = _times(model, times)
        except PerimetryError:
            break
        found = _traced(larger, period, whole)
        if found is not None:
            return found
    found = _traced(model, period, None)
    assert found is not None  # noqa: S101 - only a central cell may be missing
    return found


def _whole_cell(model: Model, period: Pair) -> Pair:
    """The cell of the upsampling where `period` divides it, else `period`."""
    try:
        whole = upsampling(model)
    except NotApplicableError:
        return period
    return whole if all(n % p == 0 for n, p in zip(whole, period, strict=True)) else period


def _times(model: Model, times: int) -> Model:
    spec = model.spec
    return model.resized(times * spec.height, times * spec.width) if times > 1 else model


def _traced(model: Model, period: Pair, whole: Pair | None) -> Expected | None:
    """The profiles at the size of `model`, of the map or of the central cell of `whole` units.

    None if the fields of that cell leave the image.
    """
    from ..architecture.propagate import output_map

    view, spec = at_output(model), model.spec
    size = spec.shape
    paths, trace, units = output_map(view.skeleton(), size, paths=True)
    pixels = (spec.height, spec.width)
    cell = _central_cell(units, pixels, whole) if whole is not None and units else None
    if whole is not None and cell is None:
        return None
    energy, _, _ = output_map(view.skeleton(), size)
    padded, _, _ = output_map(view.skeleton(), size, padded=True)
    a, b, c = (_profile(m.numpy(), period, cell) for m in (paths, energy, padded))
    return Expected(a, b, c, trace.upsamplings)


def _profile(values: Array, period: Pair, cell: tuple[slice, slice] | None) -> Array:
    """The profile of a map (rows, columns): its `cell` over the mean, or that of the interior."""
    if cell is None:
        interior: Array = phases.phase_profile(values[None], period)[0]
        return interior
    found: Array = values[cell]
    if not found.any():
        raise NotApplicableError("no path leads to the central units of the output")
    return phases.fold(found / found.mean(), period)


def _central_cell(units: UnitSpans, pixels: Pair, period: Pair) -> tuple[slice, slice] | None:
    """The central period of units, if all its fields are inside the image."""
    cell = []
    for n, p in zip(units.low.shape[1:], period, strict=True):
        start = n // 2 // p * p
        cell.append(slice(start, start + p))
    rows, columns = cell
    for low, high, size in zip(units.low, units.high, pixels, strict=True):
        inside = (low[rows, columns] >= 0) & (high[rows, columns] < size)
        if inside.shape != period or not inside.all():
            return None
    return rows, columns
