"""What a suite is: self-describing metrics, the probes it needs, and its measurement."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

import numpy as np

from ..adapters.errors import InputError, NotApplicableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from torch import Tensor

    from ..adapters.model import Model, Outputs

Array = np.ndarray[Any, np.dtype[np.float64]]

Exactness = Literal["estimate", "one weight set", "always"]
"""Whether a metric is sampled, exact for one weight set and a fixed stimulus, or always exact."""

Verdicts = tuple[str, str]


@dataclass(frozen=True)
class Metric:
    """One number a suite reports, with everything that a table or report needs to show it.

    `better` says which direction ranks first, and is more even where there is a value `even` on a
    perfectly even model; or that neither does. `verdicts` are the words for a model shown to differ
    from that value and for one that equals it.
    """

    name: str
    definition: str
    unit: str
    better: Literal["lower", "higher", "neither"]
    low: float | None = 0.0
    high: float | None = None
    even: float | None = None
    label: str = ""
    """A few words for a table's first column; `name` stands in where it is empty."""
    caveat: str = ""
    """One sentence that says when the number misleads."""
    exact: Exactness = "estimate"
    main: bool = False
    """Whether a summary of the suite shows it."""
    verdicts: Verdicts = ("uneven", "even")

    @property
    def scales(self) -> bool:
        """Whether it grows with the scale of the model's output, which says nothing of the model.

        Such numbers are compared, but never lead a report.
        """
        return self.unit in SCALED_UNITS

    @property
    def counts(self) -> bool:
        """Whether its values are numbers of things, such as layers or pixels."""
        return self.unit in COUNTED_UNITS


MEASURED_AT, MAPS_OF, ANSWER_IS = "measured at ", "maps are those of ", "the answer is "
"""How the notes begin that name the map which a suite about outputs measured."""

COUNTED_UNITS = ("channels", "layers", "pixels", "rows")
"""Units of numbers that are whole where they are counted, not estimated."""

SCALED_UNITS = ("map units", "output units")
"""Units of numbers that double if the output of the model is doubled."""


def described(
    metrics: Iterable[Metric],
    labels: Mapping[str, str],
    *,
    caveats: Mapping[str, str] = MappingProxyType({}),
    exact: Mapping[str, Exactness] = MappingProxyType({}),
    verdicts: Mapping[str, Verdicts] = MappingProxyType({}),
    main: Sequence[str] = (),
) -> tuple[Metric, ...]:
    """`metrics` with what tables and reports need to show them, given by the metrics' names."""
    return tuple(
        replace(
            metric,
            label=labels[metric.name],
            caveat=caveats.get(metric.name, ""),
            exact=exact.get(metric.name, "estimate"),
            verdicts=verdicts.get(metric.name, metric.verdicts),
            main=metric.name in main,
        )
        for metric in metrics
    )


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

    @property
    def half_width(self) -> float | None:
        """The wider half of the interval, since the other may end where the metric's range does."""
        if self.value is None or self.low is None or self.high is None:
            return None
        return max(self.value - self.low, self.high - self.value)


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

    def leave_out(self, metrics: Iterable[str | Metric], reason: object) -> None:
        """Give `metrics` no value, for the `reason` given as text or as an error."""
        names = (metric if isinstance(metric, str) else metric.name for metric in metrics)
        self.metrics |= dict.fromkeys(names, missing(str(reason)))


@dataclass(frozen=True)
class Probe:
    """One backward pass per batch, shared by all suites that request the same `name`.

    `scalar(outputs, indices)` gives the sum over the batch of each image's own target; `indices`
    (batch,) are the indices of the images in the set, so that random signs do not depend on
    batching. `reduce(gradient)` maps (batch, channels, height, width) to (batch, ..., height,
    width). Neither may read a number back from the device, which would make a GPU wait. `silent`
    is the reason to report for a gradient that is zero everywhere. Probes with the same `gradient`
    have the same scalar, and share its backward pass.
    """

    name: str
    scalar: Callable[[Outputs, Sequence[int]], Tensor]
    reduce: Callable[[Tensor], Tensor]
    logits: bool = False
    silent: str = "the target is constant, or changes in steps"
    gradient: str = ""


class Measured(Protocol):
    """What a suite found in a model: a `Measurement`, or the record of one."""

    @property
    def metrics(self) -> Mapping[str, Any]:
        """Estimates by name, each with `value`, `low` and `high`."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences that a reader needs to interpret the numbers."""

    @property
    def maps(self) -> Mapping[str, np.ndarray[Any, Any]]:
        """Maps by name."""

    @property
    def tables(self) -> Mapping[str, list[dict[str, Any]]]:
        """Tables by name."""


class Suite(Protocol):
    """One standardised test. The docstring of its module is its definition.

    A suite inherits from this class, which has a default for everything below `random`, or has all
    these members itself.
    """

    name: ClassVar[str]
    protocols: ClassVar[Mapping[str, str]]
    """Protocol name to version; the first is the default. A changed definition bumps it."""
    metrics: ClassVar[tuple[Metric, ...]]
    headline: ClassVar[str]
    random: ClassVar[bool]
    """Whether the numbers depend on images and random draws; exact suites need neither."""
    question: ClassVar[str] = ""
    """What it asks of a model, as the heading of its section in a report."""
    topic: ClassVar[str] = ""
    """What it is about, in a word or two; a comparison groups the main metrics by it."""
    captions: ClassVar[Mapping[str, str]] = {}
    """Captions of the tables that a report shows, by name; empty if it shows every table."""
    defect_tables: ClassVar[Sequence[str] | None] = None
    """Tables that `defects` reads, None for all: a board and packed files without tables have no
    others."""
    setting_help: ClassVar[Mapping[str, str]] = {}
    """What each setting is, by name of its field, for `perimetry list suites`."""
    needs_gradients: ClassVar[bool] = False
    """Whether `skip` asks for gradients too."""

    def skip(self, model: Model, protocol: str) -> str | None:
        """The reason why the suite does not apply to `model`, or None.

        By default a suite needs a spatial target.
        """
        return (model.why_no_gradients if self.needs_gradients else None) or model.why_not_spatial

    def probes(self, model: Model, protocol: str, seed: int) -> Sequence[Probe]:
        """The gradients that `measure` needs; none by default."""
        return ()

    def defects(self, found: Measured) -> list[str]:
        """Certain defects, such as dead regions, in clauses; a report begins with them.

        A board marks rows by what stands before a clause's colon (`dead: 4 pixels in row 2, ...`).
        They rest on metrics and tables, since packed records have no maps; may raise `KeyError`
        where `found` has none.
        """
        return []

    def unseen(self, found: Measured) -> str:
        """Which defects can hide where `defects` names none, in a clause; empty if none can."""
        return ""

    def causes(self, found: Measured) -> list[str]:
        """Phases, regions or layers at fault, in clauses; asked for where unevenness is shown.

        May raise `KeyError` where `found` has no such map or table.
        """
        return []

    def remedies(self, found: Measured, size: tuple[int, int]) -> list[str]:
        """Changes of the model that `found` supports, in clauses; `size` is (height, width).

        May raise `KeyError` where `found` has no such map or table.
        """
        return []

    def measure(
        self, model: Model, protocol: str, maps: Mapping[str, Array], context: Context
    ) -> Measurement:
        """Measure `model`. `maps` has an array (samples, ..., height, width) for each probe."""


def require_at_least(suite: Suite, least: int, *names: str, unit: str = "") -> None:
    """Raise `InputError` for settings `names` of `suite` below `least`; None is no bound."""
    for name in names:
        value = getattr(suite, name)
        if value is not None and value < least:
            expected = f"at least {least} {unit}".rstrip()
            raise InputError(f"{suite.name}.{name} = {value}; expected {expected}")


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
