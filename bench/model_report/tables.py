"""The small tables of an account: culprits, strided layers, padding, what a treatment changed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...adapters.treatment import UNTOUCHED
from ..output.layout import Table
from ..output.numbers import format_number, join_with_and
from ..output.text import clean
from ..statistics.difference import metric_difference
from .finding import TOLERANCE, ReportedRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..output.layout import Block
    from ..records.record import Record
    from ..statistics.difference import Difference


MOST_ROWS = 8


LEAST = 0.01
"""Culprits that take off less of the imbalance are only counted."""


COMPARED = {
    "structure": ("weakest", "imbalance", "uneven_layers"),
    "erf": ("luo_size", "radius", "offset_y", "offset_x"),
    "deadpixel": ("weakest", "imbalance", "relL1"),
    "padding": ("blind_weakest", "border_drop", "constant_left_right", "constant_top_bottom"),
    "perturbation": ("comb_weakest", "comb_imbalance", "detect_ratio", "shift_consistency"),
    "training": (
        *("accuracy", "mean_accuracy", "epochs_to_90"),
        *("weakest_end", "imbalance_end", "erf_end"),
    ),
}
"""Metrics that are set beside those of the other kernel padding."""


FILL_WORDS = {
    "zero": "The new taps are 0: the same function until it is trained, and measured as such.",
    "fresh": "The new kernels are freshly drawn: an untrained twin, not the same model improved.",
}


def culprits(finding: ReportedRecord) -> Table | None:
    """Strided layers by what kernel padding of each alone would take off the imbalance."""
    before = finding.value("imbalance")
    every = finding.rows("culprits")
    rows = [row for row in every if row["reduction"] >= LEAST * before > 0]
    if not rows or before <= TOLERANCE:
        return None
    caption = f"Imbalance with the kernel of one layer padded, {format_number(before)} as it is"
    if len(every) > len(rows):
        caption += f" (the other {len(every) - len(rows)} take off less than {LEAST:.0%} each)"
    cells = [
        (
            clean(str(row["name"]), 40),
            axes_text(row["kernel"]),
            axes_text(row["stride"]),
            format_number(float(row["imbalance_padded"])),
            f"{100 * float(row['reduction']) / before:.0f} %",
        )
        for row in rows[:MOST_ROWS]
    ]
    heads = ("layer", "kernel", "stride", "imbalance", "takes off")
    return Table(_of(caption, len(rows)), heads, cells)


def layers(finding: ReportedRecord) -> Table | None:
    """The strided layers, and how many there are of all."""
    rows = finding.rows("layers")
    strided = [row for row in rows if max(row["stride"]) > 1]
    if not strided:
        return None
    caption = f"{len(strided)} of {len(rows)} convolutions and poolings have a stride"
    cells = [
        (
            clean(str(row["name"]), 40),
            axes_text(row["kernel"]),
            axes_text(row["stride"]),
            axes_text([f"{a}+{b}" for a, b in zip(*_padding(row), strict=True)]),
            axes_text(row["input"]),
            axes_text(row["output"]),
            axes_text(["/".join(map(str, counts)) for counts in row["coverage"]]),
        )
        for row in strided[:MOST_ROWS]
    ]
    heads = ("layer", "kernel", "stride", "padding", "input", "output", "touches a phase")
    return Table(_of(caption, len(strided)), heads, cells)


def _padding(row: dict[str, Any]) -> tuple[Sequence[int], Sequence[int]]:
    return row["padding_before"], row["padding_after"]


def stages(finding: ReportedRecord) -> Table | None:
    """Spatial bias of a plain image at every resolution on the way to the target."""
    rows = finding.rows("stages")
    heads = ("stage", "units", "border ratio", "left - right", "top - bottom")
    cells = [
        (
            clean(str(row["name"]), 40),
            f"{row['height']} x {row['width']}",
            *(_cell(row[f"constant_{n}"]) for n in ("border_ratio", "left_right", "top_bottom")),
        )
        for row in rows[-MOST_ROWS:]
    ]
    caption = _of("Spatial bias of a plain image, stage by stage", len(rows))
    return Table(caption, heads, cells) if rows else None


def sizes(finding: ReportedRecord) -> Table | None:
    """The sweep over input sizes, where there is one."""
    columns = {
        "uneven_layers": "uneven layers",
        "constant_border_ratio": "border ratio",
        "border_drop": "border drop",
        "blind_weakest": "weakest place",
    }
    rows = finding.rows("sizes")
    cells = [(str(row["size"]), *(_cell(row[name]) for name in columns)) for row in rows]
    return Table("By input size:", ("side", *columns.values()), cells) if rows else None


def units(finding: ReportedRecord) -> Table | None:
    """The grid of units, where there is one."""
    rows = finding.rows("units")
    names = ("luo_size", "radius", "offset_y", "offset_x")
    cells = [
        (f"{row['row']}, {row['column']}", *(_cell(row[name]) for name in names)) for row in rows
    ]
    return Table("Unit by unit, in pixels:", ("unit", *names), cells) if rows else None


def _cell(value: Any) -> str:
    return "n/a" if value is None else format_number(float(value))


def _of(caption: str, count: int) -> str:
    return f"{caption}, {MOST_ROWS} of {count} shown:" if count > MOST_ROWS else f"{caption}:"


def axes_text(values: Sequence[Any]) -> str:
    """`3`, or `3 x 1` where the axes differ."""
    rows, columns = (clean(str(v), 20) for v in values)
    return rows if rows == columns else f"{rows} x {columns}"


def grown(record: Record) -> list[Block]:
    """What kernel padding did to a treated model's layers."""
    treatment = record.model.treatment or {}
    found = [
        f"{layer['name']} {axes_text(layer['kernel'])} -> {axes_text(layer['padded_kernel'])}"
        for layer in treatment.get("layers", [])
    ]
    blocks: list[Block] = [
        f"Grown: {join_with_and(found, 4)}." if found else f"{UNTOUCHED.capitalize()}."
    ]
    if record.suite == "training":
        blocks.append("It was trained so from the first step on.")
    elif record.fill in FILL_WORDS:
        blocks.append(FILL_WORDS[record.fill])
    left = treatment.get("left") or {}
    if left:
        alone = join_with_and([f"{name} ({why})" for name, why in left.items()], 4)
        blocks.append(f"Left alone: {alone}.")
    return blocks


def changes(treated: Sequence[ReportedRecord], untreated: Sequence[ReportedRecord]) -> Table | None:
    """Metrics of both, the difference, and what it shows."""
    twins = {_cell_of(f): f for f in untreated}
    pairs = [(f, twins[_cell_of(f)]) for f in treated if _cell_of(f) in twins]
    cells = [
        row
        for after, before in pairs
        for name in COMPARED.get(after.record.suite, ())
        if (row := _change(after, before, name)) is not None
    ]
    if not cells:
        return None
    fill = clean(treated[0].record.fill, 20)
    return Table(
        "Treated less untreated, on the same images:",
        ("metric", "none", fill, "change", "shows"),
        cells,
    )


def label(finding: ReportedRecord) -> str:
    """`SUITE`, or `SUITE:PROTOCOL` off the default protocol, as columns of a board are called."""
    record = finding.record
    default = next(iter(finding.suite.protocols)) if finding.suite else None
    own = record.protocol in (default, None)
    return clean(record.suite if own else f"{record.suite}:{record.protocol}", 60)


def _cell_of(finding: ReportedRecord) -> tuple[str, str]:
    return finding.record.suite, finding.record.protocol


def _change(after: ReportedRecord, before: ReportedRecord, name: str) -> tuple[str, ...] | None:
    found = metric_difference(after.record, before.record, name)
    old, new = before.held(name), after.held(name)
    if found is None or old is None or new is None:
        return None
    shows = _shown(after, before, name, found)
    return f"{label(after)}.{name}", _cell(old.value), _cell(new.value), _signed(found), shows


def _signed(found: Difference) -> str:
    if found.low is None or found.high is None:
        return f"{found.value:+.3g}"
    half = max(found.value - found.low, found.high - found.value)
    return f"{found.value:+.3g} ± {format_number(half, 2)}"


def _shown(after: ReportedRecord, before: ReportedRecord, name: str, found: Difference) -> str:
    """Whether the treated model is nearer to even, as far as the interval tells."""
    exact = after.exact(name) and before.exact(name)
    if not (found.separated or (exact and found.value != 0)):
        return "nothing: no interval" if found.method == "none" and not exact else _same(found)
    metric = after.metric(name)
    if metric is None or metric.even is None:
        return "a difference"
    nearer = abs(after.value(name) - metric.even) < abs(before.value(name) - metric.even)
    return "more even" if nearer else "less even"


def _same(found: Difference) -> str:
    return "no change" if found.value == 0 else "not shown to differ"


TABLES: dict[str, tuple[Callable[[ReportedRecord], Table | None], ...]] = {
    "structure": (culprits, layers),
    "erf": (units,),
    "padding": (stages, sizes),
}
