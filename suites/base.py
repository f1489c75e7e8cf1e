"""What a suite is: self-describing metrics, the probes it needs, and its measurement."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from ..adapters.errors import NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from ..adapters.model import Model, Outputs

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Metric:
    """One number a suite reports. `better` says which direction is more even, or that none is."""

    name: str
    definition: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    low: float | None = 0.0
    high: float | None = None
    even: float | None = None
    """Its value on a perfectly even model, where that exists."""


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval. Exact values have no interval, missing ones a reason.

    `draws` (draws,) are bootstrap replicates with common random numbers: the draws of two models
    measured on the same images can be subtracted pair by pair.
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    reason: str | None = None
    draws: Array | None = None

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError("an estimate has either a value or the reason why it has none")
        if self.value is not None and not np.isfinite(self.value):
            raise ValueError(f"an estimate must be finite, got {self.value}; give a reason instead")


def missing(reason: str) -> Estimate:
    """An estimate without a value, for the `reason` given."""
    return Estimate(None, reason=reason)


@dataclass
class Measurement:
    """The results of one suite for one model under one protocol.

    `maps` are arrays for storage and pictures, with axes as documented by the suite; `tables` are
    rows of plain values (layer table, culprits).
    """

    metrics: dict[str, Estimate]
    maps: dict[str, np.ndarray[Any, Any]] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Probe:
    """One backward pass per batch, shared by all suites that request the same `name`.

    `scalar(outputs, indices)` gives the sum over the batch of each image's own target; `indices`
    (batch,) are the indices of the images in the set, so that random signs do not depend on
    batching. `reduce(gradient)` maps (batch, channels, height, width) to (batch, height, width).
    Neither may read a number back from the device, which would make a GPU wait. `silent` is the
    reason to report for a gradient that is zero everywhere.
    """

    name: str
    scalar: Callable[[Outputs, Sequence[int]], Tensor]
    reduce: Callable[[Tensor], Tensor]
    logits: bool = False
    silent: str = "the target is constant"


class Suite(Protocol):
    """One standardised test. The docstring of its module is its definition.

    A suite inherits from this class, with a default for `skip` and `probes`, or has all these
    members itself.
    """

    name: ClassVar[str]
    protocols: ClassVar[Mapping[str, str]]
    """Protocol name to version; the first is the default. A changed definition bumps it."""
    metrics: ClassVar[tuple[Metric, ...]]
    headline: ClassVar[str]
    random: ClassVar[bool]
    """Whether the numbers depend on images and random draws; exact suites need neither."""

    def skip(self, model: Model, protocol: str) -> str | None:
        """The reason why the suite does not apply to `model`, or None.

        By default a suite needs a spatial target.
        """
        del protocol
        return model.why_not_spatial

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """The gradients that `measure` needs; none by default."""
        del model, protocol, seed
        return ()

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Measure `model`. `maps` holds an array (samples, height, width) for each probe name."""


def _one_size(height: int, width: int) -> Tensor:
    raise NotApplicableError(f"the images are not available at {height} x {width} pixels")


@dataclass(frozen=True)
class Context:
    """Inputs of a measurement besides the model: images (n, 3, h, w), seed, batch size, draws.

    `sized(height, width)` returns the same images at another size.
    """

    images: Tensor
    seed: int = 0
    batch: int = 16
    draws: int = 200
    sized: Callable[[int, int], Tensor] = _one_size
