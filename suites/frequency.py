"""`frequency`: which spatial frequencies of the image the target reacts to.

The gradient g of v . F with respect to the pixel values, v random signs and F the target, is that
of `deadpixel:energy`, and taken once for both. Its unitary discrete Fourier transform keeps the
energy (Parseval), so

    S(u) = E over v and samples of the sum over channels of |FFT(g)(u)|^2

is the squared norm of F's reaction to a wave of frequency u and unit norm. u = (row, column) is in
cycles per pixel, between -1/2 and 1/2; its size here is q = max(|u row|, |u column|), because a
grid of stride s represents exactly the waves with q <= 1 / (2 s), its Nyquist limit.

Metrics
-------
`band_p`: share of S with 1 / (2 p) < q <= 1 / p, for p = 2, 4, 8, 16: the frequencies that a
stride of p loses and one of p / 2 does not. `band_rest`: the share with q <= 1 / 32. They sum to 1.
`centroid`: mean of q, weighted by S. `above_nyquist`: share of the frequencies with q above the
limit of the first stride, that of the first strided layer in the order of execution (each axis by
its own stride): what can alias there. `above_nyquist_gain`: that share over the share of all
frequencies that lie there, 3/4 for a stride of 2: 1 for a network that reacts to all alike. The map
`spectrum` is S over its mean, (rows, columns) of frequencies from -1/2 up.

Samples are images, or, for several weight sets, weight sets, each scaled to mean 1. Shares are
ratios of means over samples.

Cost: the gradients of one pass, and an FFT of each.

Source: Krishnamachari et al., "Fourier Sensitivity and Regularization of Computer Vision Models"
(arXiv 2301.13514), for the transform of the input gradient; bands by the Nyquist limits of strides,
the target in place of the loss, and the first stride are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ..adapters.errors import PerimetryError
from .base import Context, Measurement, Metric, Probe, Suite, described, missing, require_at_least
from .measuring.bootstrap import bootstrap
from .measuring.gradients import SIGNED, normalise_members, signed_sum

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from ..adapters.input_spec import InputSpec
    from ..adapters.model import Model
    from .base import Array, Estimate
    from .measuring.bootstrap import Bootstrap

BANDS = (2, 4, 8, 16)

_METRICS = described(
    (
        Metric("centroid", "mean frequency of the sensitivity", "cycles per pixel", "neither"),
        Metric("above_nyquist", "share above the first stride's limit", "share", "lower", high=1.0),
        Metric("above_nyquist_gain", "that over the share of frequencies", "ratio", "neither"),
        *(
            Metric(f"band_{p}", f"share of 1/{2 * p} to 1/{p} cycle per pixel", "share", "neither")
            for p in BANDS
        ),
        Metric("band_rest", "share up to 1/32 cycle per pixel", "share", "neither", high=1.0),
    ),
    {
        "centroid": "mean frequency",
        "above_nyquist": "energy above the first limit",
        "above_nyquist_gain": "that over a white spectrum's",
        **{f"band_{p}": f"energy that stride {p} loses first" for p in BANDS},
        "band_rest": "energy of lower frequencies",
    },
    caveats={
        "above_nyquist": "It can alias; that it does, the first layer's blur may prevent.",
        "centroid": "Images have little energy at high frequencies: reaction is not influence.",
    },
    main=("centroid", "above_nyquist"),
)


@dataclass(frozen=True)
class Frequency(Suite):
    """The suite; its module's docstring is the definition and explains the setting."""

    stride: int | None = None
    name: ClassVar[str] = "frequency"
    protocols: ClassVar[Mapping[str, str]] = {"gradient": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "centroid"
    random: ClassVar[bool] = True
    needs_gradients: ClassVar[bool] = True
    question: ClassVar[str] = "which spatial frequencies the target reacts to"
    topic: ClassVar[str] = "Frequencies"
    setting_help: ClassVar[Mapping[str, str]] = {
        "stride": "the first stride, in pixels; None for that of the first strided layer"
    }

    def __post_init__(self) -> None:
        require_at_least(self, 1, "stride", unit="pixel")

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """The gradient of all units at once, with random signs."""
        return (
            Probe(
                "frequency/gradient",
                partial(signed_sum, seed=seed),
                partial(power_spectrum, spec=model.spec),
                gradient=SIGNED,
            ),
        )

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Compute the metrics from the spectra in `maps`, (samples, height, width)."""
        spectra = normalise_members(model, maps["frequency/gradient"].astype(np.float64))
        resamples = bootstrap(len(spectra), context.draws, context.seed)
        found = Measurement({})
        mean = spectra.mean(0)
        found.maps["spectrum"] = np.fft.fftshift(mean / mean.mean())
        rows, columns = frequencies(spectra.shape[1], spectra.shape[2])
        size = np.maximum(rows, columns)
        total = spectra.sum((1, 2))
        share = partial(_share, spectra, total, resamples)
        found.metrics["centroid"] = share(size, high=0.5)
        for p in BANDS:
            inside = (size > 1 / (2 * p) + ROUNDING) & (size <= 1 / p + ROUNDING)
            found.metrics[f"band_{p}"] = share(inside)
        found.metrics["band_rest"] = share(size <= 1 / (2 * BANDS[-1]) + ROUNDING)
        stride = first_stride(model) if self.stride is None else (self.stride, self.stride)
        names = ("above_nyquist", "above_nyquist_gain")
        if isinstance(stride, str):
            found.leave_out(names, stride)
            return found
        beyond = (rows > 1 / (2 * stride[0]) + ROUNDING) | (
            columns > 1 / (2 * stride[1]) + ROUNDING
        )
        found.notes.append(f"the first stride is {stride[0]} x {stride[1]} pixels")
        found.metrics[names[0]] = share(beyond)
        found.metrics[names[1]] = (
            share(beyond / beyond.mean(), high=None)
            if beyond.any()
            else missing("no frequency is above the limit of a stride of 1")
        )
        return found


ROUNDING = 1e-9
"""Slack of frequencies that are limits of bands."""


def _share(
    spectra: Array,
    total: Array,
    resamples: Bootstrap,
    weight: np.ndarray[Any, Any],
    *,
    high: float | None = 1.0,
) -> Estimate:
    """The mean of `weight` (rows, columns) over frequencies, weighted by the mean spectrum."""
    part = (spectra * weight).sum((1, 2))
    values = (resamples.weights @ part) / (resamples.weights @ total)
    return resamples.estimate(values, low=0.0, high=high)


def frequencies(height: int, width: int) -> tuple[Array, Array]:
    """|row frequency| and |column frequency| of each entry of an FFT, in cycles per pixel."""
    rows, columns = (np.abs(np.fft.fftfreq(n)) for n in (height, width))
    return np.broadcast_to(rows[:, None], (height, width)), np.broadcast_to(
        columns, (height, width)
    )


def power_spectrum(gradient: Tensor, spec: InputSpec) -> Tensor:
    """Energy of each frequency (batch, height, width) of a gradient (batch, channels, h, w).

    The gradient is with respect to the normalised input; the energy is for pixel values.
    """
    import torch

    pixels = gradient.float() * (spec.value_range / spec.channel_std(gradient.float()))
    energy: Tensor = torch.fft.fft2(pixels, norm="ortho").abs().square().sum(1)
    return energy


def first_stride(model: Model) -> tuple[int, int] | str:
    """The stride of the first strided layer along (rows, columns), or why it is unknown."""
    from .architecture.receptive_field import traced

    try:
        layers, _ = traced(model)
    except PerimetryError as error:
        return f"the first stride is unknown: {error}"
    for layer in layers:
        if layer.strided:
            rows, columns = (window.stride for window in layer.windows)
            return rows, columns
    return "no layer has a stride"


FREQUENCY = Frequency()
