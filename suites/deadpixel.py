"""`deadpixel`: is the model equally sensitive to every pixel?

Protocols
---------
energy (default, ours)
    S(i, j) = mean over images and random sign vectors v of sum_c (d(v . F) / d image_cij)^2, per
    pixel value in [0, 1]. F is the target, all units at once. Unbiased for the sum over all target
    units of the squared Jacobian: the output noise power caused by unit noise at that pixel. The
    maps of several weight sets are first scaled to mean 1 each (`normalise_members`).
kim2023 (Kim et al. 2023, arXiv 2108.13576)
    ReLU of the channel-mean gradient of the predicted class's logit, in normalised units, per
    image, averaged. Their code sums over images, which is the map `sensitivity_sum`.

Metrics
-------
They are computed from the phase profile A (see `phases`), P being the total stride of the target:
`weakest` is min A, `imbalance` its coefficient of variation, `ratio` max A / min A, `dead@t` the
share of phases with A < t, `by_period_p` the part of the variance of A that period p adds to its
divisor before. `relL1` and `relL2` (Kim et al.) are the mean absolute first and second difference
along both axes over the map's mean, on the whole map; `rawL1` and `rawL2` are not divided.

All but Kim's difference metrics, which are as published, noise included, are read off draws from
the posterior of A (see `profile_posterior`): what the samples do not show is shrunk towards what
the architecture implies (`energy` alone) and towards even rows and columns. The map `phase_profile`
is the posterior's median, phase by phase, and a metric's value is that of this map.

Dead pixels (`energy` alone; see `dead_regions`) are counted pixel by pixel, not by phase:
`silent_pixels` whose sensitivity is 0 in every sample, `dead_pixels@t` that are certainly below t
times what their neighbourhood and phase imply, `dead_share` of all pixels at the largest t, and
`dead_region`, the pixels of the largest connected dead region. A colour channel counts on its own
too. Table `dead_regions` has the regions and their boxes in pixels, by channel. They are exact for
the images shown. Phases that are dead as a whole are not holes and are counted by `dead@t`.

Fewer dead pixels are not always better: Kim et al. found that dead pixels help ordinary
classification training, and are harmful where small perturbations matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ..adapters.errors import NotApplicableError
from ..adapters.treatment import ZEROS
from .base import Context, Estimate, Measurement, Metric, Probe, Suite, described, missing
from .measuring import dead_regions, phases
from .measuring.bootstrap import Bootstrap, bootstrap, linear
from .measuring.findings import (
    LEAST_PHASE,
    least_phase,
    least_sensitive_phase,
    period_shares,
)
from .measuring.gradients import (
    SIGNED,
    channel_energy,
    member_factors,
    normalise_members,
    require,
    signed_sum,
)
from .measuring.profile_lone import hidden
from .measuring.profile_posterior import Posterior, phase_estimates, profile_posterior
from .measuring.unbiased import pseudo_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..adapters.model import Model
    from .base import Array, Measured

DEAD_THRESHOLDS = (0.01, 0.1, 0.5)

NOT_ALWAYS_BETTER = (
    "Fewer dead pixels are not always better: dead pixels help ordinary classification training, "
    "and are harmful where small perturbations matter (Kim et al. 2023)."
)

LOST_CHANNEL = 1e-5
"""Of the mean sensitivity of the most sensitive channel: below, a colour channel is dead."""
MOST_NAMED, MOST_NAMED_ALONE = 3, 3
"""Dead regions of all channels together, and of single channels, that a sentence names."""


def _count(name: str, definition: str, unit: str = "pixels") -> Metric:
    return Metric(name, definition, unit, "lower", even=0.0)


DEAD_PIXELS = (
    _count("silent_pixels", "pixels whose sensitivity is 0 in every sample"),
    *(
        _count(f"dead_pixels@{t}", f"pixels certainly below {t} of what is due to them")
        for t in dead_regions.THRESHOLDS
    ),
    Metric("dead_share", "share of pixels that are dead", "share", "lower", high=1.0, even=0.0),
    _count("dead_region", "pixels of the largest connected dead region"),
    _count("dead_channels", "colour channels that are dead everywhere", "channels"),
)


def _metrics() -> tuple[Metric, ...]:
    dead = (
        Metric(f"dead@{t}", f"share of phases with A < {t}", "share", "lower", high=1.0, even=0.0)
        for t in DEAD_THRESHOLDS
    )
    periods = (
        Metric(
            f"by_period_{p}",
            f"variance of A that period {p} adds",
            "variance",
            "lower",
            low=None,
            even=0.0,
        )
        for p in phases.REPORTED_PERIODS
    )
    return (
        Metric(
            "weakest",
            "sensitivity of the least sensitive phase, as a share of the mean",
            "ratio",
            "higher",
            even=1.0,
        ),
        Metric("imbalance", "coefficient of variation of A", "ratio", "lower", even=0.0),
        Metric("ratio", "max A / min A", "ratio", "lower", even=1.0),
        *dead,
        *periods,
        Metric("relL1", "mean |first difference| / mean", "ratio", "lower", even=0.0),
        Metric("relL2", "mean |second difference| / mean", "ratio", "lower", even=0.0),
        Metric("rawL1", "mean |first difference|", "map units", "neither", even=0.0),
        Metric("rawL2", "mean |second difference|", "map units", "neither", even=0.0),
        *DEAD_PIXELS,
    )


_METRICS = described(
    _metrics(),
    {
        "weakest": "least sensitive phase",
        "imbalance": "imbalance of the phases",
        "ratio": "most over least sensitive phase",
        **{f"dead@{t}": f"phases below {t:g} of the mean" for t in DEAD_THRESHOLDS},
        **{f"by_period_{p}": f"variance from stride period {p}" for p in phases.REPORTED_PERIODS},
        "relL1": "first difference of the map",
        "relL2": "second difference of the map",
        "rawL1": "first difference, not normalised",
        "rawL2": "second difference, not normalised",
        "silent_pixels": "silent pixels",
        **{f"dead_pixels@{t}": f"pixels dead at {t:g}" for t in dead_regions.THRESHOLDS},
        "dead_share": "dead share of the image",
        "dead_region": "largest dead region",
        "dead_channels": "dead colour channels",
    },
    caveats={
        "weakest": NOT_ALWAYS_BETTER,
        "ratio": "It grows without bound as the least sensitive phase nears 0: compare that phase.",
        "relL1": "Noise and content of the images count too: compare on the same images only.",
    },
    exact={m.name: "always" for m in DEAD_PIXELS},
    verdicts={m.name: ("has dead pixels", "no dead pixels") for m in DEAD_PIXELS},
    main=("weakest", "imbalance", "relL1", "dead_share", "dead_region"),
)

_PHASED = tuple(
    m.name for m in _metrics() if m not in DEAD_PIXELS and not m.name.startswith(("rel", "raw"))
)
"""Names of the metrics of the phase profile."""


@dataclass(frozen=True)
class DeadPixel(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = "deadpixel"
    protocols: ClassVar[Mapping[str, str]] = {"energy": "3", "kim2023": "3"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "weakest"
    defect_tables: ClassVar[Sequence[str]] = ("dead_regions",)
    random: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    question: ClassVar[str] = "how evenly the target depends on the input's pixels"
    topic: ClassVar[str] = "Evenness"

    def defects(self, found: Measured) -> list[str]:
        """Dead regions and dead colour channels."""
        return dead_places(found)

    def causes(self, found: Measured) -> list[str]:
        """The least sensitive phase, and the stride periods that cause the variance."""
        return [*least_sensitive_phase(found), *period_shares(found)]

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """The gradient of all units at once, or of the logit of the predicted class."""
        if protocol == "kim2023":
            return (
                Probe(
                    "deadpixel/kim2023",
                    lambda outputs, _indices: require(outputs.logits, "logits").amax(1).sum(),
                    lambda gradient: gradient.mean(1).relu(),
                    logits=True,
                ),
            )
        return (
            Probe(
                "deadpixel/energy",
                partial(signed_sum, seed=seed),
                partial(channel_energy, spec=model.spec),
                gradient=SIGNED,
            ),
        )

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Compute the metrics from the samples in `maps`, (samples, height, width)."""
        samples = maps[f"deadpixel/{protocol}"]
        channels: Array | None = None
        if protocol == "energy":
            channels, samples = samples, samples.sum(1)
            channels = channels * member_factors(model, samples)[:, None]
            samples = normalise_members(model, samples)
        found = Measurement({}, {"sensitivity": samples.mean(0)})
        if protocol == "kim2023":
            found.maps["sensitivity_sum"] = samples.sum(0)
            found.notes.append("class of the logit: the one predicted for each image")
        resamples = bootstrap(len(samples), context.draws, context.seed)
        found.metrics.update(difference_metrics(samples, resamples))
        found.metrics.update(_phase_metrics(model, protocol, samples, resamples, found))
        found.metrics.update(_dead_pixels(model, channels, found))
        return found


def difference_metrics(samples: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    """Kim's difference metrics of the mean map, with first-order replicates."""
    mean = samples.mean(0)
    level, levels = mean.mean(), samples.mean((-2, -1))
    found = {}
    for order in (1, 2):
        raw, slope = _difference(mean, order)
        raws = samples.reshape(len(samples), -1) @ slope.ravel()
        relatives = (raws - raw / level * levels) / level
        relative = linear(np.asarray(raw / level), relatives, resamples.weights)
        found[f"relL{order}"] = resamples.estimate(relative, low=0.0)
        absolute = linear(np.asarray(raw), raws, resamples.weights)
        found[f"rawL{order}"] = resamples.estimate(absolute, low=0.0)
    return found


def _difference(mean: Array, order: int) -> tuple[float, Array]:
    """Mean absolute difference of the mean map, and its derivative by each pixel of the map."""
    level, slope = 0.0, np.zeros_like(mean)
    for axis in (0, 1):
        change = np.diff(mean, order, axis)
        around = [(order, order) if a == axis else (0, 0) for a in (0, 1)]
        signs = np.pad(np.sign(change), around)  # summation by parts
        slope += (-1) ** order * np.diff(signs, order, axis) / change.size
        level += float(np.abs(change).mean())
    return level / 2, slope / 2


def _phase_metrics(
    model: Model, protocol: str, samples: Array, resamples: Bootstrap, found: Measurement
) -> dict[str, Estimate]:
    """All metrics of the phase profile; missing with the reason if there are no phases."""
    from .architecture.expectation import expected_profile, phase_stride

    size = (samples.shape[1], samples.shape[2])
    stride = phase_stride(model, found.notes)
    period = stride if isinstance(stride, str) else phases.usable_period(size, stride, found.notes)
    if isinstance(period, str):
        return {name: missing(period) for name in _PHASED}
    profiles = pseudo_values(samples, partial(phases.phase_profile, period=period))
    expected = expected_profile(_as_it_computes(model), period) if protocol == "energy" else None
    posterior = profile_posterior(
        profiles, resamples, None if isinstance(expected, str) else expected
    )
    if posterior.contradicted:
        found.notes.append(
            "the samples contradict the profile that the architecture implies: estimates rest on "
            "the samples more than on it"
        )
    found.notes += filter(None, [hidden(profiles)])
    draws = posterior.draws
    found.maps["phase_profile"] = posterior.profile
    found.tables[LEAST_PHASE] = least_phase(posterior.profile)
    return {
        **phase_estimates(posterior, resamples, phases.interior_cells(size, period)),
        **{
            f"dead@{t}": resamples.from_draws(
                float((posterior.profile < t).mean()),
                (draws < t).mean((-2, -1)),
                low=0.0,
                high=1.0,
            )
            for t in DEAD_THRESHOLDS
        },
        **_periods(posterior, resamples),
    }


def _as_it_computes(model: Model) -> Model:
    """The model whose expectation holds: taps that hold 0 say nothing about what is computed."""
    padded_with_zeros = model.treatment is not None and model.treatment.fill in ZEROS
    return model.original or model if padded_with_zeros else model


def _periods(posterior: Posterior, resamples: Bootstrap) -> dict[str, Estimate]:
    values, draws = (phases.by_period(p) for p in (posterior.profile, posterior.draws))
    found = {
        f"by_period_{p}": resamples.from_draws(max(float(values[p]), 0.0), shares, low=0.0)
        for p, shares in draws.items()
    }
    for p in phases.REPORTED_PERIODS:
        found.setdefault(f"by_period_{p}", missing(f"the period is not a multiple of {p}"))
    return found


def _dead_pixels(model: Model, channels: Array | None, found: Measurement) -> dict[str, Estimate]:
    """Dead pixels of `channels` (samples, channels, height, width), and the table of regions."""
    from .architecture.receptive_field import target_stride

    if channels is None:
        why = missing("dead pixels are counted by the protocol energy")
        return {m.name: why for m in DEAD_PIXELS}
    stride = target_stride(model)
    by_name = {"all": channels.sum(1)}
    if channels.shape[1] > 1:
        by_name |= {f"channel {c}": channels[:, c] for c in range(channels.shape[1])}
    most = float(channels.mean((0, 2, 3)).max())
    dead = {
        name: _all_dead(samples)
        if samples.mean() < LOST_CHANNEL * most
        else _dead_pixels_of(samples, stride)
        for name, samples in by_name.items()
    }
    found.tables["dead_regions"] = [
        {
            "channel": name,
            "pixels": region.pixels,
            **dict(zip(dead_regions.BOX, region.box, strict=True)),
        }
        for name, pixels in dead.items()
        for region in pixels.regions[: dead_regions.MOST_REGIONS]
    ]
    every = dead["all"]
    if every.left_out:
        found.notes.append(
            f"{every.left_out} pixels are of phases that are dead as a whole; they are counted by "
            "dead@0.01, not as dead pixels"
        )
    if any(pixels.by_chance for pixels in dead.values()):
        counts = {name: pixels.by_chance for name, pixels in dead.items() if pixels.by_chance}
        alone = ", ".join(f"{count} ({name})" for name, count in counts.items())
        found.notes.append(
            f"silent pixels that may be silent in these {len(channels)} samples by chance, since "
            f"few units read them: {counts.get('all', alone)}; take more images"
        )
    largest = max(dead_regions.THRESHOLDS)
    if every.dead[largest].any():
        found.maps["dead_pixels"] = every.dead[largest].astype(np.float64)
    regions = every.regions
    return {
        "silent_pixels": Estimate(float(every.silent.sum())),
        **{f"dead_pixels@{t}": Estimate(float(m.sum())) for t, m in every.dead.items()},
        "dead_share": Estimate(float(every.dead[largest].mean())),
        "dead_region": Estimate(float(regions[0].pixels if regions else 0)),
        "dead_channels": Estimate(
            float(sum(bool(p.dead[largest].all()) for name, p in dead.items() if name != "all"))
        ),
    }


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


def dead_places(found: Measured) -> list[str]:
    """Where the largest dead regions and dead colour channels are, in a clause each."""
    rows = found.tables.get("dead_regions", [])
    regions = [dead_regions.Region.of_row(row) for row in rows if row["channel"] == "all"]
    named = [f"dead: {region.text}" for region in regions[:MOST_NAMED]]
    if len(regions) > MOST_NAMED:
        every = found.metrics.get(f"dead_pixels@{max(dead_regions.THRESHOLDS)}")
        listed = sum(region.pixels for region in regions)
        rest = listed if every is None or every.value is None else round(every.value)
        rest -= sum(region.pixels for region in regions[:MOST_NAMED])
        named.append(f"dead: {dead_regions.counted_pixels(rest)} in other places")
    channels = [
        (row["channel"], dead_regions.Region.of_row(row)) for row in rows if row["channel"] != "all"
    ]
    alone = [
        f"dead in {channel} alone: {region.text}"
        for channel, region in channels
        if not any(region.within(other) for other in regions)
    ]
    more = ["dead in single channels: other places, too"] if len(alone) > MOST_NAMED_ALONE else []
    return named + alone[:MOST_NAMED_ALONE] + more


DEADPIXEL = DeadPixel()
