"""`perimetry show`: the report on one model, from the records of a folder or from one file.

First the verdict, its causes and what to do (see `summary`), then each suite's figures and tables,
what kernel padding changed, what could not be measured and why, notes, and where the numbers come
from. Everything is driven by what suites and metrics say of themselves, so that a new suite needs
no code here. Every text that came from a model or a record is made safe to show.
"""

from __future__ import annotations

from collections import defaultdict
from itertools import chain
from typing import TYPE_CHECKING

from ...adapters.treatment import UNTOUCHED
from ..output.files import try_or_none
from ..output.layout import WIDTH, Section, lay_out
from ..output.numbers import join_with_and
from ..output.text import clean
from .provenance import changed_settings, provenance
from .reported import ReportedRecord, reported
from .summary import causes, remedies, summary, verdict_line
from .tables import caveats, cell_text, changes, figures, record_tables

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
        for clause in [*one.defects, *causes(one), *remedies(one)]
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
