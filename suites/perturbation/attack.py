"""Attack leverage: a gradient-sign step on the pixels of one phase alone.

x' = x - a sign(dL / dx) at the interior pixels of the phase, x elsewhere; L is the margin of the
top logit over the second (see `directional`), a in pixel values in [0, 1]. The effect is the
Euclidean norm of the change of the logits, or of F for a model without logits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..measuring.step_size import pixel_step

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from ..base import Array
    from ..measuring.forward import MemberImages
    from .directional import DirectionalDerivatives
    from .phase_comb import Comb


@dataclass
class AttackTest:
    """Collects the effect of the step on each phase, by image: (p, q)."""

    comb: Comb
    step: float
    derivatives: DirectionalDerivatives
    effects: dict[int, Array] = field(default_factory=dict)

    def observe(self, member: MemberImages) -> None:
        """Attack the images of one weight set for which there are gradients."""
        for index in member.indices:
            if index in self.derivatives.attack:
                self.effects[index] = self._image(member, index)

    def _image(self, member: MemberImages, index: int) -> Array:
        x = member.image(index)
        change = -self.step * pixel_step(member.passes.model.spec, x)
        change = change * self.derivatives.attack[index].sign()
        answers = member.passes.answer(self._inputs(x, change))
        plain = next(answers).double()
        effects: Array = np.array([float((one.double() - plain).norm()) for one in answers])
        return effects.reshape(self.comb.period)

    def _inputs(self, x: Tensor, change: Tensor) -> Iterator[Tensor]:
        """The unchanged image, then the image with each phase changed."""
        yield x
        for rows, columns in self.comb.impulses():
            altered = x.clone()
            altered[:, rows, columns] += change[:, rows, columns]
            yield altered
