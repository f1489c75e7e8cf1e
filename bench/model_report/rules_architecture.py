"""What an account says of the suites that look at architecture and gradients.

Each suite has a table of topics; in a topic the first rule that can be said is said. Words are what
a sentence needs beside metrics.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..output.numbers import format_number, join_with_and
from .finding import ReportedRecord, Rule, Topic, off, settled

if TYPE_CHECKING:
    from collections.abc import Callable


MOST_PERIODS = 4


LEAST_SHARE = 0.05
"""Parts of the unevenness smaller than this are not told."""


NOTHING = 1e-6


GAUSSIAN, NOT_GAUSSIAN = 0.9, 0.5
"""R^2 above which a field is called close to a Gaussian, and below which it is said not to be."""


LONG = 1.05
"""Anisotropy that is worth a sentence."""


def cell(name: str) -> Callable[[ReportedRecord], str | None]:
    """Place of the smallest phase of the map `name`, from 0, in brackets; '' without the map."""

    def word(finding: ReportedRecord) -> str | None:
        if name not in finding.record.maps:
            return ""
        profile = np.asarray(finding.map(name))
        row, column = np.unravel_index(int(profile.argmin()), profile.shape)
        rows, columns = profile.shape
        return f" (row {row}, column {column} of every {rows} x {columns} cell)"

    return word


def periods(finding: ReportedRecord) -> str | None:
    """`period 2 causes 82 %, period 4 18 %` of the variance; parts that noise may explain not."""
    total = finding.value("imbalance") ** 2
    shares = {}
    for name in finding.record.metrics:
        held = finding.held(name) if name.startswith("by_period_") else None
        if held is None or held.value is None or total <= 0:
            continue
        shown = finding.exact(name) or (held.low is not None and held.low > 0)
        if shown and held.value / total >= LEAST_SHARE:
            shares[name.removeprefix("by_period_")] = min(1.0, held.value / total)
    ordered = sorted(shares.items(), key=lambda item: -item[1])[:MOST_PERIODS]
    told = [f"period {period} causes {100 * share:.0f}\u00a0%" for period, share in ordered]
    return join_with_and(told) if told else None


def image_rule(finding: ReportedRecord) -> str:
    """The input's size."""
    spec = finding.record.model.spec
    return f"{spec['height']} x {spec['width']}"


def target(finding: ReportedRecord) -> str | None:
    """The target's grid."""
    grid = finding.record.model.target
    return f"{grid['height']} x {grid['width']} units" if grid else None


def unread_pixels_rule(finding: ReportedRecord) -> str | None:
    """Names of the layers that leave padding unread."""
    return join_with_and([str(row["name"]) for row in finding.rows("uneven")]) or None


def faults(finding: ReportedRecord) -> str:
    """How many layers leave padding unread."""
    count = int(finding.value("uneven_layers"))
    return "1 strided layer leaves" if count == 1 else f"{count} strided layers leave"


def untouched(finding: ReportedRecord) -> str | None:
    """Names of the layers that never touch a part of their input."""
    names = [
        str(row["name"])
        for row in finding.rows("layers")
        if any(min(counts) == 0 for counts in row["coverage"])
    ]
    return join_with_and(names) or None


def kernel_padding_cures(finding: ReportedRecord) -> str | None:
    """Heights and widths next to the input's at which every layer reads all its padding."""
    spec, found = finding.record.model.spec, []
    for axis in ("height", "width"):
        sizes = [int(r["size"]) for r in finding.rows("even_sizes") if r["axis"] == axis]
        near = nearest(sizes, int(spec[axis]))
        if not near:
            return None
        found.append(f"{axis} {' or '.join(map(str, near))}")
    return " and ".join(found)


def nearest(sizes: list[int], size: int) -> list[int]:
    """The largest of `sizes` not above `size`, and the smallest above it."""
    return [*sorted(n for n in sizes if n <= size)[-1:], *sorted(n for n in sizes if n > size)[:1]]


def uneven_layer_sentence(finding: ReportedRecord) -> str | None:
    """What kernel padding of the worst layer alone would change."""
    rows = finding.rows("culprits")
    if not rows or rows[0]["reduction"] <= 0:
        return None
    before, after = finding.value("imbalance"), float(rows[0]["imbalance_padded"])
    name = join_with_and([str(rows[0]["name"])])
    was, would_be = format_number(before), format_number(after)
    return f"{name} alone would take the imbalance from {was} to {would_be}"


def of_image(finding: ReportedRecord) -> str:
    """The field's side over the image's, as a share."""
    spec = finding.record.model.spec
    side = (int(spec["height"]) * int(spec["width"])) ** 0.5
    return f"{100 * finding.value('luo_size') / side:.0f}\u00a0%"


def quarter(finding: ReportedRecord) -> str:
    """A quarter of the image's shorter side, in pixels."""
    spec = finding.record.model.spec
    return format_number(min(int(spec["height"]), int(spec["width"])) / 4)


def unit(finding: ReportedRecord) -> str:
    """Which unit it is."""
    chosen = finding.record.settings.get("unit")
    return "central unit" if chosen is None else f"unit (row {chosen[0]}, column {chosen[1]})"


def whose(finding: ReportedRecord) -> str:
    """What the sensitivity is that of."""
    logit = finding.record.protocol == "kim2023"
    return "sensitivity of the predicted class" if logit else "sensitivity"


def _blind(finding: ReportedRecord) -> bool:
    return finding.value("weakest") < NOTHING


def _bounds(name: str, low: float, high: float) -> Callable[[ReportedRecord], bool]:
    """Whether the interval of `name` lies in [low, high]."""

    def holds(finding: ReportedRecord) -> bool:
        held = finding.held(name)
        if held is None or held.low is None or held.high is None:
            return False
        return held.low >= low and held.high <= high

    return holds


def _offsets(finding: ReportedRecord) -> list[tuple[float, float]]:
    """Intervals of the offset's parts; the length of a noisy offset is above 0 in any case."""
    held = [finding.held(name) for name in ("offset_y", "offset_x")]
    return [(h.low, h.high) for h in held if h and h.low is not None and h.high is not None]


def _off_centre(finding: ReportedRecord) -> bool:
    return any(low > 0 or high < 0 for low, high in _offsets(finding))


STRUCTURE: tuple[Topic, ...] = (
    (
        Rule("The worst-served phase{phase} gets nothing: no path reads these pixels.", _blind),
        Rule(
            "Over all random weights, the worst-served phase{phase} is expected to get "
            "{weakest} of the average sensitivity, the best-served {ratio} times as much.",
            off("weakest"),
        ),
        Rule(
            "Over all random weights, the worst-served phase{phase} is expected to get {weakest} "
            "of the average sensitivity.",
            off("weakest"),
        ),
        Rule(
            "All phases are treated alike: the weakest gets {weakest} of the average.",
            settled("weakest"),
        ),
    ),
    (
        Rule(
            "Sensitivity is expected to vary over the phases by {imbalance:%} of its mean "
            "(imbalance). Of that variance, {periods}.",
            off("imbalance"),
        ),
        Rule(
            "Sensitivity is expected to vary over the phases by {imbalance:%} of its mean.",
            off("imbalance"),
        ),
    ),
    (Rule("Kernel padding of {culprit}.", off("imbalance")),),
    (Rule("Windows smaller than their stride leave part of the input untouched: {untouched}."),),
    (
        Rule(
            "At {image}, {faults} the last of the padding unread: {unread}. Inputs of {cures} "
            "leave none unread.",
            off("uneven_layers"),
        ),
        Rule(
            "At {image}, {faults} the last of the padding unread: {unread}. No size within two "
            "strides cures all of them.",
            off("uneven_layers"),
        ),
        Rule("At {image}, every strided layer reads all of its padding.", settled("uneven_layers")),
    ),
    (
        Rule(
            "In theory a unit of the target ({target}) sees {receptive_field} x "
            "{receptive_field_columns} pixels, the next one {target_stride} pixels on."
        ),
    ),
)


ERF: tuple[Topic, ...] = (
    (
        Rule(
            "The {unit} listens to about {luo_size} pixels a side (above 4.55 % of the peak), "
            "{of_image} of the image's side and {erf_trf:%} of its theoretical field's."
        ),
        Rule(
            "The {unit} listens to about {luo_size} pixels a side (above 4.55 % of the peak), "
            "{of_image} of the image's side."
        ),
    ),
    (Rule("{mass@0.25:%} of it lies within {quarter} pixels of the unit's geometric centre."),),
    (
        Rule(
            "It lies off that centre, by {offset_y} rows and {offset_x} columns.",
            _off_centre,
        ),
        Rule(
            "It is not shown to lie off that centre ({offset_y} rows, {offset_x} columns).",
            lambda finding: bool(_offsets(finding)),
        ),
        Rule("Its centre of mass lies {offset_y} rows and {offset_x} columns off; no interval."),
    ),
    (
        Rule(
            "It is close to a Gaussian (R² {r_squared}) of standard deviation {sigma_y} rows, "
            "{sigma_x} columns.",
            _bounds("r_squared", GAUSSIAN, 1.0),
        ),
        Rule(
            "It is no Gaussian: the best one explains {r_squared:%} of its variance.",
            _bounds("r_squared", -np.inf, NOT_GAUSSIAN),
        ),
        Rule(
            "The best Gaussian explains {r_squared:%} of its variance; standard deviation "
            "{sigma_y} rows, {sigma_x} columns."
        ),
    ),
    (
        Rule(
            "It is {anisotropy} times as long as wide.",
            _bounds("anisotropy", LONG, np.inf),
        ),
    ),
)


DEADPIXEL: tuple[Topic, ...] = (
    (
        Rule(
            "The worst-served phase{phase} gets {weakest} of the average {whose}.",
            off("weakest"),
        ),
        Rule(
            "The phase that comes out weakest{phase} gets {weakest} of the average {whose}: "
            "{weakest:doubt}."
        ),
    ),
    (
        Rule("The best-served phase gets {ratio} times as much as the worst.", off("ratio")),
        Rule("The best-served phase over the worst is {ratio}: {ratio:doubt}."),
    ),
    (
        Rule(
            "It varies over the phases by {imbalance:%} of its mean (imbalance). Of that variance, "
            "{periods}.",
            off("imbalance"),
        ),
        Rule("It varies over the phases by {imbalance:%} of its mean.", off("imbalance")),
        Rule("Variation over the phases {imbalance:%} of the mean: {imbalance:doubt}."),
    ),
    (
        Rule("{dead@0.01:%} of the phases get less than 1 %.", off("dead@0.01")),
        Rule("{dead@0.1:%} of the phases get less than a tenth of the average.", off("dead@0.1")),
        Rule("{dead@0.5:%} of the phases get less than half of the average.", off("dead@0.5")),
    ),
    (Rule("From pixel to pixel it changes by {relL1:%} of its mean (relL1, noise included)."),),
)


WORDS: dict[str, Callable[[ReportedRecord], str | None]] = {
    "phase": cell("phase_profile"),
    "periods": periods,
    "image": image_rule,
    "target": target,
    "unread": unread_pixels_rule,
    "faults": faults,
    "untouched": untouched,
    "cures": kernel_padding_cures,
    "culprit": uneven_layer_sentence,
    "of_image": of_image,
    "quarter": quarter,
    "unit": unit,
    "whose": whose,
}
