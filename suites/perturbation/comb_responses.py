"""The phase comb: all interior pixels of one phase changed at once, with independent random signs.

For a direction d with entries +1 and -1 at the channels of the n interior pixels of a phase, and 0
elsewhere, the *response* is the central difference R = (F(x + h d) - F(x - h d)) / (2 h), h in
pixel values in [0, 1]. Over random signs, E |R|^2 / n is the mean over these pixels of
sum_c |dF / d image_c|^2, up to the error of the step: the phase mean of `deadpixel`'s sensitivity.
h is chosen as in `step_size`; if a network rounds, |R|^2 is the product of two responses.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..measuring.gradients import random_signs, signs_of_target
from ..measuring.step_size import (
    NO_DISAGREEMENT,
    Disagreement,
    StepSize,
    central_difference,
    choose_step,
    dithered_image,
    pixel_step,
    why_step_unusable,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ..base import Array
    from ..measuring.forward import MemberImages
    from ..measuring.step_size import Pilot
    from .directional import DirectionalDerivatives
    from .phase_comb import Comb

STREAM = 31

NOISE_STREAM = 32

PILOT_STREAM = 33


def choose_comb_step(member: MemberImages, comb: Comb, seed: int) -> StepSize | str:
    """The step to use (see `step_size`), or the reason why there is none.

    It is chosen by the responses of the member's first image to a direction with a random phase in
    each cell.
    """
    return choose_step(pilot_of(member, comb, seed, member.indices[0]))


def pilot_of(member: MemberImages, comb: Comb, seed: int, index: int) -> Pilot:
    """Responses (units,) of image `index` to a scattered direction, as `choose_step` needs them."""
    x = member.image(index)
    rng = np.random.default_rng([seed, PILOT_STREAM, index])
    mask = comb.scattered(rng, (x.shape[1], x.shape[2])).to(x.device)
    signs = random_signs(x[None], [index], seed=seed, stream=PILOT_STREAM + 1)[0]
    unit = pixel_step(member.passes.model.spec, x)

    def pilot(steps: Sequence[float], dither: bool) -> list[Tensor]:
        bases = [dithered_image(x, h * unit, index, seed) if dither else x for h in steps]
        outputs = member.passes.target(
            base + s * h * signs * mask * unit
            for base, h in zip(bases, steps, strict=True)
            for s in (1, -1)
        )
        return [central_difference(next(outputs), next(outputs), h) for h in steps]

    return pilot


@dataclass
class CombTest:
    """Collects the comb's responses, image by image; see this module and `suite`.

    By image: `energies` (p, q), mean squared response per pixel; `signals`, squared responses, and
    `noises`, their mean squared products with the response to input noise, both (p, q);
    `projections` (draws, 2, p, q): responses projected on the random target signs of `derivatives`,
    by differences and by gradients, which `directions` compares; `steps_differ` compares responses
    at four times `step` with those at `step`. Every weight set has the same weight in both.
    `reason` says why there is no step.
    """

    comb: Comb
    draws: int
    images: int
    noise: float
    noise_draws: int
    seed: int
    derivatives: DirectionalDerivatives
    step: StepSize | None = None
    reason: str | None = None
    steps_differ: Disagreement = NO_DISAGREEMENT
    directions: Disagreement = NO_DISAGREEMENT
    energies: dict[int, Array] = field(default_factory=dict)
    signals: dict[int, Array] = field(default_factory=dict)
    noises: dict[int, Array] = field(default_factory=dict)
    projections: dict[int, Array] = field(default_factory=dict)

    def observe(self, member: MemberImages) -> None:
        """Measure the images of one weight set."""
        own = member.first(self.draws)
        if not own or self.reason is not None:
            return
        if self.step is None:
            found = choose_comb_step(member, self.comb, self.seed)
            if isinstance(found, str):
                self.reason = found
                return
            self.step = found
        steps = directions = NO_DISAGREEMENT
        for index in own:
            self._image(member, index, self.step)
            steps += self._compare_steps(member, index, self.step)
            differences, exact = torch.from_numpy(self.projections[index]).unbind(1)
            directions += Disagreement.between(differences, exact)
        several = member.passes.model.members > 1
        self.steps_differ += steps.normalised() if several else steps
        self.directions += directions.normalised() if several else directions

    @property
    def failure(self) -> str | None:
        """The reason why the comb's responses cannot be used, or None."""
        if self.step is None:
            return self.reason or "no image was measured"
        return why_step_unusable(self.steps_differ, self.step)

    def _compare_steps(self, member: MemberImages, index: int, step: StepSize) -> Disagreement:
        pilot = pilot_of(member, self.comb, self.seed, index)
        return Disagreement.compare(step.coarser().responses(pilot), step.responses(pilot))

    def _image(self, member: MemberImages, index: int, step: StepSize) -> None:
        noise = self._noise_responses(member, index)
        draws = range(index, self.draws, self.images)
        found = [self._draw(member, index, draw, step, noise) for draw in draws]
        signals = np.mean([signal for signal, _, _ in found], axis=0)
        self.signals[index] = signals
        self.energies[index] = signals / self.comb.pixels
        self.noises[index] = np.mean([product for _, product, _ in found], axis=0)
        self.projections[index] = np.stack([projection for _, _, projection in found])

    def _draw(
        self, member: MemberImages, index: int, draw: int, step: StepSize, noise: Tensor
    ) -> tuple[Array, Array, Array]:
        """Squared responses, squared products with `noise` (draws, units), and projections."""
        x = member.image(index)
        signs = random_signs(x[None], [draw], seed=self.seed, stream=STREAM)[0]
        unit = step.size * pixel_step(member.passes.model.spec, x)
        bases = [
            dithered_image(x, unit, index, self.seed) if dither else x for dither in step.dithers
        ]
        outputs = member.passes.target(self._pairs(bases, signs * unit))
        rows = []
        for _ in range(self.comb.period[0] * self.comb.period[1]):
            responses = [central_difference(next(outputs), next(outputs), step.size) for _ in bases]
            first, last = responses[0], responses[-1]
            product = ((noise @ first) * (noise @ last)).sum() / (len(noise) - 1)
            signs_of_f = signs_of_target(first, index, self.seed).double()
            projection = (first + last) @ signs_of_f / 2
            rows.append([float(v) for v in ((first * last).sum(), product, projection)])
        table: Array = np.array(rows).T.reshape(3, *self.comb.period)
        exact = self.derivatives.along(index, signs, self.comb)
        return table[0], table[1], np.stack([table[2], exact])

    def _pairs(self, bases: Sequence[Tensor], change: Tensor) -> Iterator[Tensor]:
        """Each of `bases` with each phase changed by plus and by minus `change`."""
        for rows, columns in self.comb.impulses():
            for base in bases:
                for sign in (1, -1):
                    altered = base.clone()
                    altered[:, rows, columns] += sign * change[:, rows, columns]
                    yield altered

    def _noise_responses(self, member: MemberImages, index: int) -> Tensor:
        """Deviations of F from its mean (draws, units) under input noise, in float64."""
        x = member.image(index)
        scale = self.noise * pixel_step(member.passes.model.spec, x)
        inputs = (x + scale * self._normal(x, index, draw) for draw in range(self.noise_draws))
        responses = torch.stack(list(member.passes.target(inputs))).double()
        return responses - responses.mean(0)

    def _normal(self, like: Tensor, index: int, draw: int) -> Tensor:
        rng = np.random.default_rng([self.seed, NOISE_STREAM, index, draw])
        return torch.from_numpy(rng.standard_normal(like.shape, dtype=np.float32)).to(like.device)
