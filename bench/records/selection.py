"""Which of the stored records are meant, and which may stand together."""

from __future__ import annotations

import json
import shlex
import warnings
from collections import defaultdict
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, UnknownNameError, check_name, unknown
from ...adapters.reference import Reference
from ..output.numbers import join_with_and
from .record import FIT_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .record import Record


def takes_inputs(reference: str) -> bool:
    """Whether a command's statements of input and output are for `reference`: an ONNX file."""
    return Reference.parse_any(reference).runtime == "onnx"


def same_file(first: str, second: str) -> bool:
    """Whether two references name one ONNX file, by whatever path."""
    if not (takes_inputs(first) and takes_inputs(second)):
        return False
    return Path(first).resolve() == Path(second).resolve()


def stated_inputs(record: Record) -> dict[str, Any]:
    """What was stated, when `record` was made, of its file's input and output.

    Where the command stated nothing, what the model says that was stated when it was opened.
    """
    if record.inputs:
        return dict(record.inputs)
    try:
        stated = json.loads(record.model.source.get("inputs", "{}"))
    except ValueError:
        return {}
    return stated if isinstance(stated, dict) else {}


def read_folder(place: Path, what: str = "folder") -> tuple[list[Record], list[str]]:
    """Readable records of a folder or a packed file, and what is wrong with the others.

    Raises `InputError` when there is no such place or no readable record in it.
    """
    from .archive import open_records

    try:
        store = open_records(place)
    except InputError as error:
        raise InputError(f"{what} {error}") from error
    records, problems = store.records(), store.problems()
    if not records:
        why = f": {problems[0]}" if problems else "; `perimetry run` has not written any yet"
        raise InputError(f"{what} {str(place)!r} holds no readable record{why}")
    return records, problems


def load_records(path: Path | str) -> list[Record]:
    """Return the records of a folder that `perimetry run` wrote, or of a packed file.

    A record that cannot be read gives a warning with the reason. Raises `InputError` when none can
    be read, or when `path` is neither a folder of records nor a packed file.

    >>> load_records("results/mine")[0].metrics["weakest"].value  # doctest: +SKIP
    """
    records, problems = read_folder(Path(path), "records:")
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return records


HASHES = ("images_sha256", FIT_KEY)
"""Settings that no person would name: `--where` and messages name the images instead."""


class MixedRecordsError(InputError):
    """Records of unlike settings or versions, which must not meet in one column."""


def why_missing(record: Record | None, metric: str) -> str | None:
    """The reason why a cell has no number, or None when it has one."""
    if record is None:
        return "not measured"
    if record.status == "skipped":
        return record.reason
    if record.status == "failed":
        return f"failed: {record.error.message if record.error else 'no error was kept'}"
    held = record.metrics.get(metric)
    return held.reason if held else "this model has no such metric"


MODEL = "model"
"""The key whose value is a shell pattern of references."""


def facts(record: Record) -> dict[str, str]:
    """What `--where` may ask of a record; an exact record has no images, so none of theirs."""
    images = record.images
    found = {"suite": record.suite, "protocol": record.protocol, "fill": record.fill}
    found[MODEL] = record.model.reference
    found |= {k: str(v) for k, v in record.settings.items() if k not in HASHES}
    if images is not None:
        found |= {"images": images.name, "count": str(images.count), "seed": str(record.seed)}
    if record.fit_images is not None:
        found["fit_images"] = record.fit_images.name
    return {**found, "version": record.version, "device": record.environment.device}


def choose(records: Iterable[Record], where: Iterable[str]) -> list[Record]:
    """The records of which every KEY=VALUE holds; keys that a record does not have do not count.

    The value of `model` is a reference or a shell pattern of references, such as
    `model=timm:resnet*`.

    Raises `InputError` for what is not KEY=VALUE, `UnknownNameError` for a key that no record has.
    """
    held = [(record, facts(record)) for record in records]
    for text in where:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--where {text!r}; expected KEY=VALUE, such as seed=0")
        check_name("key", key, {name for _, known in held for name in known})
        held = [(record, known) for record, known in held if _holds(known, key, value)]
    return [record for record, _ in held]


def _holds(known: Mapping[str, str], key: str, value: str) -> bool:
    own = known.get(key, value)
    return own == value or (key == MODEL and fnmatchcase(own, value))


def newest(records: Iterable[Record]) -> list[Record]:
    """One record for each cell and setting: the newest, a finished one before a failed one.

    Several come about when a model was measured again on another device or other library versions.
    """
    held: dict[tuple[Any, ...], Record] = {}
    for record in sorted(records, key=lambda r: (r.status != "failed", r.created)):
        held[*_cell(record), record.model.reference, record.fill, _signature(record)] = record
    return sorted(held.values(), key=lambda r: (r.model.reference, r.fill, _cell(r)))


def check_unmixed(records: Sequence[Record]) -> None:
    """Raise `MixedRecordsError` when a column would hold numbers of unlike version or settings.

    What kernel padding `fit` was fitted on is held against other rows of `fit` alone.
    """
    _check_alike(records, _common_signature)
    _check_alike([record for record in records if record.fill == "fit"], _signature)


def _check_alike(records: Sequence[Record], signature: Callable[[Record], str]) -> None:
    groups: dict[tuple[str, str], dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        groups[_cell(record)][signature(record)].append(record)
    for (suite, protocol), held in groups.items():
        if len(held) > 1:
            raise MixedRecordsError(
                f"the records of {suite}:{protocol} were made under {len(held)} unlike settings, "
                f"which must not share a column: {_kinds(list(held.values()))}"
            )


def _cell(record: Record) -> tuple[str, str]:
    return record.suite, record.protocol


def _signature(record: Record) -> str:
    """What must be equal for two records' numbers to compare, and what `fit` was fitted on."""
    return json.dumps([_common_signature(record), record.settings.get(FIT_KEY)])


def _common_signature(record: Record) -> str:
    """What must be equal for two records' numbers to compare."""
    seed = record.seed if record.images else None
    settings = {k: v for k, v in record.settings.items() if k != FIT_KEY}
    return json.dumps([record.version, seed, settings], sort_keys=True)


def _kinds(groups: Sequence[Sequence[Record]]) -> str:
    """How groups of unlike settings differ, and how to choose one of them by `--where`."""
    known = [facts(group[0]) for group in groups]
    own = ("fill", MODEL, "device")  # these differ from row to row of one column
    keys = [key for key in known[0] if key not in own and len({k.get(key) for k in known}) > 1]
    kinds = [
        " ".join(f"--where {shlex.quote(f'{key}={one.get(key)}')}" for key in keys) for one in known
    ]
    if len(set(kinds)) < len(kinds):
        told = "; ".join(_describe(group[0], len(group)) for group in groups)
        return f"{told}. Give fewer records, or name another folder to measure into"
    counts = (len(group) for group in groups)
    told = "; ".join(f"{n} by {kind}" for n, kind in zip(counts, kinds, strict=True))
    return f"{told}. Choose one kind so"


def _describe(record: Record, count: int) -> str:
    images = record.images
    shown = {k: v for k, v in record.settings.items() if v is not None and k not in HASHES}
    what = f"{images.count} x {images.name}, " if images else ""
    if record.fit_images is not None:
        what += f"fitted on {record.fit_images.count} x {record.fit_images.name}, "
    values = "".join(f", {k} {v}" for k, v in shown.items())
    return f"{count} with {what}version {record.version}, seed {record.seed}{values}"


MOST_NAMES = 12


def _names(reference: str) -> tuple[str, ...]:
    """The names by which a user may refer to a model, the most exact one first."""
    parsed, path = Reference.parse_any(reference), PurePath(reference)
    return (reference, parsed.short, parsed.tagged_name, parsed.name, path.name, path.stem)


def find_reference(model: str | None, references: Sequence[str]) -> str:
    """The reference that `model` means: itself, without `timm:` or tag, or the end of a path.

    Else the only one that it is a part of.
    """
    if model is None and len(references) == 1:
        return references[0]
    if model is None:
        raise InputError(
            f"there are {len(references)} models here; name one: "
            f"{', '.join(references[:MOST_NAMES])}{' ...' * (len(references) > MOST_NAMES)}"
        )
    for names in zip(*map(_names, references), strict=True):
        found = [r for r, name in zip(references, names, strict=True) if name == model]
        if len(found) == 1:
            return found[0]
        if found:
            raise InputError(f"{model!r} may be {' or '.join(found)}; name one")
    within = [r for r in references if model and model in r]
    if len(within) == 1:
        return within[0]
    if within:
        raise InputError(f"{model!r} may be {join_with_and(within)}; name one")
    raise UnknownNameError(unknown("model", model, references))
