"""What an account says of `padding` and `fidelity`. See `show_rules` for how tables are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..output.numbers import join_with_and
from .finding import ReportedRecord, Rule, Topic, off
from .rules_architecture import image_rule, nearest

if TYPE_CHECKING:
    from collections.abc import Callable


SIDES = {"left_right": ("left", "right"), "top_bottom": ("upper", "lower")}


BORDER_WORDS = ("reflect", "replicate", "circular")


def stronger(metric: str, table: str, column: str) -> Callable[[ReportedRecord], str | None]:
    """Which half is the stronger, by the sign that the last row of `table` has in `column`."""
    sides = SIDES[metric]

    def word(finding: ReportedRecord) -> str | None:
        value = finding.rows(table)[-1][column]
        return None if value is None else sides[0] if value > 0 else sides[1]

    return word


def place(finding: ReportedRecord) -> str:
    """Where on its grid the stimulus changes least, in words."""
    spots = np.asarray(finding.map("blind_spots"))
    row, column = np.unravel_index(int(spots.argmin()), spots.shape)
    rows, columns = (
        _third(int(at), side, words)
        for at, side, words in (
            (row, spots.shape[0], ("top", "middle", "bottom")),
            (column, spots.shape[1], ("left", "centre", "right")),
        )
    )
    return f"{rows} {columns}"


def _third(at: int, side: int, words: tuple[str, str, str]) -> str:
    return words[min(2, 3 * at // side)]


def stimulus(finding: ReportedRecord) -> str:
    """The stimulus: its side, or what the default comes to."""
    side = finding.record.settings["stimulus"]
    spec = finding.record.model.spec
    if side is None:
        side = max(1, round(min(int(spec["height"]), int(spec["width"])) / 28))
    return f"{side} x {side} pixels"


def changed(finding: ReportedRecord) -> str | None:
    """What exchanging the padding does to the drop at the border, best first, where it is shown."""
    found = []
    for border in BORDER_WORDS:
        held = finding.held(f"exchange_{border}")
        if held is None or held.value is None:
            continue
        exact = finding.exact(f"exchange_{border}") and held.value != 0
        if exact or (held.low is not None and held.low > 0) or (held.high or 0) < 0:
            found.append((abs(_drop(finding, border)), border))
    told = [f"{border} to {100 * _drop(finding, border):.0f}\u00a0%" for _, border in sorted(found)]
    return join_with_and(told) if told else None


def before_exchange(finding: ReportedRecord) -> str:
    """The drop at the border, at the nine places at which exchanges are compared."""
    return f"{100 * _drop(finding, 'zero'):.0f}\u00a0%"


def _drop(finding: ReportedRecord, border: str) -> float:
    drops: dict[str, Any] = {r["padding"]: r["border_drop"] for r in finding.rows("exchange")}
    return float(drops[border])


def chance(finding: ReportedRecord) -> str | None:
    """The lean that random kernels leave: 1 / sqrt(kernels) a layer, weighted as the metric is."""
    kernels = np.array([float(row["kernels"]) for row in finding.rows("filters")])
    if not kernels.sum():
        return None
    return f"{100 * float(np.sqrt(kernels).sum() / kernels.sum()):.2g}\u00a0%"


def unread_padding_rule(finding: ReportedRecord) -> str | None:
    """Layers with unread padding, unless `structure` told them."""
    if "structure" in finding.beside:
        return None
    return join_with_and([str(row["name"]) for row in finding.rows("uneven")]) or None


def padding_cures_rule(finding: ReportedRecord) -> str | None:
    """Input sizes next to this one that leave no padding unread."""
    row, spec = finding.rows("uneven")[0], finding.record.model.spec
    found = []
    for axis, name in (("height", "even_heights"), ("width", "even_widths")):
        near = nearest([int(n) for n in row[name]], int(spec[axis]))
        if not near:
            return None
        found.append(f"{axis} {' or '.join(map(str, near))}")
    return " and ".join(found)


def _rises(finding: ReportedRecord) -> bool:
    return off("border_drop")(finding) and finding.value("border_drop") < 0


PADDING: tuple[Topic, ...] = (
    (
        Rule(
            "On the images, units at the border answer {border_ratio} times as strongly as those "
            "at the centre.",
            off("border_ratio"),
        ),
        Rule(
            "On the images, units at the border answer {border_ratio} times as strongly as those "
            "at the centre: {border_ratio:doubt}."
        ),
    ),
    (
        Rule(
            "On a plain image, which has no border of its own, that is {constant_border_ratio}: "
            "the network's doing, not the images'.",
            off("constant_border_ratio"),
        ),
        Rule("On a plain image that is {constant_border_ratio}: {constant_border_ratio:doubt}."),
    ),
    (
        Rule(
            "On a plain image the {lean_lr} half answers more, by {constant_left_right:%} of the "
            "mean.",
            off("constant_left_right"),
        ),
        Rule(
            "Left against right on a plain image: {constant_left_right:%} of the mean, "
            "{constant_left_right:doubt}."
        ),
    ),
    (
        Rule(
            "On a plain image the {lean_tb} half answers more, by {constant_top_bottom:%} of the "
            "mean.",
            off("constant_top_bottom"),
        ),
        Rule(
            "Top against bottom on a plain image: {constant_top_bottom:%} of the mean, "
            "{constant_top_bottom:doubt}."
        ),
    ),
    (
        Rule(
            "A stimulus of {stimulus} is answered least at the {place}: {blind_weakest} of the "
            "mean response.",
            off("blind_weakest"),
        ),
        Rule(
            "A stimulus of {stimulus} is answered least at the {place}: {blind_weakest} of the "
            "mean response, {blind_weakest:doubt}."
        ),
    ),
    (
        Rule("The response rises towards the border ({border_drop:%} drop).", _rises),
        Rule(
            "From the centre to the border the response drops by {border_drop:%}.",
            off("border_drop"),
        ),
        Rule("Drop of the response towards the border: {border_drop:%}, {border_drop:doubt}."),
    ),
    (
        Rule(
            "Left and right answer the stimulus unlike, by {blind_left_right:%} of the mean.",
            off("blind_left_right"),
        ),
    ),
    (
        Rule(
            "Top and bottom answer the stimulus unlike, by {blind_top_bottom:%} of the mean.",
            off("blind_top_bottom"),
        ),
    ),
    (
        Rule(
            "With the same weights, exchanging the padding takes the border drop (at nine places) "
            "from {zero_drop} to: {changed}."
        ),
    ),
    (
        Rule(
            "The mean filters lean by {filter_left_right:%} of a tap left to right, by "
            "{filter_top_bottom:%} top to bottom; random kernels of their number leave about "
            "{chance}.",
            lambda finding: finding.exact("filter_left_right"),
        ),
        Rule(
            "The mean filters lean by {filter_left_right:%} of a tap left to right, by "
            "{filter_top_bottom:%} top to bottom.",
            off("filter_left_right", "filter_top_bottom"),
        ),
        Rule(
            "Lean of the mean filters: {filter_left_right:%} of a tap left to right, "
            "{filter_left_right:doubt}; {filter_top_bottom:%} top to bottom, "
            "{filter_top_bottom:doubt}."
        ),
    ),
    (
        Rule(
            "At {image}, padding is never read to its end by {unread}. Inputs of {cures} cure all."
        ),
        Rule("At {image}, padding is never read to its end by {unread}."),
    ),
)


FIDELITY: tuple[Topic, ...] = (
    (
        Rule(
            "Top-1 agreement with the untreated model is {top1_agreement:%}; of untrained weights, "
            "whose top class hangs on a hair, that says little.",
            lambda finding: finding.initial,
        ),
        Rule("It gives {top1_agreement:%} of the images the same top class as before."),
    ),
    (Rule("The cosine of its features with the untreated model's is {feature_cosine}."),),
)


WORDS: dict[str, Callable[[ReportedRecord], str | None]] = {
    "lean_lr": stronger("left_right", "stages", "constant_left_right"),
    "lean_tb": stronger("top_bottom", "stages", "constant_top_bottom"),
    "place": place,
    "stimulus": stimulus,
    "changed": changed,
    "chance": chance,
    "zero_drop": before_exchange,
    "image": image_rule,
    "unread": unread_padding_rule,
    "cures": padding_cures_rule,
}
