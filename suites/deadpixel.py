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
share of phases with A < t, `by_period_p` the part of the variance of A that period p adds to that
of the next smaller period. `relL1` and `relL2` (Kim et al.) are the mean absolute first and second
difference along both axes over the map's mean, on the whole map; `rawL1` and `rawL2` are not
divided.

Noise does not bias the estimates (see `unbiased`). `imbalance` and `by_period` are computed from
products of the profiles of different samples; for `weakest` and `ratio` the phase is chosen on one
half of the samples and read on the other half, in both directions. On even maps their intervals
contain the even value. If several phases are nearly the weakest, `weakest` lies between their
values. `dead@t` counts phases of the mean profile; noise blurs it if phases are close to t. Kim's
difference metrics are as published, noise included.

Fewer dead pixels are not always better: Kim et al. found that dead pixels help ordinary
classification training, and are harmful where small perturbations matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from .architecture.receptive_field import target_stride
from .base import Context, Estimate, Measurement, Metric, Probe, Suite, described, missing
from .measuring import phases
from .measuring.bootstrap import Bootstrap, bootstrap, linear
from .measuring.findings import least_sensitive_phase, period_shares
from .measuring.gradients import (
    TARGET_STREAM,
    normalise_members,
    pixel_energy,
    random_signs,
    require,
)
from .measuring.unbiased import estimate_square, pair_products, phase_estimates, pseudo_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ..adapters.model import Model, Outputs
    from .base import Array, Measured

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
            "share of the average sensitivity that the worst-served phase gets",
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
    },
    caveats={
        "weakest": NOT_ALWAYS_BETTER,
        "ratio": "It explodes as the least sensitive phase nears 0: compare that phase then.",
        "relL1": "Noise and content of the images count too: compare on the same images only.",
    },
    main=("weakest", "imbalance", "relL1"),
)


@dataclass(frozen=True)
class DeadPixel(Suite):
    """The suite; its module's docstring is the definition."""

    name: ClassVar[str] = "deadpixel"
    protocols: ClassVar[Mapping[str, str]] = {"energy": "1", "kim2023": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "weakest"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how evenly the target depends on the input's pixels"

    def causes(self, found: Measured) -> list[str]:
        """The least sensitive phase, and the stride periods that cause the variance."""
        return [*least_sensitive_phase(found), *period_shares(found)]

    def skip(self, model: Model, protocol: str) -> str | None:
        """Gradients and a spatial target (for its stride) are needed."""
        del protocol
        return model.why_no_gradients or model.why_not_spatial

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """The gradient of all units at once, or of the logit of the predicted class."""
        if protocol == "kim2023":
            return (Probe("deadpixel/kim2023", _top_logit, _kim_map, logits=True),)
        return (
            Probe(
                "deadpixel/energy",
                partial(_signed_sum, seed=seed),
                partial(pixel_energy, spec=model.spec),
            ),
        )

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Compute the metrics from the samples in `maps`, (samples, height, width)."""
        samples = maps[f"deadpixel/{protocol}"]
        if protocol == "energy":
            samples = normalise_members(model, samples)
        found = Measurement({}, {"sensitivity": samples.mean(0)})
        if protocol == "kim2023":
            found.maps["sensitivity_sum"] = samples.sum(0)
            found.notes.append("class of the logit: the one predicted for each image")
        resamples = bootstrap(len(samples), context.draws, context.seed)
        found.metrics.update(_differences(samples, resamples))
        found.metrics.update(_phase_metrics(samples, target_stride(model), resamples, found))
        return found


def _signed_sum(outputs: Outputs, indices: Sequence[int], *, seed: int) -> Tensor:
    """The sum over the batch of v . F, F being (batch, channels, height, width)."""
    target = require(outputs.target, "target")
    return (target * random_signs(target, indices, seed=seed, stream=TARGET_STREAM)).sum()


def _top_logit(outputs: Outputs, _indices: Sequence[int]) -> Tensor:
    return require(outputs.logits, "logits").amax(1).sum()


def _kim_map(gradient: Tensor) -> Tensor:
    return gradient.mean(1).relu()


def _differences(samples: Array, resamples: Bootstrap) -> dict[str, Estimate]:
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
    samples: Array, total: phases.Pair, resamples: Bootstrap, found: Measurement
) -> dict[str, Estimate]:
    """All metrics of the phase profile; missing with the reason if there are no phases."""
    period = phases.usable_period((samples.shape[1], samples.shape[2]), total, found.notes)
    if isinstance(period, str):
        return {m.name: missing(period) for m in _metrics()[:-4]}
    profiles = pseudo_values(samples, partial(phases.phase_profile, period=period))
    mean = np.tensordot(resamples.weights, profiles, 1)
    found.maps["phase_profile"] = mean[0]
    return {
        **phase_estimates(profiles, resamples),
        **{
            f"dead@{t}": resamples.estimate((mean < t).mean((-2, -1)), low=0.0, high=1.0)
            for t in DEAD_THRESHOLDS
        },
        **_periods(profiles, resamples),
    }


def _products(profiles: Array) -> Array:
    """Mean products of the deviations from 1 of all pairs of profiles (samples, p, q)."""
    return pair_products(profiles.reshape(len(profiles), -1) - 1)


def _periods(profiles: Array, resamples: Bootstrap) -> dict[str, Estimate]:
    parts = phases.by_period(profiles, _products)
    found = {f"by_period_{p}": estimate_square(pairs, resamples) for p, pairs in parts.items()}
    for p in phases.REPORTED_PERIODS:
        found.setdefault(f"by_period_{p}", missing(f"the period is not a multiple of {p}"))
    return found


DEADPIXEL = DeadPixel()
