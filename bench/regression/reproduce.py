"""`verify`: reproduce a published set of records.

A sample of its model variants is measured again with the settings in their records, on as many
threads if the machine has as many cores: their number changes the order of sums. A row (one
suite and protocol of one variant) reproduces *bit for bit* when every metric, interval, draw and
map is equal after the rounding of the store; *within tolerance* when every metric and every map is
within its tolerance (see `tolerances`); else *not*. A row that cannot be measured here has a
reason. A row with another key says so: then the library versions, the kind of device or the file of
the model are not those of the record. Records of what others have published are read again from the
files that they were imported from, and compared in the same way.

The report is that of `check`, with the same words and exit codes: a variant passes if all of its
rows reproduce, fails if one does not, and is an error if one could not be measured.
"""

from __future__ import annotations

import contextlib
import io
import os
import time
from collections import Counter
from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Unpack

import numpy as np

from ...adapters.errors import PerimetryError
from ..comparison.compatibility import incompatibilities
from ..execution.keywords import read_keywords
from ..execution.plan import parse_fills
from ..execution.rerun import RerunOptions, run_spec_of
from ..execution.together import Asked, Together
from ..records.hashing import FIT_KEY
from ..records.openerf import openerf_records
from ..records.record import Record
from ..records.references import stated_inputs
from ..records.selection import choose, is_imported, read_folder
from .baseline import columns_of
from .detectors import DetectorSet
from .noise_floor import map_changes, metric_changes, threads
from .result import (
    REGRESSED,
    SAME,
    UNMEASURED,
    DetectorFinding,
    RegressionCheck,
    VariantReport,
    Words,
)
from .tolerances import Tolerances, check_patterns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..execution.rerun import RerunFields
    from ..records.arrays import Arrays


def reproduce(
    place: Path | str,
    *,
    sample: int | None = None,
    seed: int = 0,
    tolerances: Tolerances | None = None,
    imported: Path | str | None = None,
    **options: Unpack[RerunFields],
) -> RegressionCheck:
    """Measure `sample` model variants of `place` again, all of them by default.

    What is found is reported as by `check`; files that cannot be read do not reproduce. `seed`
    decides which variants; `imported` is the folder of files that imported records were read from;
    `options` are the fields of `execution.rerun.RerunOptions`. Raises `InputError` when there is no
    readable record, and for a folder `imported` without such files, `UnknownNameError` when no
    record matches `where`.
    """
    rerun_options = read_keywords(reproduce, RerunOptions, options)
    records, problems = read_folder(Path(place))
    kept = choose(records, rerun_options.where)
    columns = columns_of(kept, rerun_options.run.toolkit().suites)
    check_patterns(tolerances or Tolerances(), columns, str(place))
    variants = _variants(kept)
    chosen = _sample(sorted(variants), sample, seed)
    together = Together(_expected([variants[v] for v in chosen], rerun_options))
    detectors = DetectorSet(
        replace(tolerances or Tolerances(), noise_factor=0.0),
        None,
        rerun_options.run.toolkit().suites,
    )
    published = _published(imported)
    reports = []
    for variant in chosen:
        begun = time.perf_counter()
        rows = _again(variants[variant], detectors, rerun_options, together, published)
        reports.append(_report(rows, time.perf_counter() - begun))
    unreadable = tuple(DetectorFinding("file", str(place), REGRESSED, text) for text in problems)
    if unreadable:
        words = "files that cannot be read do not reproduce"
        reports.append(VariantReport(str(place), "none", unreadable, changed=words))
    sampled = f"{len(chosen)} of {len(variants)} model variants measured again"
    called = Words("verify", "set", sampled)
    return RegressionCheck(str(place), tuple(reports), tuple(problems), called)


class Outcome(Enum):
    """How well a row reproduces: in short, in its finding, and as a verdict."""

    exact = ("bit for bit", "reproduces bit for bit", SAME)
    close = ("within tolerance", "reproduces within tolerance", SAME)
    differs = ("not", "does not reproduce", REGRESSED)
    unmeasured = ("could not measure", "could not be measured", UNMEASURED)


class Row(NamedTuple):
    """One stored record, how well it reproduces, and what differs."""

    old: Record
    outcome: Outcome
    why: str = ""

    @property
    def cell(self) -> str:
        """Suite and protocol."""
        return f"{self.old.suite}:{self.old.protocol}"


def _report(rows: Sequence[Row], seconds: float) -> VariantReport:
    """The rows of one model variant as `check` reports it."""
    counts = Counter(row.outcome for row in rows)
    short = ", ".join(f"{counts[one]} {one.value[0]}" for one in Outcome if counts[one])
    findings = [
        DetectorFinding(
            "record",
            row.cell,
            row.outcome.value[2],
            f"{row.outcome.value[1]}{': ' if row.why else ''}{row.why}",
        )
        for row in rows
    ]
    notes = [f"{row.cell} {row.why}" for row in rows if row.outcome is Outcome.close and row.why]
    first = rows[0].old
    return VariantReport(
        first.model.reference, first.fill, tuple(findings), tuple(notes), seconds, changed=short
    )


Variant = tuple[str, str, str]
"""Reference, kernel padding, and the settings that one pass shares."""


def _variants(records: Sequence[Record]) -> dict[Variant, list[Record]]:
    """The records that are measured together; exact ones join estimates with equal settings."""
    found: dict[Variant, list[Record]] = {}
    for record in sorted(records, key=lambda r: r.images is None):
        own = [record.settings.get(n) for n in ("target", "size", "members", FIT_KEY)]
        own.append(stated_inputs(record))
        names = ("images_sha256", "draws", "precision", "recalibrate")
        more = [record.seed, *(record.settings.get(n) for n in names)]
        start = (record.model.reference, record.fill, f"{own}")
        key = (*start[:2], f"{own} {more}")
        if record.images is None:
            key = next((k for k in found if k[:2] == key[:2] and k[2].startswith(start[2])), key)
        found.setdefault(key, []).append(record)
    return found


def _sample(variants: Sequence[Variant], count: int | None, seed: int) -> list[Variant]:
    """`count` of `variants`, in their order."""
    if count is None or count >= len(variants):
        return list(variants)
    places = np.random.default_rng(seed).choice(len(variants), count, replace=False)
    return [variants[i] for i in sorted(places)]


def _expected(variants: Sequence[Sequence[Record]], options: RerunOptions) -> list[Asked]:
    """What will be measured of all variants; one that cannot be is left out, and reported later."""
    found: list[Asked] = []
    for records in variants:
        with contextlib.suppress(PerimetryError):
            found += [_asked(suites, options) for suites in _by_options(records)]
    return found


def _asked(records: Sequence[Record], options: RerunOptions) -> Asked:
    """How `records` of one variant are measured again."""
    fills = parse_fills([records[0].fill])
    return Asked(records[0].model.reference, run_spec_of(records, options), fills)


def _published(folder: Path | str | None) -> list[Record]:
    """The records of the files in `folder`; of those that cannot be read there is none."""
    if folder is None:
        return []
    return [found for found in openerf_records(Path(folder)) if isinstance(found, Record)]


def _again(
    records: Sequence[Record],
    detectors: DetectorSet,
    options: RerunOptions,
    together: Together,
    published: Sequence[Record],
) -> list[Row]:
    """Measure one variant again, or read it again, and compare each record with the stored one."""
    made = [r for r in published if r.model.reference == records[0].model.reference]
    try:
        if not (made and is_imported(records[0])):
            made = []
            for suites in _by_options(records):
                with threads(_recorded_threads(suites)):
                    made += together.measure(_asked(suites, options), options.run)
    except PerimetryError as error:
        return [Row(r, Outcome.unmeasured, str(error)) for r in records]
    now = {record.key: record for record in made}
    by_name = {(r.suite, r.protocol): r for r in made}
    return [_row(r, now.get(r.key, by_name.get((r.suite, r.protocol))), detectors) for r in records]


def _by_options(records: Sequence[Record]) -> list[list[Record]]:
    """Groups in which no suite has two settings of its own, or two versions."""
    groups: list[list[Record]] = []
    for record in records:
        for group in groups:
            beside = [r for r in group if r.suite == record.suite]
            same = all(r.settings == record.settings for r in beside)
            if same and record.protocol not in {r.protocol for r in beside}:
                group.append(record)
                break
        else:
            groups.append([record])
    return groups


def _row(old: Record, new: Record | None, detectors: DetectorSet) -> Row:
    if new is None:
        return Row(
            old,
            Outcome.unmeasured,
            "this version of perimetry does not have the suite or protocol",
        )
    new.attach(_rounded(new))
    stack = "; ".join(
        [*([] if new.key == old.key else [_why_other_key(old, new)]), *_threads(old, new)]
    )
    if old.status != "ok" or new.status != "ok":
        return _unfinished(old, new)
    damage = old.find_damage()
    different = [*([damage] if damage else []), *incompatibilities(old, new)]
    if different:
        return Row(old, Outcome.unmeasured, "; ".join(different))
    if same_numbers(old, new):
        return Row(old, Outcome.exact)
    found = detectors.record(old, new)
    beyond = [f"{f.where} {f.text}" for f in found if f.verdict is not SAME]
    if beyond:
        return Row(old, Outcome.differs, "; ".join([*beyond[:4], *([stack] if stack else [])]))
    return Row(old, Outcome.close, "; ".join(filter(None, [_most(old, new), stack])))


def _recorded_threads(records: Sequence[Record]) -> int | None:
    """The number of threads of all `records`; None if it differs or there are not as many cores."""
    known = {record.environment.threads.get("torch", "") for record in records}
    number = known.pop() if len(known) == 1 else ""
    return int(number) if number.isdigit() and 0 < int(number) <= (os.cpu_count() or 1) else None


def _threads(old: Record, new: Record) -> list[str]:
    """A phrase about different numbers of threads, which change the order of sums."""
    a, b = (record.environment.threads.get("torch") for record in (old, new))
    return [] if a == b else [f"{a} threads in the record, {b} here"]


def _most(old: Record, new: Record) -> str:
    """The largest change: of a metric absolute, of a map relative."""
    changes = {name.partition(".")[2]: v for name, v in metric_changes(old, new).items() if v}
    changes |= {f"map {n.partition('.')[2]}": v for n, v in map_changes(old, new).items() if v}
    if not changes:
        return "only draws or intervals changed"
    name = max(changes, key=lambda key: changes[key])
    return f"largest change: {name} by {changes[name]:.1e}"


def _unfinished(old: Record, new: Record) -> Row:
    """A skipped record reproduces if it is skipped again for the same reason; a failure never."""
    if old.status == new.status == "skipped":
        same = old.reason == new.reason
        why = "" if same else f"reason {old.reason!r}, now {new.reason!r}"
        return Row(old, Outcome.exact if same else Outcome.close, why)
    return Row(
        old, Outcome.unmeasured, f"{old.status} in the set, {new.status} here {new.why}".strip()
    )


def same_numbers(old: Record, new: Record) -> bool:
    """Whether metrics, and draws and maps if the set has them, are equal."""
    return (
        old.metrics == new.metrics
        and old.map_names == new.map_names
        and all(_same(a, b) for a, b in zip(old.arrays, new.arrays, strict=True) if a)
    )


def _rounded(record: Record) -> Arrays:
    """The arrays after the rounding of a store."""
    from ..records.arrays import load_arrays, write_arrays

    stream = io.BytesIO()
    write_arrays(stream, record.arrays)
    stream.seek(0)
    return load_arrays(stream)


def _same(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> bool:
    names = a.keys() == b.keys()
    return names and all(np.array_equal(a[n], b[n], equal_nan=a[n].dtype.kind == "f") for n in a)


def _why_other_key(old: Record, new: Record) -> str:
    """What is different here among the things that a key depends on."""
    a, b = old.environment, new.environment
    names = sorted(a.libraries.keys() | b.libraries.keys())
    found = [
        f"{n} {a.libraries.get(n, 'none')} in the record, {b.libraries.get(n, 'none')} here"
        for n in names
        if a.libraries.get(n) != b.libraries.get(n)
    ]
    if a.device != b.device:
        found.append(f"{a.device} in the record, {b.device} here")
    if old.model.source.get("sha256") != new.model.source.get("sha256"):
        found.append("the file of the model has changed")
    return "; ".join(found) or "the key is different"
