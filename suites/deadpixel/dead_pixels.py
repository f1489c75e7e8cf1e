"""Dead pixels of `deadpixel`, counted pixel by pixel; `suite` has the definition."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from ...adapters.errors import NotApplicableError
from ..base import Estimate, Measurement, Metric, missing
from ..measuring import dead_regions, phases
from ..measuring.dead_regions import ALL, BEHIND, OUTPUT
from .read_by_outputs import regions_of_no_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ...adapters.model import Model
    from ..base import Array, Context, Measured

LOST_CHANNEL = 1e-3
"""Of the mean sensitivity of the most sensitive channel: below, a colour channel is dead.

Of eleven trained networks of results/trained the least has 0.08."""
MOST_NAMED, MOST_NAMED_ALONE = 3, 3
"""Dead regions of all channels together, and of single channels, that a sentence names."""


def _count(name: str, definition: str, unit: str = "pixels") -> Metric:
    return Metric(name, definition, unit, "lower", even=0.0)


DEAD_PIXELS = (
    _count(
        "silent_pixels",
        "pixels whose sensitivity is 0 in every sample, without phases that are dead as a whole",
    ),
    *(
        _count(f"dead_pixels@{t}", f"pixels certainly below {t} of what is due to them")
        for t in dead_regions.THRESHOLDS
    ),
    Metric("dead_share", "share of pixels that are dead", "share", "lower", high=1.0, even=0.0),
    _count("dead_region", "pixels of the largest connected dead region"),
    _count("dead_channels", "colour channels that are dead everywhere", "channels"),
)


def measure_dead_pixels(
    model: Model, channels: Array | None, found: Measurement, context: Context
) -> dict[str, Estimate]:
    """Dead pixels of `channels` (samples, channels, height, width), and the table of regions."""
    from ..architecture.receptive_field import target_stride

    if channels is None:
        why = missing("dead pixels are counted by the protocol energy")
        return {m.name: why for m in DEAD_PIXELS}
    dead = _by_channel(channels, target_stride(model))
    regions_by_name = {name: pixels.regions for name, pixels in dead.items()}
    regions_by_name[OUTPUT] = regions_of_no_output(model, channels, context)
    found.tables["dead_regions"] = [
        {
            "channel": name,
            "pixels": region.pixels,
            **dict(zip(dead_regions.BOX, region.box, strict=True)),
        }
        for name, regions in regions_by_name.items()
        for region in regions[: dead_regions.MOST_REGIONS]
    ]
    found.notes += _notes(dead, len(channels))
    every, largest = dead[ALL], max(dead_regions.THRESHOLDS)
    if every.dead[largest].any():
        found.maps["dead_pixels"] = every.dead[largest].astype(np.float64)
    regions = regions_by_name[ALL]
    return {
        "silent_pixels": Estimate(float(every.silent.sum())),
        **{f"dead_pixels@{t}": Estimate(float(m.sum())) for t, m in every.dead.items()},
        "dead_share": Estimate(float(every.dead[largest].mean())),
        "dead_region": Estimate(float(regions[0].pixels if regions else 0)),
        "dead_channels": Estimate(
            float(sum(bool(p.dead[largest].all()) for name, p in dead.items() if name != ALL))
        ),
    }


def _by_channel(channels: Array, stride: phases.Pair) -> dict[str, dead_regions.DeadPixels]:
    """The dead pixels of the sum of all channels, `all`, and of each where there are several."""
    by_name = {ALL: channels.sum(1)}
    if channels.shape[1] > 1:
        by_name |= {f"channel {c}": channels[:, c] for c in range(channels.shape[1])}
    most = float(channels.mean((0, 2, 3)).max())
    return {
        name: _all_dead(samples)
        if samples.mean() < LOST_CHANNEL * most
        else _dead_pixels_of(samples, stride)
        for name, samples in by_name.items()
    }


def _notes(dead: Mapping[str, dead_regions.DeadPixels], samples: int) -> list[str]:
    """Notes on pixels of dead phases, and on pixels that may be silent by chance."""
    notes = []
    left_out = dead[ALL].left_out
    if left_out:
        notes.append(
            f"{left_out} pixels are of phases that are dead as a whole; they are counted by "
            "dead@0.01, not as dead pixels"
        )
    counts = {name: pixels.by_chance for name, pixels in dead.items() if pixels.by_chance}
    if counts:
        alone = ", ".join(f"{count} ({name})" for name, count in counts.items())
        places = "this sample" if samples == 1 else f"these {samples} samples"
        notes.append(
            f"silent pixels that may be silent in {places} by chance, since "
            f"few units read them: {counts.get(ALL, alone)}; take more images"
        )
    return notes


BY_CHANCE = re.compile(r"silent pixels that may be silent in .* by chance, .* them: (.*); take")
"""In such a note: how many they are, or how many of which channels."""


def _all_dead(samples: Array) -> dead_regions.DeadPixels:
    """Every pixel of a lost channel (samples, height, width), and those that are silent."""
    silent = np.logical_not(samples.any(0))
    every = np.ones_like(silent)
    return dead_regions.DeadPixels(silent, dict.fromkeys(dead_regions.THRESHOLDS, every), 0)


def _dead_pixels_of(samples: Array, stride: phases.Pair) -> dead_regions.DeadPixels:
    """Dead pixels of one sensitivity, (samples, height, width)."""
    period = phases.fit_period((samples.shape[1], samples.shape[2]), stride)
    profile = None
    if period != (1, 1) and samples.any():
        try:
            profile = phases.phase_profile(samples.mean(0, keepdims=True), period)[0]
        except NotApplicableError:  # silent throughout the interior: nothing to divide by
            profile = None
    return dead_regions.find_dead_pixels(samples, period, profile)


LEFT_OUT = re.compile(r"(\d+) pixels are of phases that are dead as a whole;")
"""In a note: how many pixels are of dead phases."""


def not_counted(found: Measured) -> str:
    """What is silent and not counted as dead, in clauses; empty if nothing is.

    That is, pixels of phases that are dead as a whole, and those that chance may explain.
    """
    phased = next((match.group(1) for n in found.notes if (match := LEFT_OUT.match(n))), "")
    counts = next((match.group(1) for n in found.notes if (match := BY_CHANCE.match(n))), "")
    return "; ".join(
        [
            *([f"{int(phased):,} pixels are of phases that are dead as a whole"] if phased else []),
            *([f"silent, perhaps by chance: {counts} pixels; take more images"] if counts else []),
        ]
    )


def dead_places(found: Measured) -> list[str]:
    """Where the largest dead regions and dead colour channels are, in a clause each."""
    rows = found.tables.get("dead_regions", [])
    places = [(row["channel"], dead_regions.Region.of_row(row)) for row in rows]
    regions = [region for name, region in places if name == ALL]
    named = [f"dead: {region.text}" for region in regions[:MOST_NAMED]]
    if len(regions) > MOST_NAMED:
        every = found.metrics.get(f"dead_pixels@{max(dead_regions.THRESHOLDS)}")
        listed = sum(region.pixels for region in regions)
        rest = listed if every is None or every.value is None else round(every.value)
        rest -= sum(region.pixels for region in regions[:MOST_NAMED])
        named.append(f"dead: {dead_regions.counted_pixels(rest)} in other places")
    behind = [f"dead: {region.text}, {BEHIND}" for name, region in places if name == OUTPUT]
    alone = [
        f"dead in {name} alone: {region.text}"
        for name, region in places
        if name not in (ALL, OUTPUT) and not any(region.within(other) for other in regions)
    ]
    return [
        *named,
        *behind[:MOST_NAMED],
        *([f"dead: other places, {BEHIND}"] if len(behind) > MOST_NAMED else []),
        *alone[:MOST_NAMED_ALONE],
        *(["dead in single channels: other places, too"] if len(alone) > MOST_NAMED_ALONE else []),
    ]
