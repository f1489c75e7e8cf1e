"""Gradients that are compared with differences, or used for an attack."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...adapters.errors import NotApplicableError
from ..measuring.gradients import signs_of_target
from ..measuring.step_size import pixel_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ..base import Array
    from ..measuring.forward import ForwardPasses, MemberImages
    from .phase_comb import Comb


@dataclass
class DirectionalDerivatives:
    """Gradients by image (channels, height, width), for the first `images` of the set.

    `signed`: of v . F, v the random signs of `deadpixel`, per pixel value in [0, 1]. `attack`, for
    the first `attacked` images: of the margin of the top logit over the second; of a single logit
    itself; of -|F|^2 / 2 for a model without logits. `reason` says why there are no gradients, or
    is None.
    """

    reason: str | None
    images: int
    attacked: int
    seed: int
    signed: dict[int, Tensor] = field(default_factory=dict)
    attack: dict[int, Tensor] = field(default_factory=dict)

    def observe(self, member: MemberImages) -> None:
        """Compute the gradients of one weight set; a failure is kept as the reason."""
        own = member.first(self.images)
        if self.reason is not None or not own:
            return
        try:
            self._take(member, own)
        except NotApplicableError as error:
            self.reason = str(error)

    def _take(self, member: MemberImages, own: Sequence[int]) -> None:
        x = torch.stack([member.image(i) for i in own])
        found = torch.cat(
            member.passes.batching.run(
                len(own), lambda piece: _gradients(member.passes, x[piece], own[piece], self.seed)
            )
        )
        if not bool(found.isfinite().all()):
            raise NotApplicableError("the gradient is not finite on these images")
        step = pixel_step(member.passes.model.spec, x)
        for index, (signed, attack) in zip(own, found, strict=True):
            self.signed[index] = signed * step
            if index < self.attacked:
                self.attack[index] = attack

    def energies(self) -> dict[int, Array]:
        """Squared gradient of v . F, summed over channels, by image: (height, width)."""
        return {
            i: signed.double().square().sum(0).cpu().numpy() for i, signed in self.signed.items()
        }

    def along(self, index: int, signs: Tensor, comb: Comb) -> Array:
        """Derivatives of v . F along `signs` (channels, height, width), by phase; 0 if unknown."""
        if index not in self.signed:
            return np.zeros(comb.period)
        found: Array = comb.sums((self.signed[index].double() * signs).sum(0)).cpu().numpy()
        return found


def _gradients(passes: ForwardPasses, x: Tensor, indices: Sequence[int], seed: int) -> Tensor:
    """Gradients (batch, 2, channels, height, width) of v . F and of the attacked scalar."""
    x = x.clone().requires_grad_()
    f, answer = passes.outputs(x)
    flat = f.flatten(1)
    signs = torch.stack(
        [signs_of_target(one, i, seed) for one, i in zip(flat.detach(), indices, strict=True)]
    )
    scalars = ((flat * signs).sum(), margin(answer.flatten(1), logits=passes.has_logits).sum())
    if not all(scalar.requires_grad for scalar in scalars):
        raise NotApplicableError("the target does not depend on the image")
    signed, attack = (
        torch.autograd.grad(scalar, x, retain_graph=True, allow_unused=True)[0]
        for scalar in scalars
    )
    if signed is None or attack is None:
        raise NotApplicableError("the target does not depend on the image")
    return torch.stack([signed.detach(), attack.detach()], 1)


def margin(answer: Tensor, *, logits: bool) -> Tensor:
    """The scalar that an attack reduces (batch,), of `answer` (batch, units); see above."""
    if not logits:
        return -answer.square().sum(1) / 2
    if answer.shape[1] == 1:
        return answer[:, 0]
    top = answer.topk(2, 1).values
    return top[:, 0] - top[:, 1]


@dataclass
class AttackTest:
    """Attack leverage: the effect of a gradient-sign step on each phase alone, by image: (p, q).

    x' = x - a sign(dL / dx) at the interior pixels of the phase, x elsewhere; L is the `margin` of
    the top logit over the second, a (`step`) in pixel values in [0, 1]. The effect is the Euclidean
    norm of the change of the logits, or of F for a model without logits.
    """

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
