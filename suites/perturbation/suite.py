"""`perturbation`: the effect of small input changes, from forward passes, for every model.

F is the target, all units at once, or the logits of a model without a spatial map; y are the
logits, or F for a model without logits. Changes are in pixel values in [0, 1] unless said
otherwise.

Protocol `forward`
------------------
Position test (Kim et al. 2023; see `position_response`)
    MD(i, j): mean over y of |change| when epsilon (normalised units) is added to all channels of
    one pixel, averaged over `position_images` images, over a centred block of whole stem periods
    with 5 or more places per side. The stem ends where the cumulative stride first reaches 4; more
    than 8 places per side are replaced by evenly spaced ones. `position_mean`; `position_cv`, its
    coefficient of variation over the places, without the samples' noise; `position_r2`, of its
    regression on the root of the gradient map R at the same pixels, R being the mean of
    `deadpixel`'s energy map over the comb's images. Kim et al. regress on their own R. With few
    images R is noisy, which lowers R^2.
Phase comb (ours; see `phase_comb`)
    Mean squared central difference per pixel when all interior pixels of one phase change at once
    by +-h with random signs: unbiased for the phase's mean energy. The period is the largest
    divisor of the target's stride that is at most 4, or the setting `period`. `comb_weakest`,
    `comb_imbalance`, `comb_ratio` are computed from the profile (mean 1) as in `deadpixel`, except
    that slow trends are not divided out. `comb_step` is h, chosen between float noise, rounding and
    curvature (see `measuring.step_size`); `comb_error` the relative difference of responses at
    h and 4 h, over the comb's images. Where it is above `step_size.MAX_STEP_ERROR` the responses
    depend on the step: everything computed from them is missing, except these two.
Detectability (ours; observer: non-prewhitening matched filter, Barrett & Myers 2004)
    s = dF / d(step) along a comb, K the covariance of F under independent normal input noise of
    standard deviation `noise` at every pixel and channel. An observer that uses the product of F
    with s has d'(e) = e |s|^2 / sqrt(s' K s); `detect_weakest` and `detect_strongest` are the e at
    which d' = 1, numerator and radicand averaged over samples, at the phase of least and most
    energy; `detect_ratio` the first over the second. A weak phase with units of its own is as
    detectable as any other; one that shares its units is masked by the noise of the others.
    K comes from `noise_draws` = m draws for each of n images, so s' K s is unbiased, with about nu
    = n (m - 1) degrees of freedom (fewer where one image dominates the mean) and a relative
    standard deviation of sqrt(2 / nu). Thresholds, being roots, are too small by 1 / (4 nu), and
    with r the correlation of the two phases' noises their ratio is too large by (1 - r) / (2 nu),
    with a standard deviation of sqrt((1 - r) / nu) by the draws alone. The bias is a share of at
    most 0.2 / sqrt(nu) of the interval's half width: 4 % at six draws for each of six images, 2 %
    at 24, where the draws spread a threshold by 6 %.
Attack leverage (ours; see `attack`)
    `leverage`: norm of the change of y caused by a gradient-sign step of `attack_step` against the
    margin of the top logit, restricted to the strongest phase, over the same for the weakest.
Shift consistency (Zhang 2019; see `shift_consistency`)
    Share of images of which two crops at random offsets of 0 to `shift` have the same arg-max.

Several weight sets
    The gain of a random network is arbitrary, with heavy tails; without scaling, one initial state
    could dominate the mean (`normalise_members`). The energies, MD and attack effects of each
    weight set are therefore scaled to mean 1 (over phases, places, or the map) before they are
    averaged, and its errors are relative to its own responses. Detection thresholds are in pixel
    values and independent of the gain of F: the signals of a weight set are divided by their mean,
    its noises by the square of that. `position_mean`, which is in output units, is the geometric
    mean over weight sets, 0 if one does not respond; the map `positions` is relative. Images of one
    weight set are averaged without scaling.

Agreement of three estimates, all as interior phase means over their mean
-------------------------------------------------------------------------
`agreement_gradient`: root-mean-square difference of the comb's profile and the gradients', sampling
noise removed. `agreement_gradient_z`: the same in standard errors (of sampling, and the relative
change of squared responses between h and 4 h), about 1 if they agree. `agreement_direction`:
relative difference of v . F's derivatives along the combs by differences and by gradients, v random
signs; it has no sampling error, so it is of the order of `comb_error`. `agreement_structure`:
root-mean-square difference of the comb's profile and the one expected by `structure`; trained
weights, which are no longer independent with zero mean, need not agree with it.

Phases are chosen on all samples but one and read on that one, in turn.

Cost, in forward passes: p q pairs for each of `comb_draws`; up to 64 places for each of
`position_images`; p q for each of `attack_images`; for each image of the comb `noise_draws`, four
for the error of the step, and a backward pass or two; 12 for the step; two an image for the shift:
about 600 by default. On a network that rounds, those of the comb twice, and up to 40 more for the
step. Intervals need four samples, which the position test has for `position_images` >= 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ...adapters.errors import InputError, PerimetryError
from ..base import Context, Measurement, Metric, Suite, described, missing, require_at_least
from ..measuring.findings import least_sensitive_phase
from ..measuring.forward import gives_logits
from ..measuring.step_size import step_size_passes as passes_for_step
from .comb_responses import CombTest
from .directional import AttackTest, DirectionalDerivatives
from .phase_comb import Comb, choose_comb
from .position_response import PositionTest, make_block, stem_period
from .shift_consistency import ShiftTest
from .study import PerturbationStudy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array, Measured

_POSITION = (
    Metric("position_mean", "mean |output change| by one pixel", "output units", "neither"),
    Metric("position_cv", "its coefficient of variation over places", "ratio", "lower", even=0.0),
    Metric("position_r2", "R^2 of it on the root gradient energy", "share", "neither", high=1.0),
)

_COMB = (
    Metric("comb_weakest", "weakest phase's share of the mean", "ratio", "higher", even=1.0),
    Metric("comb_imbalance", "coefficient of variation over phases", "ratio", "lower", even=0.0),
    Metric("comb_ratio", "strongest over weakest phase", "ratio", "lower", low=1.0, even=1.0),
    Metric("comb_step", "step of the differences", "pixel value", "neither"),
    Metric("comb_error", "relative change of responses with the step", "ratio", "neither"),
)

_AGREEMENT = (
    Metric("agreement_gradient", "rms distance to the gradients' profile", "ratio", "neither"),
    Metric("agreement_gradient_z", "the same in standard errors", "standard errors", "neither"),
    Metric(
        "agreement_direction", "differences against directional derivatives", "ratio", "neither"
    ),
    Metric("agreement_structure", "rms distance to the structure's profile", "ratio", "neither"),
)

_PHASED = (
    Metric("detect_weakest", "step with d' = 1 at the weakest phase", "pixel value", "neither"),
    Metric("detect_strongest", "step with d' = 1 at the strongest phase", "pixel value", "neither"),
    Metric("detect_ratio", "weakest over strongest threshold", "ratio", "lower", even=1.0),
    Metric("leverage", "attack on the strongest over the weakest", "ratio", "lower", even=1.0),
)

_SHIFT = Metric(
    "shift_consistency", "shifted crops of the same class", "share", "higher", high=1.0, even=1.0
)

_METRICS = described(
    (*_COMB, *_PHASED, *_POSITION, _SHIFT, *_AGREEMENT),
    {
        "comb_weakest": "least sensitive phase",
        "comb_imbalance": "imbalance of the phases",
        "comb_ratio": "most over least sensitive phase",
        "comb_step": "step of the differences",
        "comb_error": "error of the differences",
        "detect_weakest": "detectable step, weakest phase",
        "detect_strongest": "detectable step, strongest phase",
        "detect_ratio": "ratio of the detectable steps",
        "leverage": "attack, strongest over weakest",
        "position_mean": "output change by one pixel",
        "position_cv": "variation of it over places",
        "position_r2": "R² of it on the gradients",
        "shift_consistency": "shifted crops of the same class",
        "agreement_gradient": "distance to the gradients' profile",
        "agreement_gradient_z": "the same in standard errors",
        "agreement_direction": "distance along the same directions",
        "agreement_structure": "distance to the expected profile",
    },
    caveats={
        "position_mean": "It has the unit of the outputs: compare variants of one model only.",
        "shift_consistency": "Untrained weights have nearly tied classes: it says little of them.",
        "agreement_gradient_z": "About 1 is expected; above 2, differences and gradients disagree.",
        "agreement_direction": "Up to 3 times the error of the differences it means agreement.",
        "agreement_structure": "It shows a departure only where its interval leaves out 0.",
    },
    main=("comb_weakest", "comb_imbalance", "detect_ratio", "shift_consistency"),
    verdicts={"shift_consistency": ("inconsistent", "consistent")},
)


@dataclass(frozen=True)
class Perturbation(Suite):
    """The suite; its module's docstring is the definition and explains the settings."""

    epsilon: float = 0.1
    block: int | None = None
    position_images: int = 2
    period: int | None = None
    comb_draws: int = 6
    noise: float = 1 / 255
    noise_draws: int = 24
    attack_step: float = 1 / 255
    attack_images: int = 4
    shift: int = 31
    shift_pairs: int = 1
    name: ClassVar[str] = "perturbation"
    protocols: ClassVar[Mapping[str, str]] = {"forward": "4"}
    metrics: ClassVar[tuple[Metric, ...]] = _METRICS
    headline: ClassVar[str] = "comb_weakest"
    random: ClassVar[bool] = True
    question: ClassVar[str] = "what small changes of the input do, by differences alone"
    topic: ClassVar[str] = "Evenness"
    setting_help: ClassVar[Mapping[str, str]] = {
        "epsilon": "change of one pixel in the position test, in normalised units",
        "block": "side in pixels of the position test's block; None for a default by stride",
        "position_images": "images of the position test",
        "period": "period of the phase comb; None for a divisor of the stride up to 4",
        "comb_draws": "random sign patterns per image and phase",
        "noise": "deviation of the input noise of detectability, in pixel values from 0 to 1",
        "noise_draws": "draws of that noise per image",
        "attack_step": "size of the gradient-sign step, in pixel values from 0 to 1",
        "attack_images": "images that are attacked",
        "shift": "largest offset of the two crops of shift consistency, in pixels",
        "shift_pairs": "pairs of crops per image",
    }

    def causes(self, found: Measured) -> list[str]:
        """The least sensitive phase."""
        return least_sensitive_phase(found, "comb_profile")

    def __post_init__(self) -> None:
        for name in ("epsilon", "noise", "attack_step"):
            value = getattr(self, name)
            if not (value > 0 and math.isfinite(value)):
                raise InputError(f"perturbation.{name} = {value}; expected a finite step above 0")
        counts = ("block", "position_images", "period", "comb_draws", "attack_images")
        require_at_least(self, 1, *counts, "shift_pairs")
        require_at_least(self, 2, "noise_draws")
        require_at_least(self, 0, "shift")

    def passes(
        self, images: int, *, phases: int = 16, places: int = 64, gradients: bool = False
    ) -> int:
        """Number of forward passes over a set of `images`; by default the most for any model.

        A network that rounds needs at most twice as many and 40 more.
        """
        combed = min(images, self.comb_draws)
        attacked = min(images, self.attack_images) if gradients else 0
        return (
            2 * phases * self.comb_draws
            + combed * (self.noise_draws + 4)
            + passes_for_step(None)
            + min(images, self.position_images) * (places + 1)
            + attacked * (phases + 1)
            + 2 * self.shift_pairs * images
        )

    def skip(self, model: Model, protocol: str) -> str | None:
        """A spatial target or logits are needed."""
        if model.why_not_spatial is None or gives_logits(model):
            return None
        return f"the model gives no logits, and {model.why_not_spatial}"

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Run all tests. Raises `InputError` if a setting does not fit the model."""
        found = Measurement({})
        study = _plan(self, model, context, found)
        study.run()
        study.report()
        if study.no_phases is not None:
            lost = missing(study.no_phases)
            found.metrics = {m.name: lost for m in self.metrics} | found.metrics
        return found


def _plan(
    chosen: Perturbation, model: Model, context: Context, found: Measurement
) -> PerturbationStudy:
    """Set up all tests for `model`, with notes on automatic choices."""
    seed, size = context.seed, (model.spec.height, model.spec.width)
    comb = choose_comb(model, chosen.period, found.notes)
    block = make_block(size, stem_period(model, found.notes), chosen.block)
    derivatives = DirectionalDerivatives(
        model.why_no_gradients, chosen.comb_draws, chosen.attack_images, seed
    )
    large, reason = _large_images(model, context, chosen.shift)
    study = PerturbationStudy(
        model,
        context,
        found,
        derivatives,
        PositionTest(block, chosen.epsilon, chosen.position_images),
        ShiftTest(large, chosen.shift, chosen.shift_pairs, seed),
        comb if isinstance(comb, str) else _comb_test(chosen, comb, derivatives, context),
        no_crops=reason,
    )
    if isinstance(comb, Comb):
        study.attack = AttackTest(comb, chosen.attack_step, derivatives)
    return study


PERTURBATION = Perturbation()


def _comb_test(
    chosen: Perturbation, comb: Comb, derivatives: DirectionalDerivatives, context: Context
) -> CombTest:
    return CombTest(
        comb,
        chosen.comb_draws,
        len(context.images),
        chosen.noise,
        chosen.noise_draws,
        context.seed,
        derivatives,
    )


def _large_images(model: Model, context: Context, shift: int) -> tuple[Tensor | None, str | None]:
    """The prepared images, larger by `shift`, or the reason why they are not available."""
    spec = model.spec
    try:
        images = context.sized(spec.height + shift, spec.width + shift)
    except PerimetryError as error:
        return None, str(error)
    return spec.prepare(images), None
