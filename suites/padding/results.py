"""What the observations show: the metrics, maps, tables and notes of `padding`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import NotApplicableError
from ...adapters.padding_mode import PADDING_MODES
from ..base import Estimate, missing
from ..measuring.bootstrap import bootstrap
from ..measuring.dead_regions import connected_regions
from .blind_spots import blind_metrics, border_drop, relative_responses, unseen
from .mean_filters import filter_metrics, filter_table
from .silent_pixels import MOST_REFINING
from .spatial_bias import BIAS, bias, signed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...adapters.model import Model
    from ..base import Array, Context, Measurement
    from ..measuring.bootstrap import Bootstrap
    from .observe import Observations

BLIND = ("blind_weakest", "border_drop", "blind_cv", "blind_left_right", "blind_top_bottom")
"""Metrics of the response to a stimulus."""


def read_size(found: Measurement, model: Model, observed: Observations, context: Context) -> None:
    """Fill in everything that depends on the input size."""
    _read_uneven(found, model)
    _read_silent(found, model, observed)
    if not observed.members:
        names = (*BIAS, *(f"constant_{name}" for name in BIAS), *BLIND)
        found.leave_out(names, model.why_not_spatial or "no spatial map")
        return
    _read_maps(found, observed, context)
    _read_spots(found, observed, context)
    _read_places(found, model, observed)


def _read_places(found: Measurement, model: Model, observed: Observations) -> None:
    """Where the response is least, in pixels, and how much between the places is not looked at."""
    side, places = observed.side, observed.places
    top, left = places[int(found.maps["blind_spots"].argmin())]
    rows, columns = unseen(model.spec, side, places)
    pixels = slice(top, top + side), slice(left, left + side)
    silent = any(one.mask[pixels].all() for one in observed.silent)
    found.tables["blind_place"] = [
        {"top": top, "left": left, "bottom": top + side, "right": left + side}
        | {"unseen_rows": rows, "unseen_columns": columns, "silent": silent}
    ]
    if rows or columns:
        found.notes.append(
            f"blind spots: the stimulus of {side} pixels leaves up to {rows} rows and {columns} "
            "columns between its places unseen, where a blind spot can hide; padding.grid sets "
            "more places"
        )


CAN_HIDE = re.compile(
    r"^silent pixels: .* of at most (\d+) pixels along its shorter side, can hide(, and so can)?"
)
"""In a note: how large a hole may be that was not seen (0 where blocks were single pixels), and
whether one in a single colour channel can hide too."""


def _read_silent(found: Measurement, model: Model, observed: Observations) -> None:
    """Pixels and colour channels without any effect, where they were looked for."""
    if not observed.silent:
        return
    silent, (height, width) = observed.silent[0], (model.spec.height, model.spec.width)
    whole = {"pixels": height * width, "box": [0, 0, height, width]}
    found.tables["silent_regions"] = [
        *({"channel": _channel_name(model, c), **whole} for c in silent.channels),
        *(
            {"channel": "all", "pixels": region.pixels, "box": list(region.box)}
            for region in connected_regions(silent.mask)
        ),
    ]
    found.notes.append(what_can_hide(silent.block, model.spec.channels))
    if silent.finest > 1:
        found.notes.append(
            f"silent pixels: edges are placed to {silent.finest} pixels, not to single ones, after "
            f"{MOST_REFINING} cells"
        )


def what_can_hide(side: int, channels: int) -> str:
    """What blocks of `side` pixels cannot see, read by `CAN_HIDE`."""
    alone = ", and so can a hole of any size in one colour channel alone" if channels > 1 else ""
    return (
        f"silent pixels: blocks of {side} x {side} pixels without gaps, every row and column, "
        "every place at which the stimulus changed nothing, every colour channel as a whole; a "
        "hole that contains no whole block, row, column or such place, of at most "
        f"{2 * side - 2} pixels along its shorter side, can hide{alone}"
    )


def _channel_name(model: Model, channel: int) -> str:
    """Such as `channel 0 (red)`, in the order of the model's input."""
    colours = ("red", "green", "blue")
    if model.spec.channels != len(colours):
        return f"channel {channel}"
    place = channel if model.spec.channel_order == "RGB" else len(colours) - 1 - channel
    return f"channel {channel} ({colours[place]})"


def _read_uneven(found: Measurement, model: Model) -> None:
    """Fill in `uneven_layers` and the table `uneven`, or the reason why there is none."""
    from ..architecture.receptive_field import (
        nearest_even_sizes,
        target_stride,
        traced,
        uneven_rows,
    )

    size = (model.spec.height, model.spec.width)
    try:
        layers, _ = traced(model)
    except NotApplicableError as error:
        found.metrics["uneven_layers"] = missing(str(error))
        return
    rows, strides = uneven_rows(layers), target_stride(model)
    found.metrics["uneven_layers"] = Estimate(float(len(rows)))
    heights, widths = nearest_even_sizes(layers, size, strides)
    found.tables["uneven"] = [
        row | {"even_heights": heights, "even_widths": widths} for row in rows
    ]


def _read_maps(found: Measurement, observed: Observations, context: Context) -> None:
    """Fill in the mean feature maps: the metrics of the target and the table of all stages."""
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
        found.leave_out(BLIND, error)


def read_filters(
    found: Measurement, model: Model, observed: Observations, context: Context
) -> None:
    """Fill in the mean filters."""
    resamples = bootstrap(len(observed.filters), context.draws, context.seed)
    found.metrics |= filter_metrics(observed.filters, resamples)
    found.tables["filters"] = filter_table(observed.filters)
    if model.source.get("weights") == "initial state":
        found.notes.append(
            "mean filters: the kernels are random, so any asymmetry is due to chance"
        )


def read_exchange(
    found: Measurement, observed: Observations, context: Context, modes: Sequence[str]
) -> None:
    """Fill in `exchange_MODE` for the padding `modes` that were tried, and the table."""
    for name in PADDING_MODES:
        found.metrics[f"exchange_{name}"] = missing(
            "the model has no spatial map"
            if not observed.members
            else f"not requested: padding.exchange does not contain {name}"
        )
    if not (observed.members and modes):
        return
    resamples = bootstrap(len(observed.members), context.draws, context.seed)
    before, found.tables["exchange"] = _exchanged(observed, "zero", resamples)
    for border in modes:
        try:
            after, rows = _exchanged(observed, border, resamples)
        except NotApplicableError as error:
            found.metrics[f"exchange_{border}"] = missing(str(error))
            continue
        found.metrics[f"exchange_{border}"] = resamples.estimate(after - before)
        found.tables["exchange"] += rows
    found.notes += observed.members[0].notes


def _exchanged(
    observed: Observations, border: str, resamples: Bootstrap
) -> tuple[Array, list[dict[str, Any]]]:
    """Replicates of the border drop at nine places with padding `border`, and its table row."""
    responses, plain = observed.exchanged(border)
    drops = border_drop(np.tensordot(resamples.weights, relative_responses(responses), 1))
    row = {
        "padding": border,
        "border_drop": float(drops[0]) if np.isfinite(drops[0]) else None,
        **{f"constant_{name}": value for name, value in signed(plain.mean(0)).items()},
    }
    return drops, [row]
