"""The step of central differences: between curvature, float noise, and rounding.

Responses R(h) = (F(x + h d) - F(x - h d)) / 2h are taken at all `STEPS`, and the finer step of the
neighbours that differ least is chosen: curvature and kinks make the difference grow with the step
(kinks with its root, as the share of units that cross one goes with the step), float noise with its
inverse.

Networks that round (int8) leave no such step: their rounding, over h, drowns the response long
before kinks cease to matter. Two *looks*, the second at the image with each pixel moved at random
by up to h, have the same response but for curvature, and rounding that is independent; so R . R' is
free of it on average where |R|^2 is not. The *rough share* is |R - R'|^2 over |R|^2 + |R'|^2. Where
it is above `ROUGH` at the chosen step, or neighbours differ by more than `APART`, the finest of
`COARSE` is taken at which it is at most `MOST` and the looks' response differs from that at 4 h by
at most `APART`, relative; every square then becomes the product of two looks, at twice the passes.
Where roundings are so coarse that a unit crosses none or one of them, responses go with 1 / h and
differ by 0.87: that is no measurement. Nor is what differs by more than `APART` over all images,
whatever one of them said: half of its squared response is then the step's, not the network's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ...adapters.input_spec import InputSpec

    Pilot = Callable[[Sequence[float], bool], list[Tensor]]


STEPS = tuple(2.0**-k for k in (5, 7, 9, 11, 13, 15))
"""Step sizes that are tried, in pixel values in [0, 1], each a quarter of the one before."""


COARSE = tuple(2.0**-k for k in (7, 6, 5, 4, 3))
"""Those that are tried on networks that round."""


ROUGH = 0.2


MOST = 0.5


APART = 0.71
"""Root of a half: beyond it more of the squared response depends on the step than does not."""


LOOK_STREAM = 36


SILENT = "the target does not respond to any change of its interior pixels"


ROUNDED = "the network rounds: squared responses are products of two looks, at twice the passes"


TOO_ROUGH = (
    f"the network rounds so coarsely that no step up to {COARSE[-1]:g} of the pixel range tells "
    "its response from rounding"
)


@dataclass(frozen=True)
class Step:
    """A step in pixel values in [0, 1]; `rounded` where squares are products of two looks."""

    size: float
    rounded: bool = False

    @property
    def looks(self) -> tuple[bool, ...]:
        """The looks to take, one or two; whether it is the second."""
        return (False, True) if self.rounded else (False,)

    def coarser(self) -> Step:
        """Four times the step."""
        return Step(4 * self.size, self.rounded)

    def responses(self, pilot: Pilot) -> list[Tensor]:
        """The responses (units,) at this step, one a look."""
        return [response for second in self.looks for response in pilot([self.size], second)]


def step_size_passes(step: Step | None) -> int:
    """Forward passes that `settle` takes to choose `step`, at most; None where nothing rounds."""
    return 2 * (len(STEPS) + 1) + (8 * len(COARSE) if step and step.rounded else 0)


def settle(pilot: Pilot) -> Step | str:
    """The step to take, or the reason why there is none.

    `pilot` gives the responses (units,) at the steps it is given, of the first or the second look.
    """
    responses = pilot(STEPS, False)
    if not any(bool(r.any()) for r in responses):
        return SILENT
    errors = [Disagreement.between(a, b).relative for a, b in pairwise(responses)]
    best = int(np.argmin(errors)) + 1
    (second,) = pilot([STEPS[best]], True)
    if errors[best - 1] <= APART and rough_share(responses[best], second) <= ROUGH:
        return Step(STEPS[best])
    steps = (Step(size, rounded=True) for size in COARSE)
    return next((step for step in steps if _tells(step, pilot)), TOO_ROUGH)


def _tells(step: Step, pilot: Pilot) -> bool:
    """Whether a step of a network that rounds is coarse enough, and not too coarse."""
    fine = step.responses(pilot)
    if rough_share(*fine) > MOST:
        return False
    return Disagreement.looked(step.coarser().responses(pilot), fine).relative <= APART


def rough_share(first: Tensor, second: Tensor) -> float:
    """Squared difference of two looks (units,) over the sum of both squares; 1 where all is 0."""
    found = Disagreement.between(first, second)
    total = found.coarse + found.fine
    return found.difference / total if total else 1.0


def look_at(x: Tensor, step: Tensor, index: int, seed: int) -> Tensor:
    """Image `index`, `x` (channels, height, width), for a second look.

    Each pixel and channel is moved by up to `step` (channels, 1, 1).
    """
    rng = np.random.default_rng([seed, LOOK_STREAM, index])
    moves = torch.from_numpy(rng.uniform(-1, 1, tuple(x.shape)).astype(np.float32))
    return x + step * moves.to(x)


def central_difference(plus: Tensor, minus: Tensor, step: float) -> Tensor:
    """Central difference of two outputs (units,), in float64."""
    return (plus.double() - minus.double()) / (2 * step)


@dataclass(frozen=True)
class Disagreement:
    """How far responses at a coarse and a fine step differ: squared lengths."""

    difference: float
    coarse: float
    fine: float

    @classmethod
    def between(cls, coarse: Tensor, fine: Tensor) -> Disagreement:
        """Compare two responses (units,)."""
        return cls.looked([coarse], [fine])

    @classmethod
    def looked(cls, coarse: Sequence[Tensor], fine: Sequence[Tensor]) -> Disagreement:
        """Compare the looks, one or two, at two steps: squares are products of first and last."""
        apart = [a - b for a, b in zip(coarse, fine, strict=True)]
        return cls(*(float((t[0] * t[-1]).sum()) for t in (apart, coarse, fine)))

    def __add__(self, other: Disagreement) -> Disagreement:
        return Disagreement(
            self.difference + other.difference, self.coarse + other.coarse, self.fine + other.fine
        )

    def scaled(self) -> Disagreement:
        """The same in units in which the longer of the two has length 1; nothing stays nothing."""
        longer = max(self.coarse, self.fine)
        scale = 1 / longer if longer > 0 else 0.0
        return Disagreement(scale * self.difference, scale * self.coarse, scale * self.fine)

    @property
    def relative(self) -> float:
        """Length of the difference over the longer of the two; 1 where both are 0."""
        longer = max(self.coarse, self.fine)
        return math.sqrt(max(0.0, self.difference) / longer) if longer > 0 else 1.0

    @property
    def of_fine(self) -> float | None:
        """Length of the difference over that of the fine; None where that is 0."""
        return math.sqrt(max(0.0, self.difference) / self.fine) if self.fine > 0 else None

    @property
    def relative_energy(self) -> float:
        """Difference of the squared lengths over the larger; 1 where both are 0."""
        larger = max(self.coarse, self.fine)
        return abs(self.coarse - self.fine) / larger if larger > 0 else 1.0


def too_far(found: Disagreement, step: Step) -> str | None:
    """Why responses at `step` tell nothing, if those at four times it differ as `found` says."""
    silent = not (found.coarse or found.fine)
    if silent or found.relative <= APART:
        return None
    return (
        f"responses at a step of {step.size:g} of the pixel range and at four times it differ by "
        f"{found.relative:.2f} of their length, more than {APART}: rounding or kinks make them"
    )


def pixel_step(spec: InputSpec, like: Tensor) -> Tensor:
    """One pixel value in [0, 1], in normalised units: (channels, 1, 1)."""
    return (spec.value_range / spec.channel_std(like))[0]
