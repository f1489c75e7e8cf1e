"""`padding`: spatial bias and blind spots (Alsallakh et al., "Mind the Pad", ICLR 2021).

Padding leaves traces in a network: units at the border respond differently from those at the
centre, one half differently from the other, and a small stimulus at some places has little or no
effect. Forward passes only.

Mean feature maps
    A(i, j) = mean over channels of |F_c(i, j)|, for the images and for a plain image of
    `background` grey. `border_ratio` is the mean of A over the outermost ring, divided by its mean
    at least a quarter of the side (rounded down) away from every border; `left_right` and
    `top_bottom` are the difference of the halves, divided by the mean (see `spatial_bias`).
    `constant_...` are the same for the plain image, which has no bias of its own, so that any bias
    is the network's. The metrics are those of the target; the table `stages` has every resolution
    on the way to it, with signs (left and top positive). Zero padding has the value of the model's
    mean grey: on a background close to it the first layer shows no border.
Mean filters (see `mean_filters`)
    `filter_left_right`, `filter_top_bottom`: the difference of the halves of the mean kernel,
    divided by the mean magnitude of a tap; mean over layers, weighted by their number of kernels.
    Table `filters`.
Blind spots (see `blind_spots`)
    A square stimulus of `stimulus` pixels and `colour` at `grid` x `grid` places from border to
    border; r = ||F(stimulus) - F(background)||, divided by its mean. `blind_weakest` is the
    smallest r, `blind_cv` its standard deviation, `border_drop` 1 - border over centre as above,
    `blind_left_right` and `blind_top_bottom` the difference of the halves. Maps `blind_spots` and,
    for the top logit, `blind_spots_logit`. Places differ in phase too (see `deadpixel`): a stimulus
    smaller than the stride shows both effects.
Silent pixels
    Of models without gradients, and of others if a stimulus changes nothing at some place: pixels
    whose change does not alter F, or the logits where there is no map, by more than a thousandth of
    what others do, found by blocks of a fourteenth of the shorter side without gaps, by whole rows
    and columns, by the stimuli that changed nothing, and around what is silent by ever smaller
    cells (see `silent_pixels`). The table `silent_regions` has the connected regions that they
    form, and colour channels that are silent as a whole. A hole that contains no whole block, row,
    column or such stimulus can be missed, and so can one of any size in one channel alone.
Exchanged padding
    The same weights with the padding exchanged for `reflect`, `replicate` or `circular` (see
    `adapters.padding_mode`). `exchange_MODE` is the `border_drop` with that padding minus that of
    the unchanged model, both at nine places: corners, edges, centre. The table `exchange` also has
    the bias of the plain image.
Uneven padding (see `receptive_field`)
    `uneven_layers`: strided layers with padded units that no window reads. The table `uneven` lists
    them, with the nearest input sizes at which no layer is uneven.
Input sizes
    Table `sizes`: for each side in `sizes`, everything above except filters and exchanged padding.

Intervals are over images for the mean maps; for a model with several weight sets, of which the
first `weight_sets` are used, all intervals are over weight sets. The response of one weight set to
one stimulus is exact and has no interval. Absolute differences and minima are not biased by noise
(see `unbiased`). The definitions of bias are ours; the source gives them in words and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ...adapters.errors import InputError
from ...adapters.padding_mode import PADDING_MODES
from ..base import Context, Measurement, Metric, Suite, described, require_at_least
from ..measuring.batching import Batching
from ..measuring.dead_regions import Region, counted_pixels
from ..measuring.findings import percent
from .blind_spots import Stimulus, default_side
from .observe import ObservationPlan, observe_padding
from .results import CAN_HIDE, read_exchange, read_filters, read_size

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array, Measured


def _bias_metrics(prefix: str, what: str) -> tuple[Metric, ...]:
    return (
        Metric(f"{prefix}border_ratio", f"border over centre, {what}", "ratio", "neither", even=1),
        Metric(f"{prefix}left_right", f"|left - right| / mean, {what}", "ratio", "lower", even=0),
        Metric(f"{prefix}top_bottom", f"|top - bottom| / mean, {what}", "ratio", "lower", even=0),
    )


def _metrics() -> tuple[Metric, ...]:
    drop = "1 - border over centre of the response"
    return (
        *_bias_metrics("", "mean feature map"),
        *_bias_metrics("constant_", "map of a plain image"),
        Metric("filter_left_right", "|left - right| / tap, mean filter", "ratio", "lower", even=0),
        Metric("filter_top_bottom", "|top - bottom| / tap, mean filter", "ratio", "lower", even=0),
        Metric("blind_weakest", "weakest over mean response", "ratio", "higher", even=1),
        Metric("border_drop", drop, "share", "neither", low=None, high=1, even=0),
        Metric("blind_cv", "coefficient of variation of r", "ratio", "lower", even=0),
        Metric("blind_left_right", "|left - right| / mean response", "ratio", "lower", even=0),
        Metric("blind_top_bottom", "|top - bottom| / mean response", "ratio", "lower", even=0),
        *(
            Metric(f"exchange_{b}", f"border drop it adds: {b}", "share", "neither", low=None)
            for b in PADDING_MODES
        ),
        Metric("uneven_layers", "strided layers with unread padding", "layers", "lower", even=0),
    )


_SAMPLED = ("border_ratio", "left_right", "top_bottom")
"""Metrics that depend on the images; the others are exact for one weight set and the stimulus."""

MOST_NAMED = 3
"""Regions that a sentence names."""

_METRICS = described(
    _metrics(),
    {
        "border_ratio": "border over centre",
        "left_right": "left against right",
        "top_bottom": "top against bottom",
        "constant_border_ratio": "plain image, border over centre",
        "constant_left_right": "plain image, left against right",
        "constant_top_bottom": "plain image, top against bottom",
        "filter_left_right": "mean filter, left against right",
        "filter_top_bottom": "mean filter, top against bottom",
        "blind_weakest": "least response to a stimulus",
        "border_drop": "drop of it at the border",
        "blind_cv": "variation of it over places",
        "blind_left_right": "stimulus, left against right",
        "blind_top_bottom": "stimulus, top against bottom",
        **{f"exchange_{b}": f"change of the drop by {b}" for b in PADDING_MODES},
        "uneven_layers": "layers with unread padding",
    },
    caveats={
        "blind_weakest": "A blind spot that fits between the places looked at is not seen.",
        "filter_left_right": "Random kernels leave about 1 / sqrt(number of kernels) by chance.",
    },
    exact={
        **{m.name: "one weight set" for m in _metrics() if m.name not in _SAMPLED},
        "uneven_layers": "always",
    },
    main=("blind_weakest", "border_drop", "constant_left_right", "constant_top_bottom"),
)


@dataclass(frozen=True)
class PaddingSuite(Suite):
    """The suite; its module's docstring is the definition.

    `stimulus` is a side in pixels (None: a 28th of the image's shorter side), `colour` grey or
    (red, green, blue) and `background` grey, all in [0, 1]. `exchange` lists the padding modes to
    try, `sizes` the input sizes to try, `weight_sets` is the number of weight sets used.
    """

    stimulus: int | None = None
    colour: float | tuple[float, float, float] = 1.0
    background: float = 0.5
    grid: int = 7
    exchange: tuple[str, ...] = PADDING_MODES
    sizes: tuple[int, ...] = ()
    weight_sets: int = 4

    name: ClassVar[str] = "padding"
    protocols: ClassVar[Mapping[str, str]] = {"forward": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "blind_weakest"
    defect_tables: ClassVar[Sequence[str]] = ("silent_regions",)
    random: ClassVar[bool] = True
    question: ClassVar[str] = "spatial bias and blind spots"
    topic: ClassVar[str] = "Border"
    captions: ClassVar[Mapping[str, str]] = {
        "stages": "Spatial bias at every resolution on the way to the target",
        "exchange": "Border drop, at nine places, with another padding and the same weights",
        "sizes": "By input size",
        "filters": "Mean filters by layer",
        "uneven": "Layers with unread padding, and how many rows and columns",
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "stimulus": "side of the stimulus in pixels; None for a 28th of the shorter side",
        "colour": "of the stimulus: grey, or red,green,blue, from 0 to 1",
        "background": "grey of the image behind the stimulus, from 0 to 1",
        "grid": "places of the stimulus along each side",
        "exchange": "padding modes to try in place of the model's own",
        "sizes": "further input sides to measure at",
        "weight_sets": "weight sets of an @init model that are used",
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "stimulus", "weight_sets")
        require_at_least(self, 2, "grid")
        if min(self.sizes, default=1) < 1:
            raise InputError(f"padding.sizes = {min(self.sizes)}; expected at least 1")
        levels = (*_rgb(self.colour), self.background)
        if not all(0 <= level <= 1 for level in levels):
            raise InputError(
                f"padding.colour = {self.colour} on padding.background = {self.background}; "
                "expected levels from 0 to 1"
            )
        if set(levels) == {self.background}:
            raise InputError(
                f"padding.colour = {self.colour} equals padding.background; choose another: "
                "the stimulus must differ from its background"
            )
        unknown = [b for b in self.exchange if b not in PADDING_MODES]
        if unknown:
            raise InputError(
                f"unknown padding mode {unknown[0]!r} in padding.exchange; expected one or more of "
                f"{', '.join(PADDING_MODES)}, or none"
            )

    def skip(self, model: Model, protocol: str) -> str | None:
        """A spatial map or learned kernels are needed."""
        return model.why_not_spatial if model.why_not_spatial and not model.filters() else None

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Measure `model` on the images and on the stimulus.

        Raises `InputError` if the stimulus does not fit, or if the model refuses an input size.
        """
        found = Measurement({})
        plan = self._plan(model, context)
        observed = observe_padding(model, context.images, plan)
        found.notes += plan.batching.notes
        read_size(found, model, observed, context)
        read_filters(found, model, observed, context)
        read_exchange(found, observed, context, self.exchange)
        if self.sizes:
            found.tables["sizes"] = [self._sized(model, side, context) for side in self.sizes]
        if len(observed.filters) < model.members:
            found.notes.append(
                f"measured on the first {len(observed.filters)} of {model.members} weight sets"
            )
        return found

    def defects(self, found: Measured) -> list[str]:
        """Colour channels without any effect, and the largest regions."""
        rows = found.tables.get("silent_regions", [])
        named = [
            f"dead: {Region.of_row(row).text}"
            if row.get("channel", "all") == "all"
            else f"dead: {row['channel']}, everywhere"
            for row in rows[:MOST_NAMED]
        ]
        rest = [
            int(row["pixels"]) for row in rows[MOST_NAMED:] if row.get("channel", "all") == "all"
        ]
        others = [f"dead: {counted_pixels(sum(rest))} in other places"] if rest else []
        return [*named, *others, *_place_without_response(found)]

    def unseen(self, found: Measured) -> str:
        """Holes between the blocks, rows and columns that were changed, and in one channel."""
        hidden = next((m for note in found.notes if (m := CAN_HIDE.search(note))), None)
        if hidden is None:
            return ""
        least = int(hidden.group(1))
        small = f"holes of up to {least} pixels along their shorter side" if least else ""
        alone = "holes of any size in one colour channel alone" if hidden.group(2) else ""
        said = " and ".join(filter(None, [small, alone]))
        return f"{said} can hide" if said else ""

    def causes(self, found: Measured) -> list[str]:
        """The pixels at which the response to the stimulus is least, of those looked at."""
        (place,) = found.tables["blind_place"]
        clause = (
            "of the places looked at, the response is least in rows "
            f"{place['top']} to {place['bottom'] - 1}, columns {place['left']} to "
            f"{place['right'] - 1}"
        )
        rows, columns = place["unseen_rows"], place["unseen_columns"]
        if rows or columns:
            clause += f"; up to {rows} rows and {columns} columns between places are not looked at"
        return [clause]

    def remedies(self, found: Measured, size: tuple[int, int]) -> list[str]:
        """The padding mode that removes most of the border drop, where one is shown to."""
        rows = {row["padding"]: row["border_drop"] for row in found.tables["exchange"]}
        before = rows.pop("zero")
        shown = [
            (abs(drop), mode, drop)
            for mode, drop in rows.items()
            if drop is not None and abs(drop) < abs(before) and _is_shown(found, mode)
        ]
        return [
            f"{mode} padding takes the border drop (at nine places, with the same weights) from "
            f"{percent(before)} to {percent(drop)}"
            for _, mode, drop in sorted(shown)[:1]
        ]

    def _plan(self, model: Model, context: Context) -> ObservationPlan:
        side = default_side(model.spec) if self.stimulus is None else self.stimulus
        stimulus = Stimulus(side, _rgb(self.colour), self.background)
        wanted = tuple(b for b in PADDING_MODES if b in self.exchange)
        batching = Batching(context.batch, model.device)
        return ObservationPlan(stimulus, self.grid, wanted, self.weight_sets, batching)

    def _sized(self, model: Model, side: int, context: Context) -> dict[str, Any]:
        """One row of the table `sizes`: every metric that depends on the input size."""
        resized = model.resized(side, side)
        plan = replace(self._plan(resized, context), exchange=())
        found = Measurement({})
        read_size(
            found, resized, observe_padding(resized, context.sized(side, side), plan), context
        )
        return {"size": side, **{name: e.value for name, e in found.metrics.items()}}


def _rgb(colour: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return colour if isinstance(colour, tuple) else (colour, colour, colour)


def _place_without_response(found: Measured) -> list[str]:
    """The place of the least response if that is 0 and no region has its pixels, in a clause.

    Records say whether the place was tried on another background too; where they do, a place that
    is dead is among the regions.
    """
    weakest = found.metrics.get("blind_weakest")
    place = next(iter(found.tables.get("blind_place", [])), None)
    if weakest is None or weakest.value != 0 or place is None or "silent" in place:
        return []
    stimulus = Region.of_row({"pixels": 0, **place})
    rows = found.tables.get("silent_regions", [])
    if any(stimulus.within(Region.of_row(row)) for row in rows):
        return []
    side = stimulus.box[2] - stimulus.box[0]
    return [f"dead: a stimulus of {side} x {side} pixels in {stimulus.place} changes nothing"]


def _is_shown(found: Measured, mode: str) -> bool:
    """Whether what padding `mode` does to the border drop is exact, or leaves out 0."""
    one = found.metrics[f"exchange_{mode}"]
    return one.value is not None and (one.low is None or one.low > 0 or one.high < 0)


PADDING = PaddingSuite()
