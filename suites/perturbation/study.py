"""One measurement of `perturbation`: runs all tests on a model and computes the metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..base import Context, Estimate, Measurement, missing
from ..measuring.bootstrap import bootstrap
from ..measuring.findings import LEAST_PHASE, least_phase
from ..measuring.forward import by_sample, each_member
from ..measuring.gradients import member_factors, normalise_members
from ..measuring.phases import divide_by_mean
from ..measuring.profile_lone import hidden
from ..measuring.profile_posterior import phase_estimates, profile_posterior
from ..measuring.step_size import ROUNDING_NOTE, StepSize
from ..measuring.unbiased import pseudo_values
from .agreement import detect_metrics, gradient_metrics, leverage, rms_distance, structure_profile
from .comb_responses import CombTest
from .directional import AttackTest, DirectionalDerivatives
from .position_response import PositionTest, mean_response, position_metrics
from .shift_consistency import ShiftTest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap


@dataclass
class PerturbationStudy:
    """The tests of one measurement; `report` writes their maps and metrics to `found`.

    `comb` is a reason instead of a test if the model has no phases.
    """

    model: Model
    context: Context
    found: Measurement
    derivatives: DirectionalDerivatives
    positions: PositionTest
    shift: ShiftTest
    comb: CombTest | str
    attack: AttackTest | None = None
    no_crops: str | None = None

    def tests(
        self,
    ) -> Sequence[DirectionalDerivatives | CombTest | AttackTest | PositionTest | ShiftTest]:
        """All tests in the order in which they run; later ones use the gradients of the first."""
        phased = () if isinstance(self.comb, str) else (self.comb,)
        attack = () if self.attack is None else (self.attack,)
        return (self.derivatives, *phased, *attack, self.positions, self.shift)

    def run(self) -> None:
        """Run all tests on the images of every weight set."""
        context = self.context
        for member in each_member(self.model, context.images, context.batch, self.found.notes):
            for test in self.tests():
                test.observe(member)

    @property
    def no_phases(self) -> str | None:
        """The reason why there are no metrics of the comb, or None."""
        return self.comb if isinstance(self.comb, str) else self.comb.failure

    def report(self) -> None:
        """Fill in maps and metrics, except those of a comb that cannot be used."""
        self._report_positions()
        self._report_shift()
        if isinstance(self.comb, CombTest) and self.comb.step is not None:
            self._report_step(self.comb, self.comb.step)
            if self.no_phases is None:
                self._report_comb(self.comb)

    def _samples(self, values: Mapping[int, Array]) -> tuple[Array, Bootstrap]:
        """`values` by image as (samples, ...), and resamples of them."""
        members = min(self.model.members, len(self.context.images))
        samples = by_sample(values, members)
        return samples, bootstrap(len(samples), self.context.draws, self.context.seed)

    def _report_positions(self) -> None:
        samples, resamples = self._samples(self.positions.responses)
        roots: Array | str = self.derivatives.reason or "there are no gradients"
        if self.derivatives.reason is None and self.derivatives.signed:
            energies = normalise_members(self.model, self._samples(self.derivatives.energies())[0])
            roots = np.sqrt(self.positions.block.of(energies.mean(0)))
        scaled = normalise_members(self.model, samples)
        self.found.metrics["position_mean"] = mean_response(self.model, samples, resamples)
        self.found.metrics |= position_metrics(scaled, roots, resamples)
        self.found.maps["positions"] = scaled.mean(0)

    def _report_shift(self) -> None:
        if self.shift.fault is not None:
            self.found.metrics["shift_consistency"] = missing(self.shift.fault)
            return
        if not self.shift.shares:
            reason = missing(self.no_crops or "the model gives no logits")
            self.found.metrics["shift_consistency"] = reason
            return
        samples, resamples = self._samples(self.shift.shares)
        self.found.metrics["shift_consistency"] = resamples.share(samples)

    def _report_step(self, test: CombTest, step: StepSize) -> None:
        self.found.metrics["comb_step"] = Estimate(step.size)
        self.found.metrics["comb_error"] = Estimate(test.steps_differ.relative)
        if step.rounded:
            self.found.notes.append(ROUNDING_NOTE)

    def _report_comb(self, test: CombTest) -> None:
        samples, resamples = self._samples(test.energies)
        energies = normalise_members(self.model, samples)
        profiles = pseudo_values(energies, divide_by_mean)
        metrics = self.found.metrics
        # no expectation: this route is compared with the architecture and must not lean on it
        estimates = phase_estimates(profile_posterior(profiles, resamples), resamples)
        metrics |= {f"comb_{name}": estimate for name, estimate in estimates.items()}
        self.found.notes += filter(None, [hidden(profiles)])
        profile = divide_by_mean(energies.mean(0))
        self.found.maps["comb_profile"] = profile
        self.found.tables[LEAST_PHASE] = least_phase(profile)
        signals, noises = (self._samples(v)[0] for v in (test.signals, test.noises))
        factors = member_factors(self.model, signals)
        metrics |= detect_metrics(energies, factors * signals, factors**2 * noises, resamples)
        metrics["leverage"] = self._leverage(energies)
        self._report_gradients(test, energies, resamples)
        self._report_structure(test, profiles, resamples)

    def _leverage(self, energies: Array) -> Estimate:
        if self.attack is None or not self.attack.effects:
            return missing(self.derivatives.reason or "there are no gradients")
        effects, resamples = self._samples(self.attack.effects)
        return leverage(energies, normalise_members(self.model, effects), resamples)

    def _report_gradients(self, test: CombTest, energies: Array, resamples: Bootstrap) -> None:
        """Compare with the gradients' phase means, and along the same directions."""
        names = ("agreement_gradient", "agreement_gradient_z", "agreement_direction")
        if self.derivatives.reason is not None:
            self.found.leave_out(names, self.derivatives.reason)
            return
        by_image = {
            i: test.comb.sums(torch.from_numpy(m)).numpy() / test.comb.pixels
            for i, m in self.derivatives.energies().items()
        }
        gradients = normalise_members(self.model, self._samples(by_image)[0])
        if not gradients.any():
            reason = missing("the gradient is zero throughout the interior")
            self.found.metrics |= dict.fromkeys(names, reason)
            return
        found, profile = gradient_metrics(
            energies, gradients, test.steps_differ.relative_energy, resamples
        )
        error = test.directions.relative_to_fine
        found["agreement_direction"] = (
            missing("the gradient is zero along all combs") if error is None else Estimate(error)
        )
        self.found.metrics |= found
        self.found.maps["gradient_profile"] = profile

    def _report_structure(self, test: CombTest, profiles: Array, resamples: Bootstrap) -> None:
        expected = structure_profile(self.model, test.comb)
        if isinstance(expected, str):
            self.found.metrics["agreement_structure"] = missing(expected)
            return
        self.found.metrics["agreement_structure"] = rms_distance(profiles - expected, resamples)
        self.found.maps["structure_profile"] = expected
