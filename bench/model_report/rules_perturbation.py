"""What an account says of `perturbation`. See `show_rules` for how the table is read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..output.numbers import format_number
from .finding import LEVELS, ReportedRecord, Rule, Topic, off
from .rules_architecture import cell

if TYPE_CHECKING:
    from collections.abc import Callable


AGREE = 2.0
"""Standard errors within which two profiles are said to agree."""


STEP_ERRORS = 3.0
"""Multiples of the differences' own error within which two derivatives are said to agree."""


def setting(name: str) -> Callable[[ReportedRecord], str | None]:
    """A setting of the suite, as text."""

    def word(finding: ReportedRecord) -> str | None:
        value = finding.record.settings[name]
        return None if value is None else str(value)

    return word


def step_levels(name: str) -> Callable[[ReportedRecord], str | None]:
    """A setting in pixel values, as grey levels of 255."""

    def word(finding: ReportedRecord) -> str:
        levels = format_number(LEVELS * float(finding.record.settings[name]))
        return f"{levels} grey level{'s' * (levels != '1')}"

    return word


def _agrees(finding: ReportedRecord) -> bool:
    return finding.value("agreement_gradient_z") <= AGREE


def _same_direction(finding: ReportedRecord) -> bool:
    limit = STEP_ERRORS * finding.value("comb_error")
    return finding.value("agreement_direction") <= limit


def _differs(name: str) -> Callable[[ReportedRecord], bool]:
    """Whether the interval of `name` leaves out 0."""

    def holds(finding: ReportedRecord) -> bool:
        held = finding.held(name)
        return held is not None and held.low is not None and held.low > 0

    return holds


PERTURBATION: tuple[Topic, ...] = (
    (
        Rule(
            "By differences alone, without gradients: the worst-served phase{comb} gets "
            "{comb_weakest} of the mean response.",
            off("comb_weakest"),
        ),
        Rule(
            "By differences alone, without gradients: the phase that comes out weakest{comb} "
            "gets {comb_weakest} of the mean response: {comb_weakest:doubt}."
        ),
    ),
    (
        Rule(
            "The response varies over these phases by {comb_imbalance:%} of its mean.",
            off("comb_imbalance"),
        ),
        Rule("Variation over these phases {comb_imbalance:%} of the mean: {comb_imbalance:doubt}."),
    ),
    (
        Rule(
            "To stand out of the response to input noise, a change at the worst-served phase must "
            "be {detect_ratio} times as large as at the best-served ({detect_weakest:levels} "
            "against {detect_strongest:levels} grey levels of 255).",
            off("detect_ratio"),
        ),
        Rule(
            "The step that stands out of the response to input noise is {detect_weakest:levels} "
            "grey levels of 255 at the worst-served phase, {detect_strongest:levels} at the "
            "best-served; their ratio is {detect_ratio}: {detect_ratio:doubt}."
        ),
    ),
    (
        Rule(
            "An attack of {attack} on the best-served phase moves the output "
            "{leverage} times as far as on the worst-served.",
            off("leverage"),
        ),
        Rule(
            "An attack of {attack} moves the output {leverage} times as far on the "
            "best-served phase as on the worst-served: {leverage:doubt}."
        ),
    ),
    (
        Rule(
            "One pixel changed by {epsilon} (normalised) moves the outputs by {position_mean}; "
            "that varies over places by {position_cv:%}, of which the gradients explain "
            "{position_r2:%}."
        ),
        Rule(
            "One pixel changed by {epsilon} (normalised) moves the outputs by {position_mean}; "
            "that varies over places by {position_cv:%}."
        ),
        Rule("One pixel changed by {epsilon} (normalised) moves the outputs by {position_mean}."),
    ),
    (
        Rule(
            "Two crops of an image at offsets up to {shift} pixels get the same class in "
            "{shift_consistency:%} of cases; the weights are untrained, which says little.",
            lambda finding: finding.initial,
        ),
        Rule(
            "Two crops of an image at offsets up to {shift} pixels get the same class in "
            "{shift_consistency:%} of cases."
        ),
    ),
    (
        Rule(
            "Differences and gradients agree: their profiles are {agreement_gradient_z} standard "
            "errors apart, rms over the phases (1 is expected).",
            _agrees,
        ),
        Rule(
            "Differences and gradients do not agree: their profiles are {agreement_gradient_z} "
            "standard errors apart, rms over the phases (1 is expected)."
        ),
        Rule("Differences and gradients differ by {agreement_gradient} rms over the phases."),
    ),
    (
        Rule(
            "Along the same directions they differ by {agreement_direction:%}; {comb_error:%} is "
            "the differences' own error.",
            _same_direction,
        ),
        Rule(
            "Along the same directions they differ by {agreement_direction:%}, more than the "
            "differences' own error of {comb_error:%} explains."
        ),
    ),
    (
        Rule(
            "The profile departs from what the architecture alone implies by "
            "{agreement_structure} rms.",
            _differs("agreement_structure"),
        ),
        Rule(
            "The profile is not shown to depart from what the architecture alone implies "
            "({agreement_structure} rms)."
        ),
    ),
)


WORDS: dict[str, Callable[[ReportedRecord], str | None]] = {
    "comb": cell("comb_profile"),
    "attack": step_levels("attack_step"),
    "epsilon": setting("epsilon"),
    "shift": setting("shift"),
}
