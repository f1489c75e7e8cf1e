"""What an account says of `training`. See `show_rules` for how the table is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .finding import ReportedRecord, Rule, Topic, off

if TYPE_CHECKING:
    from .finding import Words


def task(finding: ReportedRecord) -> str:
    """What was learned."""
    boxes = finding.record.protocol == "micro_object"
    return "telling red boxes from black ones" if boxes else "ordinary classification"


def seeds(finding: ReportedRecord) -> str | None:
    """How many seeds stand behind the numbers."""
    found = finding.record.settings.get("seeds")
    return str(len(found)) if isinstance(found, list) else None


WORDS: Words = {"task": task, "seeds": seeds}


TRAINING: tuple[Topic, ...] = (
    (
        Rule("Over {seeds} seeds of {task} it ends with {accuracy:%} of the test images right."),
        Rule("It ends with {accuracy:%} of the test images of {task} right."),
    ),
    (Rule("It takes {epochs_to_90} epochs to 90 %."),),
    (
        Rule(
            "A box in its worst phase is answered rightly {phase_weakest} times as often as one "
            "anywhere, mean over epochs.",
            off("phase_weakest"),
        ),
    ),
    (
        Rule(
            "Training takes the imbalance of its phases from {imbalance_start} to {imbalance_end}."
        ),
    ),
    (Rule("Its effective receptive field goes from {erf_start} to {erf_end} pixels."),),
)
