"""The protocols of `erf` as rows of one table; the docstring of `suite` has their sources."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..measuring.gradients import random_signs, require

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ...adapters.model import Outputs
    from ..base import Array

BLOCKS = "blocks"

STREAM = 2

CANCELLED = 1e-5
"""A sum of channels below this share of the sum of magnitudes is treated as rounding noise."""

CHANNELS_CANCEL = (
    "the target is constant, or the unit's channels always sum to 0, as behind a layer norm whose "
    "scales are all 1, so that the sum is rounding noise; use the protocol energy"
)


@dataclass(frozen=True)
class ErfProtocol:
    """One way to measure: what is differentiated, and how the gradients become the map.

    `scalar` takes the unit's channels (batch, channels), times random signs if `signed`, and gives
    the sum over the batch of the target scalar; None for a protocol that takes no gradients.
    `reduce` takes gradients (batch, channels, height, width) to (batch, height, width); None stands
    for `pixel_energy`. `finish` takes the samples (samples, height, width) to the published map.
    """

    scalar: Callable[[Tensor], Tensor] | None
    reduce: Callable[[Tensor], Tensor] | None
    finish: Callable[[Array], Array]
    version: str
    signed: bool = False
    normalised: bool = False
    """Whether the maps of several weight sets are scaled to mean 1 (`normalise_members`)."""
    tokens_up_left: bool = False
    silent: str = "no pixel reaches the unit, or only in steps"

    def unit_scalar(
        self, outputs: Outputs, indices: Sequence[int], *, unit: tuple[int, int], seed: int
    ) -> Tensor:
        """The sum over the batch of the target scalar of `unit` (row, column); see `Probe`."""
        channels = require(outputs.target, "target")[:, :, unit[0], unit[1]]
        if self.signed:
            channels = channels * random_signs(channels, indices, seed=seed, stream=STREAM)
        return require(self.scalar, "gradient")(channels)


def _uncancelled_sum(channels: Tensor) -> Tensor:
    """The sum over channels and batch; 0 if the channels of every image cancel."""
    total = channels.sum(1)
    cancelled = (total.abs() < CANCELLED * channels.abs().sum(1)).all()
    # a factor of 0 or 1: branching on a number would make the GPU wait for it
    return (total * (~cancelled).to(total.dtype).detach()).sum()


def _mean(samples: Array) -> Array:
    mean: Array = samples.mean(0)
    return mean


def _share_of_sum(samples: Array) -> Array:
    mean = _mean(samples)
    share: Array = mean / mean.sum()
    return share


PROTOCOLS: Mapping[str, ErfProtocol] = {
    "energy": ErfProtocol(
        lambda channels: channels.sum(), None, _mean, "1", signed=True, normalised=True
    ),
    "kim2023": ErfProtocol(
        lambda channels: _uncancelled_sum(channels) / channels.shape[1],
        lambda gradient: gradient.mean(1).relu(),
        _share_of_sum,
        "1",
        tokens_up_left=True,
        silent=CHANNELS_CANCEL,
    ),
    "replknet2022": ErfProtocol(
        lambda channels: channels.relu().sum(),
        lambda gradient: gradient.relu().sum(1),
        _mean,
        "1",
    ),
    "luo2016": ErfProtocol(
        _uncancelled_sum,
        lambda gradient: gradient.abs().mean(1),
        _mean,
        "1",
        silent=CHANNELS_CANCEL,
    ),
    BLOCKS: ErfProtocol(None, None, _mean, "2", normalised=True),
}
"""By name; the first is the default."""
