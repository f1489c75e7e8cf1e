"""`perimetry show`: the report on one model, from the records of a folder or from one file.

The verdict, dead regions and what to do come first (`summary`), then each suite's figures and
tables, what kernel padding changed, what could not be measured and why, notes, and where the
numbers come from. Everything is driven by what suites and metrics say of themselves, so that a new
suite needs no code here. Every text that came from a model or a record is made safe to show.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from ...adapters.treatment import UNTOUCHED
from ...suites.measuring.assumptions import FAULTS
from ...suites.measuring.dead_regions import BEHIND
from ..output.files import try_or_none
from ..output.layout import WIDTH, Section, lay_out
from ..output.numbers import format_number, join_with_and
from ..output.text import clean
from ..records.selection import said_first
from ..statistics.difference import more_samples
from .dead_regions import dead_region_line
from .provenance import changed_settings, provenance
from .reported import (
    Evenness,
    ReportedRecord,
    caveats,
    cell_text,
    changes,
    defects_of,
    figures,
    metric_change,
    record_tables,
    reported,
    without_interval,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ...suites.base import Suite
    from ..output.layout import Block
    from ..records.record import Record
    from .case import Case


FILL_NOTES = {
    "zero": "The new taps are 0: the function is unchanged until it is trained.",
    "fresh": "The new kernels are drawn at random: this is another, untrained model.",
    "kim2023": "New taps are 0 and max-pools are larger, as in Kim et al.: the function changes.",
}


def report(
    case: Case, *, width: int = WIDTH, heading: Callable[[str], str] = lambda text: text
) -> str:
    """The report as text of at most `width` columns; `heading` may colour headings."""
    padding = "as it is" if case.fill == "none" else f"kernel padding {clean(case.fill, 20)}"
    sections = [
        Section(f"{clean(case.reference)}, {padding}", [*summary(case)]),
        *(_suite_section(one, case.suites) for one in reported(case.records, case.suites)),
        *(_treated(case, fill) for fill in case.treated),
        Section("Not measured", _gaps(case.every)),
        Section("Notes", _notes(case.every)),
        Section("Where this comes from", provenance(case.every, case.suites)),
    ]
    return lay_out(sections, width, heading)


def _suite_section(one: ReportedRecord, suites: Mapping[str, Suite]) -> Section:
    """The figures of one record, what they say and when they mislead, and its tables."""
    found = figures(one)
    chosen = try_or_none(changed_settings, one.record, suites)
    said = [f"Settings: {', '.join(chosen)}."] if chosen else []
    said += [
        f"{clause[:1].upper()}{clause[1:]}."
        for clause in [*one.defects, *causes(one), *remedies(one), *without_interval(one)]
    ]
    tables = try_or_none(record_tables, one) or []
    return Section(one.title, [*([found] if found else []), *said, *caveats(one), *tables])


def _treated(case: Case, fill: str) -> Section:
    """What kernel padding `fill` changed, and how far the answers stayed the same."""
    after, before = (reported(case.of(name), case.suites) for name in (fill, "none"))
    section = Section(f"Kernel padding {clean(fill, 20)}: what it changed")
    if not after:
        return section
    section.blocks += try_or_none(_padded_layers, after[0].record) or []
    if not (after[0].record.model.treatment or {}).get("layers"):
        return section
    table = try_or_none(changes, after, before)
    section.blocks.append(table or "There is no record of the untreated model to compare with.")
    known = {one.column for one in before}
    line = verdict_line([one for one in after if one.column not in known])
    if case.fill == "none" and line:
        section.blocks.append(f"{line}.")
    return section


def _padded_layers(record: Record) -> list[Block]:
    """The layers that kernel padding changed, and those it left."""
    treatment = record.model.treatment or {}
    padded = [
        f"{layer['name']} {cell_text(layer['kernel'])} -> {cell_text(layer['padded_kernel'])}"
        for layer in treatment.get("layers", [])
    ]
    blocks: list[Block] = [
        f"Padded: {join_with_and(padded, 4)}." if padded else f"{UNTOUCHED.capitalize()}."
    ]
    if record.suite == "training":
        blocks.append("The model was trained with padded kernels from the first step.")
    elif record.fill in FILL_NOTES:
        blocks.append(FILL_NOTES[record.fill])
    left = treatment.get("left") or {}
    if left:
        named = join_with_and([f"{name} ({why})" for name, why in left.items()], 4)
        blocks.append(f"Not padded: {named}.")
    return blocks


def _gaps(records: Sequence[Record]) -> list[Block]:
    """What has no number, and why; metrics with the same reason are listed together."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for what, reason in _reasons(record):
            found[f"{record.suite}:{record.protocol}", reason][what].append(record.fill)
    return [
        clean(
            f"{suite} ({', '.join(dict.fromkeys(chain(*names.values())))}): {', '.join(names)}: "
            f"{reason}.",
            600,
        )
        for (suite, reason), names in found.items()
    ]


def _reasons(record: Record) -> list[tuple[str, str]]:
    """The missing metrics of a record with the reasons."""
    if record.status != "ok":
        return [("failed" if record.status == "failed" else "does not apply", record.why)]
    return [(name, one.reason) for name, one in record.metrics.items() if one.reason]


def _notes(records: Sequence[Record]) -> list[Block]:
    """The notes of the records, each once, with the suites that made it."""
    by_note: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            by_note[note].append(record.suite)
    return [
        clean(f"{', '.join(dict.fromkeys(suites))}: {note}", 600)
        for note, suites in by_note.items()
    ]


def summary(case: Case) -> list[str]:
    """The verdict, the dead regions, and what to do: a line each."""
    found = reported(case.records, case.suites)
    defects = defects_of(found)
    dead = [clause.removeprefix(f"{DEAD}: ") for clause in defects if clause.startswith(DEAD)]
    others = [clause for clause in defects if not clause.startswith(DEAD)]
    parts = [
        fault_line(case.records),
        f"Defects: {'; '.join(others)}" if others else "",
        "Parts of the image have no influence" if dead else "",
        verdict_line(found) or ("Nothing else was measured" if defects else "Nothing was measured"),
    ]
    verdict = ". ".join(part for part in parts if part)
    return [
        f"Verdict: {verdict}.",
        f"Dead regions: {dead_region_line(dead, case.records, case.suites)}.",
        f"What to do: {remedy_line(case, found)}.",
    ]


DEAD = "dead"
"""What clauses on dead regions begin with."""


def fault_line(records: Sequence[Record]) -> str:
    """What changes the meaning of all numbers, such as an output that is not finite."""
    reasons = dict.fromkeys(r.reason for r in records if (r.reason or "").startswith(FAULTS))
    notes = dict.fromkeys(n for r in records for n in r.notes if n.startswith(FAULTS))
    found = [
        *said_first(records),
        *([f"not measured: {'; '.join(map(str, reasons))}"] if reasons else notes),
    ]
    text = clean("; ".join(found), 600)
    return text[:1].upper() + text[1:]


def verdict_line(found: Sequence[ReportedRecord]) -> str:
    """Every suite's headline metric, grouped by what it shows and then by its label."""
    groups: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    # what is shown to be uneven comes first, what is neither even nor uneven last
    order = [*Evenness, None]
    for one in sorted(found, key=lambda one: order.index(one.verdict(one.headline or ""))):
        name = one.headline
        if name is not None:
            metric = one.metric(name)
            unit = "" if metric.unit in ("ratio", "share") else f" {metric.unit}"
            even = "" if metric.even is None else f" ({metric.even:g} is {metric.verdicts[1]})"
            text = f"{one.text(name)}{unit} in {one.column}"
            groups[_group(one, name)][one.label(name) + even].append(text)
    lines = []
    for word, values in groups.items():
        listed = "; ".join(f"{label} {', '.join(texts)}" for label, texts in values.items())
        lines.append(f"{word.capitalize()}: {listed}")
    return ". ".join(lines)


def _group(one: ReportedRecord, name: str) -> str:
    """The heading under which a headline metric stands in the verdict."""
    verdict, (off, even) = one.verdict(name), one.metric(name).verdicts
    if verdict is Evenness.no_interval:
        why = "with too few samples for" if one.few_samples else "all samples being alike, without"
        return f"not shown to be {off}, {why} an interval"
    words = {None: "measured", Evenness.off: off, Evenness.even: even}
    return words.get(verdict, f"not shown to be {off}")


def cause_line(found: Sequence[ReportedRecord]) -> str:
    """The main region, phase or layers at fault in each suite; its section has the others."""
    clauses = [f"{clause} ({one.column})" for one in found for clause in causes(one)[:1]]
    return f"Cause: {'; '.join(clauses)}" if clauses else ""


def causes(one: ReportedRecord) -> list[str]:
    """What the suite says is at fault, if its headline metric is shown to be uneven."""
    if one.suite is None or not one.headline or one.verdict(one.headline) is not Evenness.off:
        return []
    return try_or_none(one.suite.causes, one.record) or []


def remedies(one: ReportedRecord) -> list[str]:
    """What the suite suggests."""
    spec = one.record.model.spec or {}
    size = (spec.get("height"), spec.get("width"))
    return try_or_none(one.suite.remedies, one.record, size) or [] if one.suite else []


def remedy_line(case: Case, found: Sequence[ReportedRecord]) -> str:
    """What to look for behind dead regions; what kernel padding cures, or a suite suggests."""
    dead = [clause for one in found for clause in one.defects if clause.startswith(DEAD)]
    clauses = [clause for fill in case.treated if (clause := _cure(case, fill))]
    suggested = [clause for one in found for clause in remedies(one)[:1]]
    if dead or clauses or suggested:
        return "; ".join([*_behind_dead_regions(dead), *dict.fromkeys(clauses or suggested[:1])])
    shown = {one.verdict(one.headline) for one in found if one.headline}
    if shown == {None}:
        return "not known: no suite here looks for unevenness; structure and deadpixel do"
    if shown and shown <= {None, Evenness.even, Evenness.not_shown}:
        return "nothing, as no unevenness is shown"
    scarce = next((one.record for one in found if one.few_samples), None)
    if Evenness.no_interval in shown and scarce is not None:
        return f"{more_samples(scarce)}: without an interval nothing is shown"
    return "no remedy is known"


def _behind_dead_regions(clauses: Sequence[str]) -> list[str]:
    """What to look for where there are dead regions; nothing without `clauses` on them."""
    if not clauses:
        return []
    behind = all(BEHIND in clause for clause in clauses)
    what = "leaves out units of the target" if behind else "masks or crops the image"
    return [f"look for what {what}: kernel padding does not reach it"]


def _cure(case: Case, fill: str) -> str:
    """What kernel padding `fill` does to the headline metrics, in a clause."""
    before = {one.column: one for one in reported(case.of("none"), case.suites)}
    cured, kept = [], []
    for one in reported(case.of(fill), case.suites):
        other, name = before.get(one.column), one.headline
        change = metric_change(one, other, name) if other and name else None
        if change is not None and change.shows in ("more even", "less even"):
            values = f"{format_number(change.before)} to {format_number(change.after)}"
            cured.append(f"{one.label(change.name)} {values} ({one.column}, {change.shows})")
        elif name and not other:
            kept.append(f"{one.label(name)} {one.text(name)} ({one.column})")
    return f"--kernel-padding {fill}: {', '.join([*cured, *kept])}" if cured else ""
