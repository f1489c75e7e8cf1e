"""Theoretical receptive field, layer table and uneven padding, from one traced pass.

Receptive field (Araujo et al., Distill 2019): from layer to layer r <- r + (k_eff - 1) S,
S <- s S, pad <- pad + p S; where branches join, the union of their intervals. Centre of unit i:
-pad + i S + (r - 1) / 2. Attention, squeeze-excitation and means over a map make it *global*; the
interval is then that of the local path. Attention within windows reads its windows, from the first
to the last token that no mask excludes.

Uneven padding (Alsallakh et al., ICLR 2021): a window (k, s, d) on n units is even if and only if
(n + p_before + p_after - d (k - 1) - 1) mod s = 0; the remainder counts the units at the end that
are never read. They are padding first, as far as there is any, and then pixels.

Period of the fields: after how many units they repeat, moved on. Behind an upsampling neighbouring
units have fields that differ in size and place, and repeat from one unit of the coarser map to the
next. Fields that leave the image are cut off at its border; where that disturbs the period, only
those inside the image are looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ..measuring import phases
from .propagate import path_count_map
from .spans import UnitSpans
from .windows import Layer, LayerWindow, Pair

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from torch import Tensor, nn

    from ...adapters.model import Model
    from ..base import Array
    from .spans import UnitSpans


@dataclass(frozen=True)
class ReceptiveField:
    """The theoretical receptive field of the target's units, in pixels along (rows, columns).

    `size` is that of the central unit (floor(h/2), floor(w/2)), which starts at `start + i *
    stride`, as every unit i does if their fields are evenly spaced; `global_` if other paths reach
    all pixels. Pixels at its edge that a fixed mask removes do not count in `size`.
    """

    size: tuple[float, float]
    stride: tuple[float, float]
    start: tuple[float, float]
    global_: bool
    units: UnitSpans = field(repr=False, compare=False)

    def center(self, unit: Pair) -> tuple[float, float]:
        """Geometric centre of `unit` (row, column), in pixels; 0 is the centre of the first."""
        low, high = (ends[(slice(None), *unit)] for ends in (self.units.low, self.units.high))
        return float(low[0] + high[0]) / 2, float(low[1] + high[1]) / 2

    def at(self, unit: Pair) -> ReceptiveField:
        """The same with the size of the field of `unit` (row, column)."""
        rows, columns = self.units.size[(slice(None), *unit)]
        return replace(self, size=(float(rows), float(columns)))


def receptive_field(skeleton: nn.Module, x: Tensor) -> ReceptiveField:
    """Theoretical receptive field of the units of `skeleton`'s target.

    `x` (1, channels, height, width) gives the input's size. Raises `NotApplicableError` if no local
    path leads to the target, or if the pass cannot be traced.
    """
    _, _, found = path_count_map(skeleton, _size(x))
    return summarise_field(found)


_TRACED: WeakKeyDictionary[Model, tuple[list[Layer], UnitSpans]] = WeakKeyDictionary()


def traced(model: Model) -> tuple[list[Layer], UnitSpans]:
    """The layers of `model` in execution order, and the fields of its target's units.

    Kept as long as the model exists. Raises `NotApplicableError` if it cannot be traced.
    """
    if model not in _TRACED:
        _, trace, units = path_count_map(model.skeleton(), model.spec.shape)
        _TRACED[model] = trace.layers, units
    return _TRACED[model]


def model_receptive_field(model: Model) -> ReceptiveField:
    """Theoretical receptive field of the units of `model`'s target.

    Raises `NotApplicableError` as `receptive_field` does.
    """
    return summarise_field(traced(model)[1])


def summarise_field(units: UnitSpans) -> ReceptiveField:
    """The receptive field of the central unit.

    Raises `NotApplicableError` if only global paths lead to it, or it reads removed pixels alone.
    """
    if not units.known():
        raise NotApplicableError(
            "a fixed mask removes all pixels that the central unit reads"
            if units.masked()
            else "only global paths lead from the input to the target"
        )
    low, size = (of_units[(slice(None), *units.central)] for of_units in (units.low, units.size))
    rows, columns = map(float, size)
    stride = units.steps()
    top, left = (float(a) - i * s for a, i, s in zip(low, units.central, stride, strict=True))
    return ReceptiveField((rows, columns), stride, (top, left), units.everywhere, units)


def layer_table(skeleton: nn.Module, x: Tensor) -> list[Layer]:
    """List all convolutions and poolings of `skeleton` in execution order.

    `x` (1, channels, height, width) gives the input's size. Raises `NotApplicableError`.
    """
    return path_count_map(skeleton, _size(x))[1].layers


def _size(x: Tensor) -> tuple[int, int, int]:
    return x.shape[1], x.shape[2], x.shape[3]


def uneven_layers(layers: Iterable[Layer]) -> list[tuple[Layer, Pair]]:
    """The strided layers with padding that no window reads, and the unread units per axis."""
    found = []
    for layer in layers:
        rows, columns = (
            w.unread_padding(n) for w, n in zip(layer.windows, layer.input_size, strict=True)
        )
        if rows or columns:
            found.append((layer, (rows, columns)))
    return found


def cropping_layers(layers: Iterable[Layer]) -> list[Layer]:
    """The strided layers that leave units of the map at its end unread, which are not padding."""
    return [
        layer
        for layer in layers
        if any(w.unread_units(n) for w, n in zip(layer.windows, layer.input_size, strict=True))
    ]


def uneven_rows(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """A table of the uneven layers: name, input size, unread rows and columns."""
    return [
        {"name": layer.name, "input": layer.input_size, "rows": rows, "columns": columns}
        for layer, (rows, columns) in uneven_layers(layers)
    ]


def even_sizes(layers: Sequence[Layer], size: Pair, reach: Pair) -> tuple[list[int], list[int]]:
    """Input sizes within `reach` of `size` at which no layer leaves padding or pixels unread.

    They follow from the layer table alone; the network need not accept them.
    """
    found = []
    for axis, (s, r) in enumerate(zip(size, reach, strict=True)):
        chains = {
            (layer.sources[axis], layer.windows[axis])
            for layer in layers
            if layer.windows[axis].stride > 1
        }
        found.append([n for n in range(max(1, s - r), s + r + 1) if _all_even(chains, n)])
    return found[0], found[1]


def nearest_even_sizes(
    layers: Sequence[Layer], size: Pair, strides: Pair
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The even sizes next to `size`, at most one below or at it and one above, per axis.

    They are searched within two `strides` of `size`.
    """
    found = []
    for numbers, n in zip(
        even_sizes(layers, size, (2 * strides[0], 2 * strides[1])), size, strict=True
    ):
        below, above = [m for m in numbers if m <= n], [m for m in numbers if m > n]
        found.append((*below[-1:], *above[:1]))
    return found[0], found[1]


def _all_even(chains: Iterable[tuple[tuple[LayerWindow, ...], LayerWindow]], n: int) -> bool:
    for sources, window in chains:
        size = n
        for source in sources:
            size = source.size(size)
        if size < 1 or window.size(size) < 1 or window.remainder(size):
            return False
    return True


def total_stride(model: Model) -> tuple[float, float]:
    """Total stride from input to target along (rows, columns), in pixels.

    It is the distance of the units' receptive fields, and no whole number if the network resizes a
    map by a fraction. Pixels divided by units may be another number, since every strided layer
    rounds its grid (9 units of stride 32 cover 260 pixels; 4 of stride 64, 224); that ratio is used
    only if the network cannot be traced. Units that only global paths reach have a stride, too.
    """
    target, spec = model.target, model.spec
    if target is None:
        raise ValueError("a stride needs a spatial target: call `skip` first")
    if untraced(model) is None:
        return traced(model)[1].stride()
    return spec.height / target.height, spec.width / target.width


def untraced(model: Model) -> str | None:
    """Why `total_stride` is pixels over units; None if the network can be traced."""
    try:
        traced(model)
    except PerimetryError as error:
        return str(error)
    return None


def target_stride(model: Model) -> phases.Pair:
    """The total stride rounded to whole pixels, for window sizes; phases need `total_stride`."""
    rows, columns = total_stride(model)
    return max(1, round(rows)), max(1, round(columns))


NO_PERIOD = (
    "the receptive fields do not repeat from cell to cell, as behind a resize by a fraction or an "
    "adaptive pool"
)


@dataclass(frozen=True)
class FieldPeriod:
    """Fields of the units `place` (units,) from pixel `low` to `high`, which repeat.

    They do so after `period` units of `per_unit` pixels each.
    """

    place: Array
    low: Array
    high: Array
    period: int
    per_unit: float


def field_period(units: UnitSpans, axis: int, pixels: int, least: int = 1) -> FieldPeriod | None:
    """The period along `axis` (0 rows, 1 columns) of an image of `pixels`.

    None if fewer than two cells of `least` pixels have fields inside the image. Raises
    `NotApplicableError` where the fields do not repeat.
    """
    low, high = np.min(units.low[axis], 1 - axis), np.max(units.high[axis], 1 - axis)
    place = np.arange(len(low), dtype=np.float64)
    period = _period(low, high, 1) if len(low) > 1 else None
    if period is None:
        inside = (low > 0) & (high < pixels - 1) & np.isfinite(low)
        low, high, place = low[inside], high[inside], place[inside]
        if len(low) < 2 or high[-1] - low[0] < 2 * least + (high - low).max():
            return None
        period = _period(low, high, len(low) // 2)
    if period is None:
        raise NotApplicableError(NO_PERIOD)
    return FieldPeriod(place, low, high, period, float(low[period] - low[0]) / period)


def _period(low: Array, high: Array, most: int) -> int | None:
    """The smallest number of units, at most `most`, after which both ends have moved alike."""
    for period in range(1, most + 1):
        steps = np.concatenate([x[period:] - x[:-period] for x in (low, high)])
        if np.isfinite(steps).all() and steps[0] > 0 and (steps == steps[0]).all():
            return period
    return None
