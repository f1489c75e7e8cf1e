"""The measured part of `halo`: the error of tiles by their overlap."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import InputError, NotApplicableError
from ..base import Context, Estimate, Measurement, missing
from ..measuring.batching import Batching, weight_sets
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import by_sample
from ..measuring.output_view import at_output, map_of
from .tiles import TileTest, default_overlaps, tile_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap
    from .fields import Reach
    from .tiles import Pair

ROUNDING = 1e-4
"""Largest relative error that passes for rounding."""

TOO_FAR = (
    "no unit of a tile of {tile} pixels is {overlap} pixels from its cut edges: enlarge --size"
)


@dataclass
class Tiling:
    """Cuts tiles, sums errors, and writes metrics to `found`; settings are those of the suite."""

    model: Model
    context: Context
    found: Measurement
    reaches: tuple[Reach, Reach] | None
    tile: int | None
    overlaps: tuple[int, ...] | None
    tolerance: float
    alignment: int | None

    def run(self) -> None:
        """Measure all weight sets. Raises `InputError` and `NotApplicableError`."""
        model, context = self.model, self.context
        spec = model.spec
        alignment = self._alignment()
        tile = tile_size((spec.height, spec.width), alignment, self.tile)
        overlaps = self._overlaps(tile, alignment)
        test = TileTest(tile, overlaps, max(alignment), self._per_unit())
        x = spec.prepare(context.images)
        members = min(model.members, len(x))
        batching = Batching(context.batch, model.device, self.found.notes)
        sums: dict[int, Array] = {}
        for own in weight_sets(model, x):
            tiled = at_output(model.resized(*tile))
            errors = test.errors(at_output(model), tiled, x[list(own)], batching)
            errors = errors / errors[:, 3:, :1].mean() if members > 1 else errors
            sums |= dict(zip(own, errors, strict=True))
        if not sum(s[3, 0] for s in sums.values()):
            raise NotApplicableError("the output is 0 throughout, so an error has no relation")
        samples = by_sample(sums, members)
        self._report(samples, overlaps, bootstrap(len(samples), context.draws, context.seed))

    def _alignment(self) -> Pair:
        """(rows, columns): the setting, the exact alignment, or the stride of the target."""
        own = self.alignment
        exact = None if self.reaches is None else tuple(r.alignment for r in self.reaches)
        if own is not None and exact is not None and any(own % step for step in exact):
            raise InputError(
                f"halo.alignment = {own} for a model of alignment {exact[0]} x {exact[1]}; "
                "expected a multiple of both"
            )
        if own is not None:
            return own, own
        if exact is not None:
            return exact[0], exact[1]
        coarsest = self.model.target or map_of(at_output(self.model))
        spec = self.model.spec
        rows = max(1, round(spec.height / coarsest.height))
        columns = max(1, round(spec.width / coarsest.width))
        self.found.notes.append(
            f"tiles begin at multiples of {rows} x {columns} pixels, the stride of the target"
        )
        return rows, columns

    def _per_unit(self) -> tuple[float, float]:
        """Pixels per unit of the output along (rows, columns)."""
        if self.reaches is not None:
            return self.reaches[0].per_unit, self.reaches[1].per_unit
        grid, spec = map_of(at_output(self.model)), self.model.spec
        return _ratio(spec.height, grid.height), _ratio(spec.width, grid.width)

    def _overlaps(self, tile: Pair, alignment: Pair) -> list[int]:
        most = min(tile)
        if self.overlaps is None:
            chosen = default_overlaps(tile, alignment)
        elif max(self.overlaps) >= most:
            raise InputError(
                f"halo.overlaps = {self.overlaps} for tiles of {tile[0]} x {tile[1]} "
                f"pixels; expected overlaps below {most}"
            )
        else:
            chosen = list(self.overlaps)
        exact = self._exact()
        return sorted({0, *chosen, *([exact] if exact is not None and exact < most else [])})

    def _exact(self) -> int | None:
        return None if self.reaches is None else max(reach.overlap for reach in self.reaches)

    def _report(self, sums: Array, overlaps: Sequence[int], resamples: Bootstrap) -> None:
        """Fill in metrics and the table; `sums` are (samples, 4, overlaps)."""
        with np.errstate(invalid="ignore"):
            seam, seam_size, kept, kept_size = np.moveaxis(
                np.tensordot(resamples.weights, sums, 1), 1, 0
            )
            at_seam, of_kept = seam / seam_size, kept / kept_size
        measured = [k for k in range(len(overlaps)) if kept_size[0, k] > 0]
        errors = {
            overlaps[k]: resamples.estimate(at_seam[:, k], low=0.0, positive=True) for k in measured
        }
        rest = {
            overlaps[k]: resamples.estimate(of_kept[:, k], low=0.0, positive=True) for k in measured
        }
        metrics = self.found.metrics
        metrics["edge_error"] = errors[0]
        metrics["floor_error"] = errors[max(errors)]
        metrics["smallest_overlap"] = smallest_overlap(errors, self.tolerance)
        metrics["exact_error"] = error = self._exact_error(rest)
        if error.value is not None and error.value > ROUNDING:
            reason = (
                f"with the overlap of the receptive fields, {self._exact()} pixels, the error is "
                f"still {error.value:.2g}: a layer depends on the size of the map or on the place "
                "in it, and no overlap is exact"
            )
            self.found.notes.append(f"no exact overlap: {reason}")
            metrics["exact_overlap"] = missing(reason)
        self.found.tables["overlaps"] = [
            {"overlap": o, "seam": e.value, "low": e.low, "high": e.high, "kept": rest[o].value}
            for o, e in errors.items()
        ]

    def _exact_error(self, rest: Mapping[int, Estimate]) -> Estimate:
        exact = self._exact()
        if exact is None:
            return missing(self.found.metrics["exact_overlap"].reason or "")
        tile = tile_size(
            (self.model.spec.height, self.model.spec.width), self._alignment(), self.tile
        )
        return rest.get(exact) or missing(TOO_FAR.format(tile=min(tile), overlap=exact))


def _ratio(pixels: int, units: int) -> float:
    """Pixels per unit, or units per pixel, rounded to a whole number."""
    return float(round(pixels / units)) if pixels >= units else 1 / round(units / pixels)


def smallest_overlap(errors: Mapping[int, Estimate], tolerance: float) -> Estimate:
    """The smallest overlap from which on the error is within `tolerance`, with its interval.

    `errors` are by overlap, smallest first.
    """

    def first(end: str) -> int | None:
        """The overlap from which on this end of the interval is within the tolerance."""
        found = None
        for overlap, error in reversed(list(errors.items())):
            value = getattr(error, end)
            value = error.value if value is None else value
            if value is None or value > tolerance:
                return found
            found = overlap
        return found

    value, last = first("value"), max(errors)
    if value is None:
        return missing(
            f"the error at the seam is {errors[last].value:.2g} at the largest overlap of {last} "
            f"pixels, above the tolerance of {tolerance:g}"
        )
    if all(error.low is None for error in errors.values()):
        return Estimate(float(value))
    low, high = first("low"), first("high")
    return Estimate(
        float(value),
        float(value if low is None else low),
        None if high is None else float(high),
    )
