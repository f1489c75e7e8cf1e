"""Protocol `blocks` of `erf`: a coarse effective receptive field from forward passes (ours).

The image is cut into blocks of `block` x `block` pixels, from its upper left; the last row and
column of blocks may be smaller. For a direction d of independent random signs at all channels of a
block's pixels, and 0 elsewhere, the response of a unit u (channels,) is the central difference
R = (u(x + h d) - u(x - h d)) / (2 h), h in pixel values in [0, 1]. Over random signs, E |R|^2 is
the sum over the block's pixels of the `energy` map, up to the error of the step. Divided by the
number of pixels it is the `energy` map, averaged within blocks.

h is chosen as in `step_size`, by the response to the block under the unit; if the network
rounds, |R|^2 is the product of two responses. `step_error` in the table `blocks` is the relative
difference of responses to that block at h and 4 h, over all images; if it exceeds
`MAX_STEP_ERROR`, there is no map.

Sampling: one draw of signs per image. A block whose response has k independent channels has a
relative standard deviation of sqrt(2 / k), at most 1.41 for a single channel. `sampling_error` is
the measured value: the standard error over samples, as root mean square over blocks weighted by
their energy, over the mean. Sizes below the side of a block cannot be resolved.

Cost: two passes per block and image, four per image for the error of the step, twelve for the
step; if the network rounds, four, eight and up to fifty-four.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from ...adapters.errors import NotApplicableError
from ..measuring.forward import by_sample, each_member
from ..measuring.gradients import normalise_members, random_signs, require
from ..measuring.step_size import (
    NO_DISAGREEMENT,
    NO_RESPONSE,
    STEPS,
    Disagreement,
    StepSize,
    central_difference,
    choose_step,
    dithered_image,
    pixel_step,
    why_step_unusable,
)
from ..measuring.step_size import step_size_passes as passes_for_step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from ...adapters.model import Model
    from ..base import Array, Context
    from ..measuring.forward import MemberImages

Unit = tuple[int, int]

Place = tuple[slice, slice]

STREAM = 41

BLOCKS_A_SIDE = 12
"""Default number of blocks along the shorter side."""


def default_block(height: int, width: int) -> int:
    """Side of a block, in pixels."""
    return max(1, math.ceil(min(height, width) / BLOCKS_A_SIDE))


def block_places(height: int, width: int, block: int) -> list[Place]:
    """Rows and columns of each block, block row by block row."""
    rows, columns = (
        [slice(i, min(i + block, side)) for i in range(0, side, block)] for side in (height, width)
    )
    return [(r, c) for r in rows for c in columns]


def block_passes(blocks: int, images: int, step: StepSize | None = None) -> int:
    """Number of forward passes; without `step`, for a network that does not round."""
    return (2 * blocks + 4) * images * (len(step.dithers) if step else 1) + passes_for_step(step)


@dataclass
class BlockTest:
    """Collects the energies of blocks, image by image; see this module.

    `energies` by image: (units, blocks), squared responses.
    """

    places: Sequence[Place]
    units: Sequence[Unit]
    images: int
    seed: int
    step: StepSize | None = None
    steps_differ: Disagreement = NO_DISAGREEMENT
    energies: dict[int, Array] = field(default_factory=dict)

    def observe(self, member: MemberImages) -> None:
        """Measure the images of one weight set."""
        for index in member.first(self.images):
            if self.step is None:
                self.step = self._choose_step(member, index)
            pilot = partial(self._pilot, member, index)
            steps = Disagreement.compare(
                self.step.coarser().responses(pilot), self.step.responses(pilot)
            )
            self.steps_differ += steps.normalised() if member.passes.model.members > 1 else steps
            self.energies[index] = self._image(member, index, self.step)

    def _choose_step(self, member: MemberImages, index: int) -> StepSize:
        found = choose_step(partial(self._pilot, member, index))
        if found == NO_RESPONSE:  # the unit may still respond to other blocks
            return StepSize(STEPS[1])
        if isinstance(found, str):
            raise NotApplicableError(found)
        return found

    def _pilot(
        self, member: MemberImages, index: int, steps: Sequence[float], dither: bool
    ) -> list[Tensor]:
        """Responses of the first unit to the block under it, one per step; see `choose_step`."""
        x = member.image(index)
        grid = require(member.passes.model.target, "target")
        y = (self.units[0][0] + 0.5) * x.shape[1] / grid.height
        z = (self.units[0][1] + 0.5) * x.shape[2] / grid.width
        under = next(
            p for p in self.places if p[0].start <= y < p[0].stop and p[1].start <= z < p[1].stop
        )
        unit = pixel_step(member.passes.model.spec, x)
        signs = self._signs(x, index)
        bases = [dithered_image(x, h * unit, index, self.seed) if dither else x for h in steps]
        changed = (
            _perturbed(base, s * h * unit * signs, under)
            for base, h in zip(bases, steps, strict=True)
            for s in (1, -1)
        )
        outputs = self._units(member, changed)
        return [central_difference(next(outputs)[0], next(outputs)[0], h) for h in steps]

    def _image(self, member: MemberImages, index: int, step: StepSize) -> Array:
        x = member.image(index)
        unit = step.size * pixel_step(member.passes.model.spec, x)
        change = unit * self._signs(x, index)
        bases = [
            dithered_image(x, unit, index, self.seed) if dither else x for dither in step.dithers
        ]
        changed = (
            _perturbed(base, s * change, place)
            for place in self.places
            for base in bases
            for s in (1, -1)
        )
        outputs = self._units(member, changed)
        rows = []
        for _ in self.places:
            responses = [central_difference(next(outputs), next(outputs), step.size) for _ in bases]
            rows.append((responses[0] * responses[-1]).sum(1).cpu().numpy())
        table: Array = np.stack(rows, 1)
        return table

    def _signs(self, x: Tensor, index: int) -> Tensor:
        """Random signs (channels, height, width)."""
        return random_signs(x[None], [index], seed=self.seed, stream=STREAM)[0]

    def _units(self, member: MemberImages, inputs: Iterator[Tensor]) -> Iterator[Tensor]:
        """The channels of each unit (units, channels) for each of `inputs`, in order."""
        grid = require(member.passes.model.target, "target")
        rows, columns = (list(axis) for axis in zip(*self.units, strict=True))
        for flat in member.passes.target(inputs):
            yield flat.unflatten(0, (-1, grid.height, grid.width))[:, rows, columns].T

    def map(self, energies: Array, size: tuple[int, int]) -> Array:
        """Blocks' `energies` (..., blocks) as maps (..., height, width), per pixel."""
        maps = np.zeros((*energies.shape[:-1], *size))
        for k, (rows, columns) in enumerate(self.places):
            pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
            maps[..., rows, columns] = energies[..., k, None, None] / pixels
        return maps


def _perturbed(x: Tensor, change: Tensor, place: Place) -> Tensor:
    altered = x.clone()
    altered[:, place[0], place[1]] += change[:, place[0], place[1]]
    return altered


@dataclass(frozen=True)
class BlockMaps:
    """`maps` by unit (samples, height, width), a table row with their cost and errors, notes."""

    maps: dict[Unit, Array]
    row: dict[str, Any]
    notes: tuple[str, ...]


def block_maps(
    model: Model, context: Context, units: Sequence[Unit], *, block: int | None, images: int
) -> BlockMaps:
    """Energy maps of `units`, averaged within blocks, of the first `images` images.

    Every weight set gets at least one image. Raises `NotApplicableError` if an output is not
    finite or rounded too coarsely for any step, or if responses depend mostly on the step.
    """
    size = (model.spec.height, model.spec.width)
    side = block or default_block(*size)
    count = min(len(context.images), max(images, model.members))
    test = BlockTest(block_places(*size, side), units, count, context.seed)
    notes: list[str] = []
    for member in each_member(model, context.images, context.batch, notes):
        test.observe(member)
    samples = by_sample(test.energies, min(model.members, len(context.images)))
    step = require(test.step, "step")
    if reason := why_step_unusable(test.steps_differ, step):
        raise NotApplicableError(reason)
    row = {
        "side": side,
        "blocks": len(test.places),
        "passes": block_passes(len(test.places), count, step),
        "step": step.size,
        "rounded": step.rounded,
        "step_error": test.steps_differ.relative,
        "sampling_error": sampling_error(normalise_members(model, samples[:, :1])[:, 0]),
    }
    maps = test.map(samples, size)
    return BlockMaps({u: maps[:, i] for i, u in enumerate(units)}, row, (*notes, _cost_note(row)))


def sampling_error(energies: Array) -> float | None:
    """Relative standard error of the mean of `energies` (samples, blocks), weighted by energy."""
    n, mean = len(energies), energies.mean(0)
    if n < 2 or not mean.any():
        return None
    error = energies.std(0, ddof=1) / math.sqrt(n)
    return float(np.sqrt((error**2).sum() / (mean**2).sum()))


def _cost_note(row: dict[str, Any]) -> str:
    spread = row["sampling_error"]
    sampling = "unknown" if spread is None else f"{spread:.2g}"
    return (
        f"blocks of {row['side']} x {row['side']} pixels, {row['passes']} forward passes, step "
        f"{row['step']:.2g}; relative errors: of the step {row['step_error']:.2g}, of sampling "
        f"{sampling}"
    )
