"""`halo`: how much neighbouring tiles must overlap so that tiled inference equals whole inference.

A large image is cut into tiles, and the outer pixels of each tile's output, its *overlap* or halo,
are dropped, because there the network read zero padding instead of the neighbouring pixels. The map
that is measured is the output of the most units, or the target if no output is a map or if
`--target` names one. Only forward passes are used; all pixels are those of the input.

Exact, from the architecture (see `fields`)
    `overlap_top`, `overlap_bottom`, `overlap_left`, `overlap_right`: how far the receptive field of
    a unit extends beyond its own pixels on this side; the maximum over all units. `alignment` and
    `alignment_columns`: the step at which tiles may begin, the least common multiple of the
    cumulative strides and of the period of the fields. `exact_overlap`: the largest side, rounded
    up to the alignment. With it tiled and whole inference are equal up to rounding. It is missing,
    with the reason, where a layer reads the whole map or depends on its size: no overlap is exact.
    It is also missing where the measured `exact_error` is above 1e-4, as behind an interpolation
    between corners, whose coefficients depend on the size though its receptive fields do not.
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

Cost: one pass over each image and four over tiles, together about two passes per image.

Source: ours. Overlaps from receptive fields are common practice; sides, alignment and the measured
curve are defined here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...adapters.errors import InputError, NotApplicableError, PerimetryError
from ..base import (
    MEASURED_AT,
    Context,
    Estimate,
    Measurement,
    Metric,
    Suite,
    described,
    require_at_least,
)
from ..measuring.output_view import at_output, named_units, why_no_map
from .fields import Reach, exact_reach
from .tiling import Tiling

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array

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
    topic: ClassVar[str] = "Tile overlap"
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
        return why_no_map(model)

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Read the exact overlap off the architecture, and measure the error of tiles."""
        found = Measurement({}, notes=[f"{MEASURED_AT}{named_units(at_output(model))}"])
        reaches = _read_exact(model, found)
        try:
            Tiling(
                model,
                context,
                found,
                reaches,
                tile=self.tile,
                overlaps=self.overlaps,
                tolerance=self.tolerance,
                alignment=self.alignment,
            ).run()
        except InputError as error:
            if "halo." in str(error):
                raise
            found.leave_out(_MEASURED, f"tiles cannot be passed: {error}")
        except NotApplicableError as error:
            found.leave_out(_MEASURED, error)
        return found


def _read_exact(model: Model, found: Measurement) -> tuple[Reach, Reach] | None:
    """Fill in the exact metrics, or the reason why there are none."""
    try:
        rows, columns = exact_reach(model, found.notes)
    except PerimetryError as error:
        found.leave_out(_EXACT, error)
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


HALO = Halo()
