"""The step size of central differences, chosen between curvature, float noise and rounding.

Responses R(h) = (F(x + h d) - F(x - h d)) / 2h are computed at all `STEPS`. Of the first two
neighbouring steps that differ by at most `SMALL_STEP_ERROR`, or else of the two that differ least,
the finer is chosen: float noise grows as the step shrinks, is large against the response of weak
phases long before it shows in the whole, and is another with every batch size and number of
threads, while kinks and curvature are the same at all of them. Curvature and kinks make the
difference grow with the step (kinks with its square root, since the share of units that cross a
kink is proportional to the step); float noise makes it grow with the inverse of the step.

No such step exists for networks that round (int8): divided by h, their rounding error exceeds the
response long before kinks become negligible. Their responses are therefore computed twice, the
second time *dithered*: at the image with each pixel moved at random by up to h. Both have the same
response up to curvature, and independent rounding errors, so R . R' is free of rounding on average
while |R|^2 is not. The *rounding share* is |R - R'|^2 over |R|^2 + |R'|^2. If it exceeds
`ROUNDING_DETECTED` at the chosen step, or if neighbouring steps differ by more than
`MAX_STEP_ERROR`, the step is the finest of `COARSE_STEPS` at which the rounding share is at most
`MAX_ROUNDING_SHARE` and the response differs from that at 4 h by at most `MAX_STEP_ERROR`,
relative; every square is then the product of the two responses, at twice the number of passes.
Where rounding is so coarse that a unit crosses no or one rounding threshold, responses are
proportional to 1 / h and differ by 0.87, so that no step is accepted. A measurement is also
rejected when the responses of all images together differ by more than `MAX_STEP_ERROR`: more than
half of the squared response is then caused by the step and not by the network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from ...adapters.input_spec import InputSpec

    Pilot = Callable[[Sequence[float], bool], list[Tensor]]

STEPS = tuple(2.0**-k for k in (5, 7, 9, 11, 13))
"""The steps tried first, in pixel values in [0, 1], each a quarter of the one before.

At the next, 2^-15, float noise moves a weak phase of MobileNetV3 by 2 %, at the last by 0.02 %.
"""

SMALL_STEP_ERROR = 0.02

COARSE_STEPS = tuple(2.0**-k for k in (7, 6, 5, 4, 3))
"""The steps tried on networks that round."""

ROUNDING_DETECTED = 0.2

MAX_ROUNDING_SHARE = 0.5

MAX_STEP_ERROR = 0.71
"""Square root of one half: above it, most of the squared response depends on the step."""

DITHER_STREAM = 36

NO_RESPONSE = "the target does not respond to any change of its interior pixels"

ROUNDING_NOTE = (
    "the network rounds: each response is computed twice, at twice the number of forward passes"
)

ROUNDING_TOO_COARSE = (
    f"the network rounds so coarsely that at no step up to {COARSE_STEPS[-1]:g} of the pixel range "
    "its response can be separated from rounding"
)


@dataclass(frozen=True)
class StepSize:
    """A step in pixel values in [0, 1]; `rounded` if each response is computed twice."""

    size: float
    rounded: bool = False

    @property
    def dithers(self) -> tuple[bool, ...]:
        """Whether to dither, for each of the one or two computations of a response."""
        return (False, True) if self.rounded else (False,)

    def coarser(self) -> StepSize:
        """A step four times as large."""
        return StepSize(4 * self.size, self.rounded)

    def responses(self, pilot: Pilot) -> list[Tensor]:
        """The responses (units,) at this step: one, or two if the network rounds."""
        return [response for dither in self.dithers for response in pilot([self.size], dither)]


def step_size_passes(step: StepSize | None) -> int:
    """Most forward passes that `choose_step` needs; `step` is the one chosen, if it is known."""
    return 2 * (len(STEPS) + 1) + (8 * len(COARSE_STEPS) if step and step.rounded else 0)


def choose_step(pilot: Pilot) -> StepSize | str:
    """The step to use, or the reason why none can be used.

    `pilot(steps, dither)` returns the responses (units,) at each of `steps`.
    """
    responses = pilot(STEPS, False)
    if not any(bool(r.any()) for r in responses):
        return NO_RESPONSE
    errors = [Disagreement.between(a, b).relative for a, b in pairwise(responses)]
    small = [i for i, error in enumerate(errors) if error <= SMALL_STEP_ERROR]
    best = (small[0] if small else int(np.argmin(errors))) + 1
    (second,) = pilot([STEPS[best]], True)
    if (
        errors[best - 1] <= MAX_STEP_ERROR
        and rounding_share(responses[best], second) <= ROUNDING_DETECTED
    ):
        return StepSize(STEPS[best])
    steps = (StepSize(size, rounded=True) for size in COARSE_STEPS)
    return next((step for step in steps if _is_usable(step, pilot)), ROUNDING_TOO_COARSE)


def _is_usable(step: StepSize, pilot: Pilot) -> bool:
    """Whether `step` is large enough against rounding and small enough against curvature."""
    fine = step.responses(pilot)
    if rounding_share(*fine) > MAX_ROUNDING_SHARE:
        return False
    return Disagreement.compare(step.coarser().responses(pilot), fine).relative <= MAX_STEP_ERROR


def rounding_share(first: Tensor, second: Tensor) -> float:
    """Squared difference of two responses (units,) over the sum of both squares; 1 if all are 0."""
    found = Disagreement.between(first, second)
    total = found.coarse + found.fine
    return found.difference / total if total else 1.0


def dithered_image(x: Tensor, step: Tensor, index: int, seed: int) -> Tensor:
    """`x` (channels, height, width) with each entry moved at random by up to `step`.

    `step` is (channels, 1, 1); the draw depends on `seed` and on the image's `index`.
    """
    rng = np.random.default_rng([seed, DITHER_STREAM, index])
    moves = torch.from_numpy(rng.uniform(-1, 1, tuple(x.shape)).astype(np.float32))
    return x + step * moves.to(x)


def central_difference(plus: Tensor, minus: Tensor, step: float) -> Tensor:
    """Central difference of two outputs (units,), in float64."""
    return (plus.double() - minus.double()) / (2 * step)


@dataclass(frozen=True)
class Disagreement:
    """Squared norms of responses at a coarse and a fine step, and of their difference."""

    difference: float = 0.0
    coarse: float = 0.0
    fine: float = 0.0

    @classmethod
    def between(cls, coarse: Tensor, fine: Tensor) -> Disagreement:
        """Compare one response (units,) at each step."""
        return cls.compare([coarse], [fine])

    @classmethod
    def compare(cls, coarse: Sequence[Tensor], fine: Sequence[Tensor]) -> Disagreement:
        """Compare one or two responses at each step; a square is the first times the last."""
        apart = [a - b for a, b in zip(coarse, fine, strict=True)]
        return cls(*(float((t[0] * t[-1]).sum()) for t in (apart, coarse, fine)))

    def __add__(self, other: Disagreement) -> Disagreement:
        return Disagreement(
            self.difference + other.difference, self.coarse + other.coarse, self.fine + other.fine
        )

    def normalised(self) -> Disagreement:
        """The same, scaled so that the larger of the two responses has norm 1; zeros stay zeros."""
        longer = max(self.coarse, self.fine)
        scale = 1 / longer if longer > 0 else 0.0
        return Disagreement(scale * self.difference, scale * self.coarse, scale * self.fine)

    @property
    def relative(self) -> float:
        """Norm of the difference over that of the larger response; 1 if both are 0."""
        longer = max(self.coarse, self.fine)
        return math.sqrt(max(0.0, self.difference) / longer) if longer > 0 else 1.0

    @property
    def relative_to_fine(self) -> float | None:
        """Norm of the difference over that of the fine response; None if that is 0."""
        return math.sqrt(max(0.0, self.difference) / self.fine) if self.fine > 0 else None

    @property
    def relative_energy(self) -> float:
        """Difference of the squared norms over the larger; 1 if both are 0."""
        larger = max(self.coarse, self.fine)
        return abs(self.coarse - self.fine) / larger if larger > 0 else 1.0


NO_DISAGREEMENT = Disagreement()


def why_step_unusable(found: Disagreement, step: StepSize) -> str | None:
    """The reason to reject responses at `step`, or None; `found` compares them with 4 `step`."""
    silent = not (found.coarse or found.fine)
    if silent or found.relative <= MAX_STEP_ERROR:
        return None
    return (
        f"responses at a step of {step.size:g} of the pixel range and at four times it differ by "
        f"{found.relative:.2f} of their norm, more than {MAX_STEP_ERROR}: "
        "rounding or kinks cause them"
    )


def pixel_step(spec: InputSpec, like: Tensor) -> Tensor:
    """The full pixel range [0, 1] in normalised units: (channels, 1, 1)."""
    return (spec.value_range / spec.channel_std(like))[0]
