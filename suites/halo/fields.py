"""The exact overlap: how far the receptive fields of the output reach beyond the units' own pixels.

Along one axis unit i covers the pixels floor(i s) to ceil((i + 1) s) - 1, s being pixels per unit
(below 1 for an output finer than the image), and reads the pixels low_i to high_i (see
`architecture.spans`). A tile from pixel a to b gives unit i as the whole image does if low_i >= a
and high_i <= b. So the sides are max_i (floor(i s) - low_i) and
max_i (high_i + 1 - ceil((i + 1) s)).

The fields repeat with the coarsest grid of the network. Their period, and the cumulative strides of
all layers, have as their least common multiple the *alignment*: tiles begin at its multiples, or
else windows fall on other pixels. Fields are read where they lie inside the image, so the network
is traced at up to four times its size if need be. They are traced at a second size too: a layer
whose window depends on the size of the map (an adaptive pool, an interpolation between corners) has
other fields there, and no overlap is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, lcm
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError, PerimetryError
from ..measuring.output_view import at_output, map_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.model import Model
    from ..architecture.spans import UnitSpans
    from ..architecture.windows import Layer

MAGNIFIED = (1, 2, 4)
"""Sizes of the input that are tried, in multiples of the model's own."""

GLOBAL = (
    "a layer reads the whole map (attention, squeeze-excitation, a mean or a norm over the map): "
    "no overlap is exact"
)

SIZE_DEPENDENT = (
    "the receptive fields at another input size are different ones, as behind an adaptive pool or "
    "an interpolation between corners: no overlap is exact"
)

NO_WHOLE_STRIDE = "a layer has a stride that is not a whole number of pixels: no overlap is exact"


@dataclass(frozen=True)
class Reach:
    """Overlap before and after a tile along one axis, its alignment, and a unit's own pixels."""

    before: int
    after: int
    alignment: int
    per_unit: float

    @property
    def overlap(self) -> int:
        """The larger side, rounded up to the alignment."""
        return ceil(max(self.before, self.after) / self.alignment) * self.alignment


def exact_reach(model: Model, notes: list[str]) -> tuple[Reach, Reach]:
    """The reach along rows and columns.

    Raises `NotApplicableError` where no overlap is exact, or where the architecture cannot be
    traced; `notes` say if it could not be compared with another size.
    """
    from ..architecture.receptive_field import NO_PERIOD

    found = _both_axes(model)
    rows, columns = (reach.alignment for reach in found)
    spec = model.spec
    try:
        other = _both_axes(at_output(model.resized(spec.height + rows, spec.width + columns)))
    except NotApplicableError as error:
        if str(error) in (GLOBAL, NO_PERIOD, NO_WHOLE_STRIDE):
            raise
        notes.append(f"the receptive fields are those of this input size alone: {error}")
    except PerimetryError as error:
        notes.append(f"the receptive fields are those of this input size alone: {error}")
    else:
        if other != found:
            raise NotApplicableError(SIZE_DEPENDENT)
    return found


def _both_axes(model: Model) -> tuple[Reach, Reach]:
    """The reach along both axes at the first size at which fields lie inside the image."""
    spec, refused = model.spec, ""
    for times in MAGNIFIED:
        try:
            larger = model.resized(times * spec.height, times * spec.width) if times > 1 else model
        except PerimetryError as error:
            refused = f" (larger inputs: {error})"
            break
        one = at_output(larger)
        units, layers = _trace(one)
        sizes = (one.spec.height, one.spec.width)
        rows, columns = (axis_reach(units, layers, axis, sizes[axis]) for axis in (0, 1))
        if rows is not None and columns is not None:
            return rows, columns
    raise NotApplicableError(
        f"no receptive field lies inside the image{refused}; a layer may read whole rows or columns"
    )


def _trace(model: Model) -> tuple[UnitSpans, list[Layer]]:
    from ..architecture.receptive_field import traced

    map_of(model)
    layers, units = traced(model)
    if units.everywhere:
        raise NotApplicableError(GLOBAL)
    return units, layers


def axis_reach(units: UnitSpans, layers: Sequence[Layer], axis: int, pixels: int) -> Reach | None:
    """The reach along `axis` of an image of `pixels`; None if no two cells lie inside of it.

    Raises `NotApplicableError` where the fields do not repeat.
    """
    from ..architecture.receptive_field import field_period

    strides = _strides(layers, axis)
    found = field_period(units, axis, pixels, lcm(*strides))
    if found is None:
        return None
    before = np.floor(found.place * found.per_unit) - found.low
    after = found.high + 1 - np.ceil((found.place + 1) * found.per_unit)
    return Reach(
        max(0, int(before.max())),
        max(0, int(after.max())),
        lcm(*strides, _whole(found.period * found.per_unit)),
        found.per_unit,
    )


def _whole(pixels: float) -> int:
    """A period in whole pixels; several units of an output finer than the image share one."""
    if pixels < 1:
        return 1
    if abs(pixels - round(pixels)) > 1e-9:
        raise NotApplicableError(NO_WHOLE_STRIDE)
    return round(pixels)


def _strides(layers: Sequence[Layer], axis: int) -> list[int]:
    """Cumulative strides behind each layer along `axis`, in whole pixels."""
    found = {1}
    for layer in layers:
        windows = (*layer.sources[axis], layer.windows[axis])
        found.add(_whole(float(np.prod([w.stride / w.scale for w in windows]))))
    return sorted(found)
