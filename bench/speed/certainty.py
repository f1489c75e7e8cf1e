"""Cost to certainty: seconds until `deadpixel.weakest` is known to a half width of `GOAL`.

A pass that is twice as fast saves as much as an estimator that needs half as many images; this
counts both. The model is open and its images are decoded, as for the other times.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..execution.audit import measure_here
from ..execution.run_options import RunOptions
from ..execution.settings import PRECISION_OF, Settings

if TYPE_CHECKING:
    from ..records.record import Record

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
        (record,) = measure_here(reference, [":".join(PRECISION_OF)], ["none"], settings, run)
        found.append(record)
    return _timing(min(found[1:], key=_seconds))


def _seconds(record: Record) -> float:
    return (record.timing.gradients_s or 0.0) + (record.timing.measure_s or 0.0)


def _timing(record: Record) -> CertaintyTiming:
    images = record.images.count if record.images else 0
    weakest = record.metrics.get("weakest")
    why = record.reason or (record.error.message if record.error else "")
    half = weakest.half_width if weakest else None
    if weakest and weakest.value is None:
        why = weakest.reason or ""
    elif half is not None and half > GOAL:
        why = f"not reached with {images} images"
    return CertaintyTiming(record.model.reference, images, half, _seconds(record), why)
