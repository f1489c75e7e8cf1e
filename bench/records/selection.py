"""Selecting stored records, and checking which of them are comparable."""

from __future__ import annotations

import json
import shlex
import warnings
from collections import defaultdict
from fnmatch import fnmatchcase
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.errors import (
    IMPORTED,
    MEANINGLESS,
    SAID_FIRST,
    InputError,
    UnknownNameError,
    check_name,
    unknown,
)
from ...adapters.reference import Reference
from .hashing import FIT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ...suites.base import Suite
    from .record import Record


def read_folder(
    place: Path, what: str = "folder", *, tables: bool = True
) -> tuple[list[Record], list[str]]:
    """The readable records of a folder or packed file, and a sentence for each unreadable one.

    Without `tables`, records have only those that a board needs. Raises `InputError` when there is
    no such place or no readable record in it.
    """
    from .archive import open_records

    try:
        store = open_records(place)
    except InputError as error:
        raise InputError(f"{what} {error}") from error
    records, problems = store.read(tables=tables)
    if not records:
        why = f": {problems[0]}" if problems else "; `perimetry run` has not written any yet"
        raise InputError(f"{what} {str(place)!r} contains no readable record{why}")
    return records, problems


def load_records(path: Path | str, *, tables: bool = True) -> list[Record]:
    """Return the records of a folder that `perimetry run` wrote, or of a packed file.

    Without `tables`, which takes less time and memory, records have only those that a board needs,
    until they are asked for `Record.whole`. A record that cannot be read gives a warning with the
    reason. Raises `InputError` when none can be read, or when `path` is neither a folder of records
    nor a packed file.

    >>> load_records("results/mine")[0].metrics["weakest"].value  # doctest: +SKIP
    """
    records, problems = read_folder(Path(path), "records:", tables=tables)
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return records


HASHES = ("images_sha256", FIT_KEY)
"""Settings that `--where` and messages do not show; they name the images instead."""


class MixedRecordsError(InputError):
    """Records of different settings or versions, which cannot share a column."""


def why_missing(record: Record | None, metric: str) -> str | None:
    """The reason why a cell has no number, or None when it has one."""
    if record is None:
        return "not measured"
    if record.status == "skipped":
        return record.reason
    if record.status == "failed":
        return f"failed: {record.why}"
    value = record.metrics.get(metric)
    return value.reason if value else "this model has no such metric"


MODEL = "model"

PATTERNS = (MODEL, "family")
"""Keys whose values are shell patterns."""


def prefix_of(suite: str, protocol: str, known: Mapping[str, Suite]) -> str:
    """`SUITE`, or `SUITE:PROTOCOL` off the default protocol: what columns of a board begin with."""
    default = next(iter(known[suite].protocols)) if suite in known else None
    return suite if protocol == default else f"{suite}:{protocol}"


def older_versions(records: Iterable[Record], known: Mapping[str, Suite]) -> list[str]:
    """A sentence on protocols of `records` whose version is not that of `known`, if any are."""
    found = {
        f"{r.suite}:{r.protocol} version {r.version} is now version {now}"
        for r in records
        if r.suite in known
        and (now := known[r.suite].protocols.get(r.protocol, r.version)) != r.version
    }
    if not found:
        return []
    return [
        f"{'; '.join(sorted(found))}: its definition has changed since, and a model that is "
        "measured now has other numbers."
    ]


def family(record: Record) -> str:
    """The module of timm that defines a model; else `timm`, `ONNX file` or `other`.

    Records before schema version 4 do not have the family of a timm model.
    """
    runtime = Reference.parse_any(record.model.reference).runtime
    if runtime == "timm":
        return record.model.family or "timm"
    is_file = runtime == "onnx" or record.model.source.get("runtime") == "onnxruntime"
    return "ONNX file" if is_file else "other"


def input_size(record: Record) -> str:
    """Height and width of the input, such as `224 x 224`; empty where the record has none."""
    spec = record.model.spec
    return f"{spec.get('height')} x {spec.get('width')}" if spec else ""


def record_facts(record: Record) -> dict[str, str]:
    """The keys and values of a record for `--where`; an exact record has none of the images'."""
    images = record.images
    found = {"suite": record.suite, "protocol": record.protocol, "fill": record.fill}
    found |= {MODEL: record.model.reference, "family": family(record)}
    found |= {"input": input_size(record).replace(" ", "")} if record.model.spec else {}
    found |= {k: str(v) for k, v in record.settings.items() if k not in HASHES}
    if images is not None:
        found |= {"images": images.name, "count": str(images.count), "seed": str(record.seed)}
    if record.fit_images is not None:
        found["fit_images"] = record.fit_images.name
    return {**found, "version": record.version, "device": record.environment.device}


def choose(records: Iterable[Record], where: Iterable[str]) -> list[Record]:
    """The records for which every KEY=VALUE is true; keys that a record does not have are ignored.

    The values of `model` and `family` may be shell patterns, several with `|` between them, such as
    `model=timm:resnet*|timm:vgg*`. `input` is a size such as 224x224.

    Raises `InputError` for what is not KEY=VALUE, `UnknownNameError` for a key that no record has,
    and for a value that none of the records with this key has.
    """
    where = list(where)
    if not where:
        return list(records)
    chosen = [(record, record_facts(record)) for record in records]
    for text in where:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(
                f"--where {text!r} was given; expected KEY=VALUE, such as seed=0; a board also "
                "takes COLUMN<NUMBER, such as model.parameters<5M"
            )
        check_name("key", key, sorted({name for _, known in chosen for name in known}))
        values = {known[key] for _, known in chosen if key in known}
        patterns = value.split("|") if key in PATTERNS else ()
        matching = {own for own in values if any(fnmatchcase(own, one) for one in patterns)}
        matching |= values & {value}
        if not matching:
            why = unknown(f"value of {key}", value, sorted(values))
            raise UnknownNameError(f"no record matches --where {text!r}: {why}")
        chosen = [pair for pair in chosen if pair[1].get(key) in {None, *matching}]
    return [record for record, _ in chosen]


def newest(records: Iterable[Record]) -> list[Record]:
    """One record for each cell and setting: the newest, a finished one before a failed one.

    There are several when a model was measured again on another device or with other libraries.
    """
    latest: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.status != "failed", r.created)):
        latest[*record.subject, _signature(record)] = record
    return sorted(latest.values(), key=attrgetter("subject"))


def check_unmixed(records: Sequence[Record]) -> None:
    """Raise `MixedRecordsError` when a column would mix versions or settings.

    The images that kernel padding `fit` was fitted on are compared among rows of `fit` alone.
    """
    _check_alike(records, _common_signature)
    _check_alike([record for record in records if record.fill == "fit"], _signature)


def _check_alike(records: Sequence[Record], signature: Callable[[Record], str]) -> None:
    groups: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[_cell(record)][signature(record)].append(record)
    for (suite, protocol), kinds in groups.items():
        if len(kinds) > 1:
            raise MixedRecordsError(
                f"the records of {suite}:{protocol} were measured with {len(kinds)} different "
                f"settings and cannot share a column: {_kinds(list(kinds.values()))}"
            )


def _cell(record: Record) -> tuple[str, str]:
    return record.suite, record.protocol


def _signature(record: Record) -> str:
    """What must be equal for two records to be comparable, the images of `fit` included."""
    return f"{_common_signature(record)} {record.settings.get(FIT_KEY)}"


def _common_signature(record: Record) -> str:
    """What must be equal for two records to be comparable."""
    seed = record.seed if record.images else None
    settings = {k: v for k, v in record.settings.items() if k != FIT_KEY}
    return json.dumps([record.version, seed, settings], sort_keys=True)


def _kinds(groups: Sequence[Sequence[Record]]) -> str:
    """How groups of different settings differ, and how to select one of them by `--where`."""
    known = [record_facts(group[0]) for group in groups]
    keys = [key for key in _differing(known) if key in known[0]]
    kinds = [
        " ".join(f"--where {shlex.quote(f'{key}={one.get(key)}')}" for key in keys) for one in known
    ]
    if len(set(kinds)) < len(kinds):
        text = "; ".join(_describe(group[0], len(group)) for group in groups)
        return f"{text}. Give fewer records, or measure into another folder"
    counts = (len(group) for group in groups)
    text = "; ".join(f"{n} with {kind}" for n, kind in zip(counts, kinds, strict=True))
    return f"{text}. Select one of them with these options"


def _differing(known: Sequence[Mapping[str, str]]) -> list[str]:
    """The keys of facts that differ, but for those that differ from row to row of one column."""
    own = ("fill", MODEL, "family", "input", "device")
    keys = dict.fromkeys(key for one in known for key in one if key not in own)
    return [key for key in keys if len({one.get(key) for one in known}) > 1]


def differences(first: Record, second: Record) -> list[str]:
    """How two records were measured differently, such as `count 4 against 8`."""
    one, other = record_facts(first), record_facts(second)
    return [
        f"{key} {setting_text(key, one.get(key))} against {setting_text(key, other.get(key))}"
        for key in _differing([one, other])
    ]


UNSET = {
    "size": "the model's own size",
    "target": "the target by default",
    "members": "the default number",
}
"""What a setting is that the command left open."""


def setting_text(key: str, value: object) -> str:
    """The value of a setting for a reader: `64 x 64`, or what it means that it was left open."""
    if value in (None, "None"):
        return UNSET.get(key, "none")
    text = str(value)
    return text.strip("[]").replace(", ", " x ") if key == "size" else text


def _describe(record: Record, count: int) -> str:
    images = record.images
    shown = {k: v for k, v in record.settings.items() if v is not None and k not in HASHES}
    what = f"{images.count} x {images.name}, " if images else ""
    if record.fit_images is not None:
        what += f"fitted on {record.fit_images.count} x {record.fit_images.name}, "
    values = "".join(f", {k} {v}" for k, v in shown.items())
    return f"{count} with {what}version {record.version}, seed {record.seed}{values}"


def meaningless(records: Iterable[Record]) -> list[str]:
    """What is NaN, infinite or constant, by the notes of records; a certain defect of the model."""
    return [note for note in said_first(records) if note.startswith(MEANINGLESS)]


def said_first(records: Iterable[Record]) -> list[str]:
    """The notes of records that change what all numbers mean, such as weights that are NaN."""
    notes = (note for record in records for note in record.notes)
    return list(dict.fromkeys(note for note in notes if note.startswith(SAID_FIRST)))


def is_imported(record: Record) -> bool:
    """Whether `record` is of what others have published."""
    return any(note.startswith(IMPORTED) for note in record.notes)
