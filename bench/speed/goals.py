"""The goals on a data-centre GPU beside what was measured, and the cost to certainty.

That is the seconds until `deadpixel.weakest` is known to a half width of `GOAL`. A pass that is
twice as fast saves as much as an estimator that needs half as many images; this counts both. The
model is open and its images are decoded, as for the other times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..execution.audit import measure_here
from ..execution.settings import PRECISION_OF, RunOptions, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..records.record import Record
    from .measure import AuditTiming


AUDITED = ("resnet50", 64)
"""Architecture and number of images of the full gradient audit that has a goal."""

AUDIT_GOAL_S = {"cuda": 3.0}
"""Goal for that audit, in seconds, by kind of device."""

SPEEDUP_GOAL = {"cuda": 20.0}
"""Goal for the speed of one map as a multiple of `openerf`'s, by kind of device."""


@dataclass(frozen=True)
class MapComparison:
    """Seconds that `perimetry` and `other` take for the same map of one model, in one run."""

    model: str
    other: str
    images: int
    seconds: float
    other_seconds: float
    agreement: float
    """Relative L2 difference of the two maps."""

    @property
    def factor(self) -> float:
        """How many times as fast `perimetry` is."""
        return self.other_seconds / self.seconds


@dataclass(frozen=True)
class Goal:
    """What was aimed at, and what was measured; `reached` is None where it was not measured."""

    name: str
    bound: str
    measured: str
    reached: bool | None


def audit_goal(device: str, audits: Sequence[AuditTiming]) -> list[Goal]:
    """The goal for the full gradient audit, if there is one for this kind of device."""
    name, count = AUDITED
    aim = AUDIT_GOAL_S.get(device.partition(":")[0])
    if aim is None:
        return []
    text = f"full gradient audit of {name}, {count} images"
    found = next((a for a in audits if name in a.model and a.images == count), None)
    if found is None:
        return [Goal(text, f"under {aim:g} s", "not measured", None)]
    shown = f"{found.seconds:.2f} s ({len(found.cells)} protocols)"
    return [Goal(text, f"under {aim:g} s", shown, found.seconds < aim)]


def map_goal(device: str, comparisons: Sequence[MapComparison]) -> list[Goal]:
    """The goal for one map against another package, if there is one for this kind of device."""
    aim = SPEEDUP_GOAL.get(device.partition(":")[0])
    if aim is None:
        return []
    if not comparisons:
        return [Goal("one map against openerf", f"{aim:g} times as fast", "not measured", None)]
    return [
        Goal(
            f"one map of {c.model}, {c.images} images, against {c.other}",
            f"{aim:g} times as fast",
            f"{c.factor:.1f} times",
            c.factor >= aim,
        )
        for c in comparisons
    ]


GOAL = 0.05
"""Half width of the interval of `weakest`, whose range is 0 to 1."""

FIRST = 8
"""Images that are taken before the goal is judged for the first time."""

MOST = 256


@dataclass(frozen=True)
class CertaintyTiming:
    """What the goal took for one model; `reason` says why it was not reached."""

    model: str
    images: int
    half_width: float | None
    seconds: float
    reason: str = ""


def time_to_certainty(reference: str, *, device: str, batch: int, rounds: int) -> CertaintyTiming:
    """Measure `deadpixel` until the goal is reached; the shortest time of `rounds` counts.

    A first round makes the images, and is not counted.
    """
    settings = Settings(count=FIRST, precision_goal=GOAL, most_images=MOST)
    run = RunOptions(device=device, batch=batch)
    found = []
    for _ in range(rounds + 1):
        records = measure_here(reference, [":".join(PRECISION_OF)], ["none"], settings, run)
        found += [r for r in records if (r.suite, r.protocol) == PRECISION_OF]  # no forward passes
    return _timing(min(found[1:], key=_seconds))


def _seconds(record: Record) -> float:
    return (record.timing.gradients_s or 0.0) + (record.timing.measure_s or 0.0)


def _timing(record: Record) -> CertaintyTiming:
    images = record.images.count if record.images else 0
    weakest = record.metrics.get("weakest")
    why = record.why
    half = weakest.half_width if weakest else None
    if weakest and weakest.value is None:
        why = weakest.reason or ""
    elif half is not None and half > GOAL:
        why = f"not reached with {images} images"
    return CertaintyTiming(record.model.reference, images, half, _seconds(record), why)
