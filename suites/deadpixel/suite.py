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
`silent_pixels` whose sensitivity is 0 in every sample, be it by chance, `dead_pixels@t` that are
certainly below t times what their neighbourhood and phase imply, `dead_share` of all pixels at the
largest t, and `dead_region`, the pixels of the largest connected dead region. A colour channel
counts on its own too. Table `dead_regions` has the regions and their boxes in pixels, by channel,
and those that the target reads and the `output` does not (see `read_by_outputs`), which no number
counts. They are exact for the images shown. Phases that are dead as a whole are not holes: their
pixels are counted by `dead@t`, not here, and a note says how many there are.

Fewer dead pixels are not always better: Kim et al. found that dead pixels help ordinary
classification training, and are harmful where small perturbations matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ...adapters.errors import NotApplicableError
from ...adapters.treatment import ZEROS
from ..base import Context, Estimate, Measurement, Metric, Probe, Suite, described, missing
from ..measuring import phases
from ..measuring.bootstrap import Bootstrap, bootstrap, linear
from ..measuring.dead_regions import THRESHOLDS
from ..measuring.findings import (
    LEAST_PHASE,
    least_phase,
    least_sensitive_phase,
    period_shares,
)
from ..measuring.gradients import (
    SIGNED,
    channel_energy,
    member_factors,
    normalise_members,
    require,
    signed_sum,
)
from ..measuring.profile_lone import hidden
from ..measuring.profile_posterior import Posterior, phase_estimates, profile_posterior
from ..measuring.unbiased import pseudo_values
from .dead_pixels import DEAD_PIXELS, dead_places, measure_dead_pixels, not_counted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array, Measured

DEAD_THRESHOLDS = (0.01, 0.1, 0.5)

NOT_ALWAYS_BETTER = (
    "Fewer dead pixels are not always better: dead pixels help ordinary classification training, "
    "and are harmful where small perturbations matter (Kim et al. 2023)."
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
        **{f"dead_pixels@{t}": f"pixels dead at {t:g}" for t in THRESHOLDS},
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
    verdicts={m.name: ("has dead pixels", "no dead pixels") for m in DEAD_PIXELS}
    | {"silent_pixels": ("has silent pixels", "no silent pixels")},
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

    def unseen(self, found: Measured) -> str:
        """Pixels of phases that are dead as a whole, and those that chance may have silenced."""
        return not_counted(found)

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
        found.metrics.update(measure_dead_pixels(model, channels, found, context))
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
    from ..architecture.expectation import expected_profile, phase_stride

    size = (samples.shape[1], samples.shape[2])
    stride = phase_stride(model, found.notes)
    period = stride if isinstance(stride, str) else phases.usable_period(size, stride, found.notes)
    if isinstance(period, str):
        return {name: missing(period) for name in _PHASED}
    try:
        profiles = pseudo_values(samples, partial(phases.phase_profile, period=period))
    except NotApplicableError as error:  # a hole over the interior, which is what there is to say
        return {name: missing(str(error)) for name in _PHASED}
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
    """The model whose expectation holds: taps of 0 do not change what is computed."""
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


DEADPIXEL = DeadPixel()
