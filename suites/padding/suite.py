"""`padding`: spatial bias and blind spots (Alsallakh et al., "Mind the Pad", ICLR 2021).

Padding leaves traces in a network: units at the border respond differently from those at the
centre, one half differently from the other, and a small stimulus at some places has little or no
effect. Forward passes only.

Mean feature maps (see `feature_maps`)
    A(i, j) = mean over channels of |F_c(i, j)|, for the images and for an image of nothing but
    `background` grey. `border_ratio` is the mean of A over the outermost ring, over its mean at
    least a quarter of the side (rounded down) away from every border; `left_right` and `top_bottom`
    are the difference of the halves, over the mean (see `spatial_bias`). With `constant_` before
    them: of the plain image, which has no side of its own, so that whatever they show is the
    network's.
    Metrics are those of the target, the table `stages` has every resolution on the way to it, with
    signs (left and top positive). Zero padding looks like grey of the model's own mean: on a
    background near it the first layer shows no border.
Mean filters (see `mean_filters`)
    `filter_left_right`, `filter_top_bottom`: the same of the mean kernel, over the mean magnitude
    of a tap; mean over layers, weighted by their number of kernels. Table `filters`.
Blind spots (see `blind_spots`)
    A square stimulus of `stimulus` pixels and `colour` at `grid` x `grid` places from border to
    border; r = ||F(stimulus) - F(background)||, over its mean. `blind_weakest` is the smallest r,
    `blind_cv` its standard deviation, `border_drop` 1 - border over centre as above,
    `blind_left_right` and `blind_top_bottom` the difference of the halves. Maps `blind_spots` and,
    for the top logit, `blind_spots_logit`. Places differ in their phase too (see `deadpixel`): what
    a stimulus smaller than a stride shows is both.
Exchanged borders
    The weights as they are, padding exchanged for `reflect`, `replicate` or `circular` (see
    `adapters.padding_mode`). `exchange_MODE` is its `border_drop` less that of the model as it is,
    both at nine places: corners, edges, centre. Table `exchange` has the bias of the plain image
    too.
Uneven padding (see `receptive_field`)
    `uneven_layers`: strided layers with padded units that no window reads. Table `uneven` names
    them, with the input sizes next to the given one that cure all of them at once.
Input sizes
    Table `sizes`: everything above that depends on the input size (not the filters, not the
    exchange), for each side of `sizes`.

Intervals are over images for the mean maps; over weight sets for everything, where a model has
several (the first `weight_sets` are looked at). What one weight set makes of one stimulus is exact
and carries none. Absolute differences and minima do not reward noise (see `unbiased`).
The definitions of bias are ours; the source gives them in words and pictures.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import InputError, NotApplicableError
from ...adapters.padding_mode import BORDERS
from ..base import Context, Measurement, Metric, Suite, missing
from ..measuring.bootstrap import bootstrap
from .blind_spots import Stimulus, blind_metrics, border_drop, default_side, relative_responses
from .mean_filters import filter_metrics, filter_table
from .observe import ObservationPlan, Observations, observe
from .spatial_bias import BIAS, bias, signed
from .unread_padding import read_uneven

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap

_BLIND = ("blind_weakest", "border_drop", "blind_cv", "blind_left_right", "blind_top_bottom")


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
            for b in BORDERS
        ),
        Metric("uneven_layers", "strided layers with unread padding", "layers", "lower", even=0),
    )


@dataclass(frozen=True)
class PaddingSuite(Suite):
    """The suite; its module's docstring is the definition.

    `stimulus` is a side in pixels (None: a 28th of the image's shorter side), `colour` grey or
    (red, green, blue) and `background` grey, all in [0, 1]. `exchange` names the borders to try,
    `sizes` the sides of the input-size sweep, `weight_sets` how many weight sets are looked at.
    """

    stimulus: int | None = None
    colour: float | tuple[float, float, float] = 1.0
    background: float = 0.5
    grid: int = 7
    exchange: tuple[str, ...] = BORDERS
    sizes: tuple[int, ...] = ()
    weight_sets: int = 4

    name: ClassVar[str] = "padding"
    protocols: ClassVar[Mapping[str, str]] = {"forward": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _metrics()
    headline: ClassVar[str] = "blind_weakest"
    random: ClassVar[bool] = True

    def __post_init__(self) -> None:
        _check_counts(self)
        levels = (*_rgb(self.colour), self.background)
        if not all(0 <= level <= 1 for level in levels):
            raise InputError(
                f"padding.colour = {self.colour} on padding.background = {self.background}; "
                "expected levels from 0 to 1"
            )
        if set(levels) == {self.background}:
            raise InputError(
                f"padding.colour = {self.colour} is that of padding.background; choose another: "
                "the stimulus must differ from what surrounds it"
            )
        unknown = [b for b in self.exchange if b not in BORDERS]
        if unknown:
            raise InputError(
                f"unknown padding mode {unknown[0]!r} in padding.exchange; expected one or more of "
                f"{', '.join(BORDERS)}, or none"
            )

    def skip(self, model: Model, protocol: str) -> str | None:
        """Either a spatial map or learned kernels are needed."""
        del protocol
        return model.why_not_spatial if model.why_not_spatial and not model.filters() else None

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Measure `model` on the images and on the stimulus.

        Raises `InputError` for a stimulus that does not fit, or a size that the model refuses.
        """
        del protocol, maps
        found = Measurement({})
        observed = observe(model, context.images, self._plan(model, context))
        _read_size(found, model, observed, context)
        _read_filters(found, model, observed, context)
        self._read_exchange(found, observed, context)
        if self.sizes:
            found.tables["sizes"] = [self._sized(model, side, context) for side in self.sizes]
        if len(observed.filters) < model.members:
            found.notes.append(f"the first {len(observed.filters)} of {model.members} weight sets")
        return found

    def _plan(self, model: Model, context: Context) -> ObservationPlan:
        side = default_side(model.spec) if self.stimulus is None else self.stimulus
        stimulus = Stimulus(side, _rgb(self.colour), self.background)
        wanted = tuple(b for b in BORDERS if b in self.exchange)
        return ObservationPlan(stimulus, self.grid, wanted, self.weight_sets, context.batch)

    def _sized(self, model: Model, side: int, context: Context) -> dict[str, Any]:
        """One row of the table `sizes`: every metric that depends on the input size."""
        twin = model.resized(side, side)
        plan = replace(self._plan(twin, context), exchange=())
        found = Measurement({})
        _read_size(found, twin, observe(twin, context.sized(side, side), plan), context)
        return {"size": side, **{name: e.value for name, e in found.metrics.items()}}

    def _read_exchange(self, found: Measurement, observed: Observations, context: Context) -> None:
        """Fill in `exchange_MODE` and its table."""
        for name in BORDERS:
            found.metrics[f"exchange_{name}"] = missing(
                "the model has no spatial map"
                if not observed.members
                else f"not asked for: padding.exchange does not name {name}"
            )
        if not (observed.members and self.exchange):
            return
        resamples = bootstrap(len(observed.members), context.draws, context.seed)
        before, found.tables["exchange"] = _exchanged(observed, "zero", resamples)
        for border in self.exchange:
            try:
                after, rows = _exchanged(observed, border, resamples)
            except NotApplicableError as error:
                found.metrics[f"exchange_{border}"] = missing(str(error))
                continue
            found.metrics[f"exchange_{border}"] = resamples.estimate(after - before)
            found.tables["exchange"] += rows
        found.notes += observed.members[0].notes


def _check_counts(suite: PaddingSuite) -> None:
    """Raise `InputError` for numbers of pixels, places or weight sets that cannot be."""
    limits: tuple[tuple[str, int | None, int], ...] = (
        ("stimulus", suite.stimulus, 1),
        ("grid", suite.grid, 2),
        ("weight_sets", suite.weight_sets, 1),
        *(("sizes", side, 1) for side in suite.sizes),
    )
    for name, value, least in limits:
        if value is not None and value < least:
            raise InputError(f"padding.{name} = {value}; expected at least {least}")


def _rgb(colour: float | tuple[float, float, float]) -> tuple[float, float, float]:
    return colour if isinstance(colour, tuple) else (colour, colour, colour)


def _read_size(found: Measurement, model: Model, observed: Observations, context: Context) -> None:
    """Fill in everything that depends on the input size."""
    read_uneven(found, model)
    if not observed.members:
        names = (*BIAS, *(f"constant_{name}" for name in BIAS), *_BLIND)
        found.metrics |= {
            name: missing(model.why_not_spatial or "no spatial map") for name in names
        }
        return
    _read_maps(found, observed, context)
    _read_spots(found, observed, context)


def _read_maps(found: Measurement, observed: Observations, context: Context) -> None:
    """Fill in mean feature maps: the target's metrics, all stages' table."""
    images, constants = observed.images(), observed.constants()
    *_, target = images
    for prefix, maps in (("", images), ("constant_", constants)):
        resamples = bootstrap(len(maps[target]), context.draws, context.seed)
        found.metrics |= {prefix + n: e for n, e in bias(maps[target], resamples).items()}
    found.maps["mean_feature_map"] = images[target].mean(0)
    found.maps["constant_feature_map"] = constants[target].mean(0)
    found.tables["stages"] = [
        {
            "name": name,
            "height": maps.shape[1],
            "width": maps.shape[2],
            **signed(maps.mean(0)),
            **{f"constant_{n}": v for n, v in signed(constants[name].mean(0)).items()},
        }
        for name, maps in images.items()
    ]


def _read_spots(found: Measurement, observed: Observations, context: Context) -> None:
    """Fill in the blind-spot map and its metrics."""
    responses, logits = observed.responses(), observed.logits()
    found.maps["blind_spots"] = responses.mean(0)
    if logits is not None:
        found.maps["blind_spots_logit"] = logits
    resamples = bootstrap(len(responses), context.draws, context.seed)
    try:
        found.metrics |= blind_metrics(relative_responses(responses), resamples)
    except NotApplicableError as error:
        found.metrics |= {name: missing(str(error)) for name in _BLIND}


def _read_filters(
    found: Measurement, model: Model, observed: Observations, context: Context
) -> None:
    """Fill in the mean filters."""
    resamples = bootstrap(len(observed.filters), context.draws, context.seed)
    found.metrics |= filter_metrics(observed.filters, resamples)
    found.tables["filters"] = filter_table(observed.filters)
    if model.source.get("weights") == "initial state":
        found.notes.append("mean filters: the kernels are random, what they show is chance")


def _exchanged(
    observed: Observations, border: str, resamples: Bootstrap
) -> tuple[Array, list[dict[str, Any]]]:
    """Replicates of the border drop at nine places under `border`; and its row of the table."""
    responses, plain = observed.exchanged(border)
    drops = border_drop(np.tensordot(resamples.weights, relative_responses(responses), 1))
    row = {
        "padding": border,
        "border_drop": float(drops[0]) if np.isfinite(drops[0]) else None,
        **{f"constant_{name}": value for name, value in signed(plain.mean(0)).items()},
    }
    return drops, [row]


PADDING = PaddingSuite()
