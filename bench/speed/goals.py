"""The goals on a data-centre GPU, beside what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

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
