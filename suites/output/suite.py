"""`output`: how evenly the units of a dense output vary, the counterpart of dead pixels.

Decoders, super-resolution and depth networks compute a fine map from a coarse one. Units of the
output lie at different *phases* of the upsampling: unit (i, j) has the phase (i mod P, j mod P),
with P the units of the output per unit of the coarsest map, along each axis. A transposed
convolution of kernel 3 and stride 2 reaches its outputs by 1, 2, 1, 2, ... taps, which is seen as a
checkerboard (Odena et al. 2016). The map that is measured is the output of the most units, or the
target if no output is a map or if `--target` names one. Where it is not finer than the coarsest map
the suite does not apply. Profiles are computed as those of `deadpixel` (see `measuring.phases`):
the map over its moving mean over P x P units, averaged over the interior units of each phase, over
the mean of all. If fewer than three interior cells fit, P is lowered to a divisor, and a note says
so.

Exact, from the architecture
    Forward passes of ones through the rules of `architecture`, read at the central units, with an
    input large enough that borders do not matter. `count_weakest` and `count_ratio`: smallest phase
    over the mean, and largest over smallest, of the number of paths from the input to each unit,
    every kernel 1: transposed convolutions, pixel shuffles, interpolations and reshapes of patches
    included. `expected_weakest` and `expected_imbalance`: smallest phase and coefficient of
    variation of the expected energy E F^2 of the units, over independent zero-mean weights and a
    white input. `padded_imbalance`: the same, every transposed convolution having a kernel grown to
    the next multiple of its stride, as the kernel padding `box` does.
    Interpolations have fixed coefficients, and the units that they combine are taken to be
    uncorrelated. The table `upsampling` lists transposed convolutions with the taps that reach each
    of their phases.
Measured, by forward passes only
    E(i, j) = mean over channels of (F_c(i, j) - mean of F_c over the map)^2, divided by its mean,
    of each sample; `weakest`, `imbalance` and `ratio` of the profile of the mean over samples, on
    the images; `noise_weakest` and `noise_imbalance` on as many images of white noise in the
    model's normalised space. `grid_amplitude`: the pattern that all samples share: the mean of F_c
    minus its moving mean over P x P units at each phase, over the root of the mean of E; its root
    mean square over channels and phases, sampling noise removed (see `measuring.unbiased`). It is
    the height of the checkerboard in standard deviations of the output, and can be large where
    energies are even. Weight sets have patterns of their own, so it is missing for several.

Maps: `expected_profile`, `noise_profile` and `phase_profile` (of the images), of mean 1.

Samples are images, or, for several weight sets, weight sets. Intervals of profiles are quantiles of
their posterior (see `measuring.profile_posterior`), without leaning on the expected profile.

Cost: two forward passes per image.

Source: Odena, Dumoulin and Olah, "Deconvolution and Checkerboard Artifacts", Distill 2016, for the
counts; energies, profiles and the pattern are ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...adapters.errors import InputError, NotApplicableError, PerimetryError
from ..base import MEASURED_AT, Context, Estimate, Measurement, Metric, Suite, described, missing
from ..measuring import phases
from ..measuring.batching import Batching
from ..measuring.bootstrap import bootstrap
from ..measuring.findings import join_names
from ..measuring.output_view import at_output, map_of, named_units, why_no_map
from ..measuring.profile_lone import hidden
from ..measuring.profile_posterior import phase_estimates, profile_posterior
from ..measuring.unbiased import pseudo_values, root_mean_square
from .expected import expected_output, upsampling
from .observed import observe_output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array, Measured

LEAST_GAIN = 1e-9
"""A fall of the expected imbalance below this is rounding."""

_MEASURED = (
    Metric("weakest", "smallest phase of the output's energy", "ratio", "higher", even=1.0),
    Metric("imbalance", "coefficient of variation over the phases", "ratio", "lower", even=0.0),
    Metric("ratio", "largest over smallest phase", "ratio", "lower", low=1.0, even=1.0),
    Metric("grid_amplitude", "rms of the repeating pattern", "deviations", "lower", even=0.0),
)

_NOISE = (
    Metric("noise_weakest", "smallest phase on noise", "ratio", "higher", even=1.0),
    Metric("noise_imbalance", "variation over the phases on noise", "ratio", "lower", even=0.0),
)

_EXACT = (
    Metric("count_weakest", "fewest over mean paths to a phase", "ratio", "higher", even=1.0),
    Metric("count_ratio", "most over fewest paths", "ratio", "lower", low=1.0, even=1.0),
    Metric("expected_weakest", "smallest phase over random weights", "ratio", "higher", even=1.0),
    Metric("expected_imbalance", "variation over random weights", "ratio", "lower", even=0.0),
    Metric("padded_imbalance", "the same with padded kernels", "ratio", "lower", even=0.0),
)

_METRICS = described(
    (*_MEASURED, *_NOISE, *_EXACT),
    {
        "weakest": "least served phase",
        "imbalance": "imbalance of the phases",
        "ratio": "most over least served phase",
        "grid_amplitude": "height of the repeating pattern",
        "noise_weakest": "least served phase, on noise",
        "noise_imbalance": "imbalance, on noise",
        "count_weakest": "paths to the least served phase",
        "count_ratio": "most over fewest paths of a phase",
        "expected_weakest": "least served phase, random weights",
        "expected_imbalance": "imbalance, random weights",
        "padded_imbalance": "the same, kernels padded",
    },
    caveats={
        "weakest": "An output that should have a grid, such as a mosaic, has it here too.",
        "grid_amplitude": "Content of few images that repeats with the period counts too.",
        "expected_weakest": "It is an expectation over random weights: training may change it.",
        "count_ratio": "Paths ignore what weights, norms and later layers make of them.",
    },
    exact={metric.name: "always" for metric in _EXACT},
    main=("weakest", "imbalance", "grid_amplitude", "expected_weakest"),
)


@dataclass(frozen=True)
class Output(Suite):
    """The suite; its module's docstring is the definition and explains the setting."""

    period: int | None = None
    name: ClassVar[str] = "output"
    protocols: ClassVar[Mapping[str, str]] = {"forward": "1"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "weakest"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "how evenly the output's grid is served"
    topic: ClassVar[str] = "Output grid"
    captions: ClassVar[Mapping[str, str]] = {
        "upsampling": "Transposed convolutions, and the taps that reach each output phase"
    }
    setting_help: ClassVar[Mapping[str, str]] = {
        "period": "units of a period of the output; None for those per unit of the coarsest map"
    }

    def __post_init__(self) -> None:
        if self.period is not None and self.period < 2:
            raise InputError(f"output.period = {self.period}; expected at least 2 units, or none")

    def skip(self, model: Model, protocol: str) -> str | None:
        """An upsampled map is needed."""
        if (reason := why_no_map(model)) is not None:
            return reason
        try:
            self.period_of(model)
        except NotApplicableError as error:
            return str(error)
        return None

    def period_of(self, model: Model) -> phases.Pair:
        """The period in units of the output. Raises `NotApplicableError` if there is none."""
        return upsampling(model) if self.period is None else (self.period, self.period)

    def causes(self, found: Measured) -> list[str]:
        """The least served phase, and transposed convolutions of uneven counts."""
        profile = found.maps.get("phase_profile")
        said = []
        if profile is not None:
            row, column = np.unravel_index(int(np.argmin(profile)), profile.shape)
            cell = " x ".join(map(str, profile.shape))
            said.append(f"the least served phase is row {row}, column {column} of {cell} units")
        names = [row["name"] for row in _uneven(found)]
        return said + ([f"uneven taps: {join_names(names)}"] if names else [])

    def remedies(self, found: Measured, size: tuple[int, int]) -> list[str]:
        """Kernels of transposed convolutions that are multiples of their strides."""
        before, after = (found.metrics[f"{n}_imbalance"].value for n in ("expected", "padded"))
        rows = _uneven(found)
        if not rows or before is None or after is None or before - after < LEAST_GAIN:
            return []  # taps of a box need not be equally many to be even
        kernels = [f"{row['name']} to {_by(row['padded_kernel'])}" for row in rows]
        return [
            f"growing kernels to a multiple of their stride ({join_names(kernels)}) takes the "
            f"expected imbalance from {before:.3f} to {after:.3f}: kernel padding does it (box)"
        ]

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Read the architecture, and measure the output on noise and on the images."""
        found = Measurement({}, notes=[f"{MEASURED_AT}{named_units(at_output(model))}"])
        period = _fitting(self.period_of(model), model, found)
        if isinstance(period, str):
            found.leave_out(self.metrics, period)
            return found
        from ..images import open_images

        _read_expected(model, period, found)
        noise = open_images("noise", len(context.images), context.seed).load(model.spec)
        _read_observed(model, noise, period, context, found, "noise_")
        _read_observed(model, context.images, period, context, found, "")
        return found


def _uneven(found: Measured) -> list[dict[str, Any]]:
    """The rows of transposed convolutions whose phases are reached by unequal numbers of taps."""
    return [
        row
        for row in found.tables.get("upsampling", [])
        if any(len(set(row[axis])) > 1 for axis in ("taps_rows", "taps_columns"))
    ]


def _by(kernel: Any) -> str:
    return " x ".join(map(str, kernel))


def _fitting(period: phases.Pair, model: Model, found: Measurement) -> phases.Pair | str:
    """`period`, or the largest divisor of which three interior cells fit, or why there is none."""
    grid = map_of(at_output(model))
    fitted = phases.fit_period((grid.height, grid.width), period)
    if fitted == (1, 1):
        return f"{phases.NO_PERIOD_FITS}: there are no phases"
    if fitted != period:
        found.notes.append(f"period lowered from {period} to {fitted}: too few interior cells")
    return fitted


def _read_expected(model: Model, period: phases.Pair, found: Measurement) -> None:
    """Fill in the exact metrics, or the reason why there are none."""
    try:
        expected = expected_output(model, period)
    except PerimetryError as error:
        found.leave_out(_EXACT, error)
        return
    ratio = float(phases.ratio(expected.paths))
    found.metrics |= {
        "count_weakest": Estimate(float(phases.least_sensitive(expected.paths))),
        "count_ratio": Estimate(ratio)
        if np.isfinite(ratio)
        else missing("no path leads to some phase: the ratio is unbounded"),
        "expected_weakest": Estimate(float(phases.least_sensitive(expected.energy))),
        "expected_imbalance": Estimate(float(phases.imbalance(expected.energy))),
        "padded_imbalance": Estimate(float(phases.imbalance(expected.padded))),
    }
    found.maps["expected_profile"] = expected.energy
    found.tables["upsampling"] = expected.table()


def _read_observed(
    model: Model,
    images: Tensor,
    period: phases.Pair,
    context: Context,
    found: Measurement,
    prefix: str,
) -> None:
    """Fill in the metrics of one set of images, or the reason why there are none."""
    names = [m.name for m in (_NOISE if prefix else _MEASURED)]
    try:
        batching = Batching(context.batch, model.device, found.notes)
        seen = observe_output(model, images, period, batching)
        profiles = pseudo_values(seen.energies, partial(phases.phase_profile, period=period))
    except NotApplicableError as error:
        found.leave_out(names, error)
        return
    resamples = bootstrap(len(profiles), context.draws, context.seed)
    posterior = profile_posterior(profiles, resamples)
    cells = phases.interior_cells((seen.energies.shape[1], seen.energies.shape[2]), period)
    estimates = phase_estimates(posterior, resamples, cells)
    found.notes += filter(None, [None if prefix else hidden(profiles)])
    found.maps[f"{prefix}profile" if prefix else "phase_profile"] = posterior.draws.mean(0)
    found.metrics |= {
        prefix + name: one for name, one in estimates.items() if prefix + name in names
    }
    if "grid_amplitude" in names:
        found.metrics["grid_amplitude"] = (
            missing("each weight set has a pattern of its own")
            if model.members > 1
            else resamples.estimate(
                root_mean_square(seen.patterns, resamples)
                / np.sqrt(resamples.weights @ seen.levels),
                low=0.0,
            )
        )


OUTPUT = Output()
