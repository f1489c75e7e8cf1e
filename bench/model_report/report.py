"""`perimetry show`: a readable account of one model, from the records of a folder or from one file.

What was found is told suite by suite in sentences (see the `rules_` files), with small tables (see
`show_tables`); then what kernel padding changed, what could not be measured and why, notes, and
where the numbers come from. A suite without a record is left out. Nothing is said that a record
does not hold, and every text that came from a model or a record is made safe to show.
"""

from __future__ import annotations

import zipfile
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...adapters.errors import InputError, UnknownNameError
from ...suites.deadpixel import NOT_ALWAYS_BETTER
from ..output.damaged import try_or_none
from ..output.layout import WIDTH, Section, Table, lay_out
from ..output.numbers import with_interval_text
from ..output.text import clean
from ..records.selection import check_unmixed, choose, find_reference, newest
from ..records.store import Store, read_record
from . import rules_architecture as show_rules
from . import rules_padding as show_rules_padding
from . import rules_perturbation as show_rules_perturbation
from . import rules_training as show_rules_training
from .finding import ReportedRecord, Topic, sentences
from .provenance import provenance
from .tables import TABLES, changes, grown, label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ...suites.base import Suite
    from ..output.layout import Block
    from ..records.record import Record
    from .finding import Words


TOPICS: Mapping[str, tuple[tuple[Topic, ...], Words]] = {
    "structure": (show_rules.STRUCTURE, show_rules.WORDS),
    "erf": (show_rules.ERF, show_rules.WORDS),
    "deadpixel": (show_rules.DEADPIXEL, show_rules.WORDS),
    "padding": (show_rules_padding.PADDING, show_rules_padding.WORDS),
    "perturbation": (show_rules_perturbation.PERTURBATION, show_rules_perturbation.WORDS),
    "fidelity": (show_rules_padding.FIDELITY, show_rules_padding.WORDS),
    "training": (show_rules_training.TRAINING, show_rules_training.WORDS),
}


QUESTIONS = {
    "structure": "what the architecture alone implies",
    "erf": "what one unit listens to",
    "deadpixel": "is every pixel heard?",
    "padding": "spatial bias and blind spots",
    "perturbation": "what a small change does",
    "fidelity": "what the treatment cost",
    "training": "does it matter?",
}


@dataclass(frozen=True)
class Case:
    """One model: the records of the variant that is told, and of its other kernel paddings."""

    reference: str
    fill: str
    records: list[Record]
    others: dict[str, list[Record]]
    suites: Mapping[str, Suite]

    @property
    def every(self) -> list[Record]:
        """All records, those that are told first."""
        return [*self.records, *(r for held in self.others.values() for r in held)]


def open_case(
    place: Path,
    model: str | None = None,
    *,
    fill: str | None = None,
    where: Sequence[str] = (),
    suites: Mapping[str, Suite] | None = None,
) -> tuple[Case, list[str]]:
    """The case of `model` in `place`, a record's file or a folder; and the files left out, and why.

    `model` may be left out where there is only one. Raises `InputError` for a place without
    records, `StoreError` for a file that is none, `UnknownNameError` with near names,
    `MixedRecordsError` where several settings meet and `where` does not choose.
    """
    if suites is None:
        from ...suites.registry import SUITES

        suites = SUITES
    records, problems = _read(place)
    reference = find_reference(model, sorted({r.model.reference for r in records}))
    own = newest(choose([r for r in records if r.model.reference == reference], where))
    if not own:
        raise InputError(f"no record of {reference!r} is left by --where {' '.join(where)}")
    check_unmixed(own)
    return _case(reference, own, fill, suites), problems


def _case(
    reference: str, records: Sequence[Record], fill: str | None, suites: Mapping[str, Suite]
) -> Case:
    """Sort records by kernel padding and suite; the untreated model is told unless asked else."""
    order = {name: place for place, name in enumerate(suites)}
    by_fill: dict[str, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: order.get(r.suite, len(order))):
        by_fill[record.fill].append(_with_arrays(record))
    wanted = fill or ("none" if "none" in by_fill else next(iter(by_fill)))
    if wanted not in by_fill:
        raise UnknownNameError(
            f"no record of {reference!r} has kernel padding {wanted!r}; there is "
            f"{' and '.join(sorted(by_fill))}"
        )
    others = {name: held for name, held in by_fill.items() if name != wanted}
    return Case(reference, wanted, by_fill[wanted], others, suites)


def _read(place: Path) -> tuple[list[Record], list[str]]:
    """Readable records of `place`, and what is wrong with the others."""
    if place.is_file():
        return [read_record(place)], []
    if not (place / "records").is_dir():
        raise InputError(
            f"{str(place)!r} is neither a record's file nor a folder with records; expected one "
            "that was given as `perimetry run ... --out`"
        )
    store = Store(place)
    records, problems = store.read()
    if not records:
        told = f": {problems[0]}" if problems else "; `perimetry run` has not written any yet"
        raise InputError(f"no record in {str(place)!r} can be shown{told}")
    return records, problems


def _with_arrays(record: Record) -> Record:
    """The record with its maps read; without any, and a note, where they cannot be."""
    try:
        record.maps  # noqa: B018 - reads the file
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        note = f"maps and draws cannot be read: {type(error).__name__}: {error}"
        return record.model_copy(update={"notes": [*record.notes, note]}).attach(({}, {}))
    return record


def account(
    case: Case, *, width: int = WIDTH, heading: Callable[[str], str] = lambda text: text
) -> str:
    """The account as text of at most `width` columns; `heading` may colour headings."""
    told = findings(case.records, case.suites)
    sections = [_head(case, told), *(_suite_section(finding) for finding in told)]
    sections += [_treated(case, fill) for fill in _pairs(case)]
    sections += [
        Section("Not measured", _gaps(case.every)),
        Section("Notes", _notes(case.every)),
        Section("Where this comes from", provenance(case.every, case.suites)),
    ]
    return lay_out(sections, width, heading)


def findings(records: Sequence[Record], suites: Mapping[str, Suite]) -> list[ReportedRecord]:
    """The finished ones of `records`."""
    beside = frozenset(r.suite for r in records if r.status == "ok")
    return [ReportedRecord(r, suites.get(r.suite), beside) for r in records if r.status == "ok"]


def _head(case: Case, told: Sequence[ReportedRecord]) -> Section:
    name = clean(case.reference)
    variant = "as it is" if case.fill == "none" else f"kernel padding {clean(case.fill, 20)}"
    cells = [row for f in told if (row := _headline(f)) is not None]
    heads = ("headline", "value", "on an even model", "shows")
    return Section(f"{name}, {variant}", [Table("In short:", heads, cells)] if cells else [])


def _headline(finding: ReportedRecord) -> tuple[str, ...] | None:
    """The suite's headline metric in a row."""
    name = finding.suite.headline if finding.suite else ""
    text, metric = finding.text(name), finding.metric(name)
    if text is None or metric is None:
        return None
    verdict = finding.verdict(name)
    even = "" if metric.even is None else f"{metric.even:g}"
    return f"{label(finding)}.{name}", text, even, verdict.value if verdict else ""


def _suite_section(finding: ReportedRecord) -> Section:
    """What one record says: sentences, then tables."""
    record = finding.record
    question = QUESTIONS.get(record.suite)
    section = Section(f"{label(finding)}: {question}" if question else label(finding))
    topics, words = TOPICS.get(record.suite, ((), {}))
    section.blocks += sentences(finding, topics, words) if topics else _plain(finding)
    for make in TABLES.get(record.suite, ()):
        table = try_or_none(make, finding)
        section.blocks += [table] if table else []
    if record.suite == "deadpixel":
        section.blocks.append(NOT_ALWAYS_BETTER)
    return section


def _plain(finding: ReportedRecord) -> list[Block]:
    """A suite without rules: its metrics with their definitions."""
    found: list[Block] = []
    for name, held in finding.record.metrics.items():
        metric = finding.metric(name)
        if held.value is not None:
            what = f" ({clean(metric.definition)})" if metric else ""
            found.append(f"{clean(name, 60)}{what}: {with_interval_text(held)}.")
    return found


def _pairs(case: Case) -> list[str]:
    """Kernel paddings that can be set against the untreated model in this case."""
    return list(case.others) if case.fill == "none" else [case.fill]


def _treated(case: Case, fill: str) -> Section:
    """What kernel padding `fill` changed, and at what fidelity."""
    by_fill = {case.fill: case.records, **case.others}
    after, before = (findings(by_fill.get(name, []), case.suites) for name in (fill, "none"))
    section = Section(f"Kernel padding {clean(fill, 20)}: what it changed")
    if not after:
        return section
    section.blocks += try_or_none(grown, after[0].record) or []
    if not (after[0].record.model.treatment or {}).get("layers"):
        return section
    table = try_or_none(changes, after, before)
    section.blocks.append(table or "There is no untreated record of these suites to set beside it.")
    if case.fill == "none":
        for finding in (f for f in after if f.record.suite == "fidelity"):
            section.blocks += sentences(finding, *TOPICS["fidelity"])
    return section


def _gaps(records: Sequence[Record]) -> list[Block]:
    """What has no number, and why; equal reasons of one suite together."""
    found: dict[tuple[str, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        for what, reason in _reasons(record):
            found[f"{record.suite}:{record.protocol}", reason][what].append(record.fill)
    return [
        clean(f"{label} ({_fills(held)}): {', '.join(held)}: {reason}.", 600)
        for (label, reason), held in found.items()
    ]


def _reasons(record: Record) -> list[tuple[str, str]]:
    """What of a record is missing, and why."""
    if record.status == "skipped":
        return [("does not apply", record.reason or "no reason was kept")]
    if record.status == "failed":
        return [("failed", record.error.message if record.error else "no error was kept")]
    return [(name, held.reason or "") for name, held in record.metrics.items() if held.reason]


def _fills(held: Mapping[str, list[str]]) -> str:
    return ", ".join(dict.fromkeys(fill for fills in held.values() for fill in fills))


def _notes(records: Sequence[Record]) -> list[Block]:
    """What the records say beside their numbers, once each, with whose it is."""
    whose: dict[str, list[str]] = defaultdict(list)
    for record in records:
        for note in record.notes:
            whose[note].append(record.suite)
    return [
        clean(f"{', '.join(dict.fromkeys(suites))}: {note}", 600) for note, suites in whose.items()
    ]


def draw_maps(case: Case, folder: Path) -> list[Path]:
    """Draw every map of the case into `folder`, and what kernel padding changed in them."""
    from ..figures.maps import draw_change, draw_record

    folder.mkdir(parents=True, exist_ok=True)
    paths = [path for record in case.every for path in draw_record(record, folder)]
    untreated = {(r.suite, r.protocol): r for r in case.every if r.fill == "none"}
    for record in case.every:
        twin = untreated.get((record.suite, record.protocol))
        if record.fill != "none" and twin is not None:
            paths += draw_change(record, twin, folder)
    return paths
