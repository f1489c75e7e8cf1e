"""One measurement of `perturbation`: its parts, laid out, shown to the model, and read off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..base import Context, Estimate, Measurement, missing
from ..measuring.bootstrap import bootstrap
from ..measuring.forward import batches, by_sample
from ..measuring.gradients import alike, gains
from ..measuring.phases import divide_by_mean
from ..measuring.step_size import ROUNDED, Step
from ..measuring.unbiased import corrected, pseudo_values
from .agreement import detect_metrics, distance, gradient_metrics, leverage, structure_profile
from .attack import AttackTest
from .comb_responses import CombTest
from .directional import DirectionalDerivatives
from .position_response import PositionTest, level, position_metrics
from .shift_consistency import ShiftTest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ...adapters.model import Model
    from ..base import Array
    from ..measuring.bootstrap import Bootstrap


@dataclass
class PerturbationStudy:
    """One measurement: its parts, and what is read off them into `found`.

    `comb` is the reason when the model has no phases to tell apart.
    """

    model: Model
    context: Context
    found: Measurement
    slopes: DirectionalDerivatives
    positions: PositionTest
    shift: ShiftTest
    comb: CombTest | str
    attack: AttackTest | None = None
    no_crops: str | None = None

    def parts(
        self,
    ) -> Sequence[DirectionalDerivatives | CombTest | AttackTest | PositionTest | ShiftTest]:
        """What each sitting is shown to, in order: the gradients come first."""
        phased = () if isinstance(self.comb, str) else (self.comb,)
        attack = () if self.attack is None else (self.attack,)
        return (self.slopes, *phased, *attack, self.positions, self.shift)

    def show(self) -> None:
        """Show the images to every weight set, and all parts to each."""
        context = self.context
        for sitting in batches(self.model, context.images, context.batch, self.found.notes):
            for part in self.parts():
                part.look(sitting)

    @property
    def no_phases(self) -> str | None:
        """Why the comb gives nothing; None where it does."""
        return self.comb if isinstance(self.comb, str) else self.comb.failure

    def report(self) -> None:
        """Fill in maps and metrics; those of the comb are left out where it gives nothing."""
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
        roots: Array | str = self.slopes.reason or "there are no gradients"
        if self.slopes.reason is None and self.slopes.signed:
            energies = alike(self.model, self._samples(self.slopes.energies())[0])
            roots = np.sqrt(self.positions.block.of(energies.mean(0)))
        scaled = alike(self.model, samples)
        self.found.metrics["position_mean"] = level(self.model, samples, resamples)
        self.found.metrics |= position_metrics(scaled, roots, resamples)
        self.found.maps["positions"] = scaled.mean(0)

    def _report_shift(self) -> None:
        if not self.shift.shares:
            reason = missing(self.no_crops or "the model gives no logits")
            self.found.metrics["shift_consistency"] = reason
            return
        samples, resamples = self._samples(self.shift.shares)
        estimate = resamples.estimate(resamples.whole @ samples, low=0.0, high=1.0)
        self.found.metrics["shift_consistency"] = estimate

    def _report_step(self, test: CombTest, step: Step) -> None:
        self.found.metrics["comb_step"] = Estimate(step.size)
        self.found.metrics["comb_error"] = Estimate(test.steps_differ.relative)
        if step.rounded:
            self.found.notes.append(ROUNDED)

    def _report_comb(self, test: CombTest) -> None:
        samples, resamples = self._samples(test.energies)
        energies = alike(self.model, samples)
        profiles = pseudo_values(energies, divide_by_mean)
        metrics = self.found.metrics
        metrics |= {f"comb_{k}": v for k, v in corrected(profiles, resamples).items()}
        self.found.maps["comb_profile"] = divide_by_mean(energies.mean(0))
        signals, noises = (self._samples(v)[0] for v in (test.signals, test.noises))
        factors = gains(self.model, signals)
        metrics |= detect_metrics(energies, factors * signals, factors**2 * noises, resamples)
        metrics["leverage"] = self._leverage(energies)
        self._report_gradients(test, energies, resamples)
        self._report_structure(test, profiles, resamples)

    def _leverage(self, energies: Array) -> Estimate:
        if self.attack is None or not self.attack.effects:
            return missing(self.slopes.reason or "there are no gradients")
        effects, resamples = self._samples(self.attack.effects)
        return leverage(energies, alike(self.model, effects), resamples)

    def _report_gradients(self, test: CombTest, energies: Array, resamples: Bootstrap) -> None:
        """Compare with the gradients' phase means, and along the same directions."""
        names = ("agreement_gradient", "agreement_gradient_z", "agreement_direction")
        if self.slopes.reason is not None:
            self.found.metrics |= dict.fromkeys(names, missing(self.slopes.reason))
            return
        by_image = {
            i: test.comb.sums(torch.from_numpy(m)).numpy() / test.comb.pixels
            for i, m in self.slopes.energies().items()
        }
        gradients = alike(self.model, self._samples(by_image)[0])
        if not gradients.any():
            reason = missing("the gradient is zero throughout the interior")
            self.found.metrics |= dict.fromkeys(names, reason)
            return
        found, profile = gradient_metrics(
            energies, gradients, test.steps_differ.relative_energy, resamples
        )
        error = test.directions.of_fine
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
        self.found.metrics["agreement_structure"] = distance(profiles - expected, resamples)
        self.found.maps["structure_profile"] = expected
