"""`halo`: how much neighbouring tiles must overlap so that tiled inference equals whole inference.

A large image is cut into tiles, and the outer pixels of each tile's output, its *overlap* or halo,
are dropped, because there the network read zero padding instead of the neighbouring pixels. The map
that is measured is the output of the most units, or the target if no output is a map or if
`--target` names one. Forward passes alone; all pixels are those of the input.

Exact, from the architecture (see `fields`)
    `overlap_top`, `overlap_bottom`, `overlap_left`, `overlap_right`: how far the receptive field of
    a unit reaches beyond its own pixels on this side, at most over all units. `alignment` and
    `alignment_columns`: the step at which tiles may begin, the least common multiple of the
    cumulative strides and of the period of the fields. `exact_overlap`: the largest side, rounded
    up to the alignment. With it tiled and whole inference are equal up to rounding. It is missing,
    with the reason, where a layer reads the whole map or depends on its size: no overlap is exact.
    So it is where the measured `exact_error` is above 1e-4, as behind an interpolation between
    corners, whose coefficients depend on the size though its receptive fields do not.
Measured, on the images (see `tiles`)
    Four tiles of `tile` pixels (by default about half of the image) are cut from each image, one at
    each corner; `whole` is the pass over the whole image. With d the pixels between a unit and the
    nearer cut edge, w the alignment (of the larger axis) and sums over images, tiles, units and
    channels, the error at overlap o is

        e(o) = sum over o <= d < o + w of |tiled - whole| / the same sum of |whole|,

    the relative error at the seam of tiles that overlap by o. `edge_error` is e(0).
    `smallest_overlap` is the smallest of `overlaps` from which on e is at most `tolerance`; by
    default those are 0 and the alignment times powers of 2. `floor_error` is e at the largest of
    them: where it is not small, the network reads the whole map. `exact_error` is the error of all
    units with d of at least `exact_overlap`; missing if no unit of the tile is that far from its
    edge. The table `overlaps` has e for each overlap, and the error of all units kept.

Without an architecture that can be traced, the alignment is the setting `alignment`, by default the
stride of the target. Models that take images of one size alone have no measured part.

Samples are images, or, for several weight sets, weight sets, each scaled to a mean magnitude of 1.
The interval of an error is symmetric in the logarithm; that of `smallest_overlap` has the ends at
which the interval of e reaches the tolerance, and is open where it does not.

Cost: one pass over each image and four over a tile, together about two passes an image.

Source: ours. Overlaps from receptive fields are common practice; sides, alignment and the measured
curve are defined here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...adapters.errors import InputError, NotApplicableError, PerimetryError
from ..base import (
    Context,
    Estimate,
    Measurement,
    Metric,
    Suite,
    described,
    missing,
    require_at_least,
)
from ..measuring.batching import Batching
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import by_sample
from ..measuring.output_view import at_output, map_of, named_units, why_no_map
from .fields import Reach, exact_reach
from .tiles import TileTest, default_overlaps, tile_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap
    from .tiles import Pair

_SIDES = ("top", "bottom", "left", "right")

_EXACT = (
    Metric("exact_overlap", "largest side, whole alignments", "pixels", "lower"),
    *(Metric(f"overlap_{s}", f"reach beyond own pixels, {s}", "pixels", "lower") for s in _SIDES),
    Metric("alignment", "step at which tiles may begin, rows", "pixels", "neither", low=1.0),
    Metric("alignment_columns", "the same, columns", "pixels", "neither", low=1.0),
)

_MEASURED = (
    Metric("edge_error", "relative error at a seam without overlap", "ratio", "lower"),
    Metric("smallest_overlap", "smallest overlap within the tolerance", "pixels", "lower"),
    Metric("floor_error", "relative error at the largest overlap", "ratio", "lower"),
    Metric("exact_error", "relative error with the exact overlap", "ratio", "lower"),
)

_METRICS = described(
    (*_MEASURED, *_EXACT),
    {
        "edge_error": "error at the seam, no overlap",
        "smallest_overlap": "smallest overlap that suffices",
        "floor_error": "error at the largest overlap",
        "exact_error": "error with the exact overlap",
        "exact_overlap": "exact overlap of tiles",
        **{f"overlap_{side}": f"exact overlap, {side}" for side in _SIDES},
        "alignment": "tiles begin at multiples of",
        "alignment_columns": "the same, columns",
    },
    caveats={
        "edge_error": "It is relative to the size of the output, constant offsets included.",
        "smallest_overlap": "It holds for such images; the exact overlap alone is a guarantee.",
        "exact_overlap": "It is the farthest pixel that can matter, however little it does.",
    },
    exact={metric.name: "always" for metric in _EXACT},
    main=("edge_error", "smallest_overlap", "exact_overlap"),
)

ROUNDING = 1e-4
"""Largest relative error that passes for rounding."""

TOO_FAR = (
    "no unit of a tile of {tile} pixels is {overlap} pixels from its cut edges: enlarge --size"
)


@dataclass(frozen=True)
class Halo(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    tile: int | None = None
    overlaps: tuple[int, ...] | None = None
    tolerance: float = 0.01
    alignment: int | None = None
    name: ClassVar[str] = "halo"
    protocols: ClassVar[Mapping[str, str]] = {"tiles": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "edge_error"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how much tiles must overlap"
    captions: ClassVar[Mapping[str, str]] = {
        "overlaps": "Relative error at the seam, and of all units kept, by overlap in pixels"
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "tile": "side of a tile in pixels; None for about half of the image",
        "overlaps": "overlaps to measure, in pixels; None for the alignment times powers of 2",
        "tolerance": "largest relative error at the seam that is accepted",
        "alignment": "step of tiles in pixels; None to find it",
    }

    def __post_init__(self) -> None:
        if not (self.tolerance > 0 and math.isfinite(self.tolerance)):
            raise InputError(f"halo.tolerance = {self.tolerance}; expected a ratio above 0")
        require_at_least(self, 1, "tile", "alignment", unit="pixel")
        if self.overlaps is not None and (not self.overlaps or min(self.overlaps) < 0):
            raise InputError(f"halo.overlaps = {self.overlaps}; expected pixels from 0 on")

    def skip(self, model: Model, protocol: str) -> str | None:
        """A map is needed: an output or the target."""
        del protocol
        return why_no_map(model)

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Read the exact overlap off the architecture, and measure the error of tiles."""
        del protocol, maps
        found = Measurement({}, notes=[f"measured at {named_units(at_output(model))}"])
        reaches = _read_exact(model, found)
        try:
            _Tiling(self, model, context, found, reaches).run()
        except InputError as error:
            if "halo." in str(error):
                raise
            found.metrics |= {
                m.name: missing(f"tiles cannot be passed: {error}") for m in _MEASURED
            }
        except NotApplicableError as error:
            found.metrics |= {m.name: missing(str(error)) for m in _MEASURED}
        return found


def _read_exact(model: Model, found: Measurement) -> tuple[Reach, Reach] | None:
    """Fill in the exact metrics, or the reason why there are none."""
    try:
        rows, columns = exact_reach(model, found.notes)
    except PerimetryError as error:
        found.metrics |= {metric.name: missing(str(error)) for metric in _EXACT}
        found.notes.append(f"no exact overlap: {error}")
        return None
    sides = (rows.before, rows.after, columns.before, columns.after)
    values = {
        "exact_overlap": max(rows.overlap, columns.overlap),
        **{f"overlap_{side}": pixels for side, pixels in zip(_SIDES, sides, strict=True)},
        "alignment": rows.alignment,
        "alignment_columns": columns.alignment,
    }
    found.metrics |= {name: Estimate(float(value)) for name, value in values.items()}
    return rows, columns


@dataclass
class _Tiling:
    """The measured part: cuts tiles, sums errors, and writes metrics to `found`."""

    chosen: Halo
    model: Model
    context: Context
    found: Measurement
    reaches: tuple[Reach, Reach] | None

    def run(self) -> None:
        """Measure all weight sets. Raises `InputError` and `NotApplicableError`."""
        model, context = self.model, self.context
        spec = model.spec
        alignment = self._alignment()
        tile = tile_size((spec.height, spec.width), alignment, self.chosen.tile)
        overlaps = self._overlaps(tile, alignment)
        test = TileTest(tile, overlaps, max(alignment), self._per_unit())
        x = spec.prepare(context.images)
        members = min(model.members, len(x))
        batching = Batching(context.batch, model.device, self.found.notes)
        sums: dict[int, Array] = {}
        for member in range(members):
            model.select(member, x)
            own = list(range(member, len(x), members))
            tiled = at_output(model.resized(*tile))
            errors = test.errors(at_output(model), tiled, x[own], batching)
            errors = errors / errors[:, 3:, :1].mean() if members > 1 else errors
            sums |= dict(zip(own, errors, strict=True))
        if not sum(s[3, 0] for s in sums.values()):
            raise NotApplicableError("the output is 0 throughout, so an error has no relation")
        samples = by_sample(sums, members)
        self._report(samples, overlaps, bootstrap(len(samples), context.draws, context.seed))

    def _alignment(self) -> Pair:
        """(rows, columns): the setting, the exact alignment, or the stride of the target."""
        own = self.chosen.alignment
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
        if self.chosen.overlaps is None:
            chosen = default_overlaps(tile, alignment)
        elif max(self.chosen.overlaps) >= most:
            raise InputError(
                f"halo.overlaps = {self.chosen.overlaps} for tiles of {tile[0]} x {tile[1]} "
                f"pixels; expected overlaps below {most}"
            )
        else:
            chosen = list(self.chosen.overlaps)
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
        metrics["smallest_overlap"] = smallest_overlap(errors, self.chosen.tolerance)
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
            (self.model.spec.height, self.model.spec.width), self._alignment(), self.chosen.tile
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


HALO = Halo()
