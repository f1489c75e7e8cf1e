"""The sides of a comparison: stored folders, models in them, or models that are audited now.

    DIR          every model in a folder of records, or in a packed `.jsonl` file
    DIR:MODEL    one of them, by its reference or enough of it
    REF          a model, audited now under the settings of the stored ones, or the defaults
    ...+FILL     its kernel-padded variant, such as timm:resnet18@init+box

In Python also a `Side`, the records of one model variant, a module or an opened model.

The declarations of input and output in the stored records of an ONNX file are used again for that
file, by whatever path it is named, and for no other file.

If only folders are given, they are runs to compare: models pair by reference and kernel padding. A
folder before two or more model names is where these are looked up first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from torch import nn

from ...adapters.errors import InputError, NotMeasuredError, UnknownNameError
from ...adapters.reference import Reference
from ...adapters.treatment import FILLS
from ...suites.images import BUILT_IN
from ..execution.identities import check_references
from ..execution.plan import DEFAULT_SUITES
from ..execution.rerun import (
    RerunOptions,
    RunSpec,
    known_inputs,
    run_spec_of,
    sized_as,
)
from ..execution.settings import Settings
from ..execution.together import Asked, Together
from ..execution.toolkit import standard
from ..records.archive import is_packed
from ..records.selection import (
    check_unmixed,
    choose,
    find_reference,
    newest,
    read_folder,
    same_file,
    stated_inputs,
)
from .compatibility import UnlikeRecordsError, input_differences
from .fingerprint import CELL, WithFingerprint, read_fingerprints
from .names import short_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from ...adapters.treatment import Fill
    from ..execution.run_options import RunOptions
    from ..records.record import Record


DEFAULT_FILL: Fill = "none"


PRINT = ":".join(CELL)


ONE_MODEL = (
    "fewer than two models were given; expected at least two, such as A.onnx B.onnx, or A and its "
    "kernel-padded variant A+box"
)


@dataclass(frozen=True)
class Side:
    """One of what is compared: a model variant, its records by (suite, protocol), and its name.

    `thing` is what opens the model again: its reference, or what was given in Python. `folder` is
    where its records are stored, empty for others.
    """

    name: str
    reference: str
    fill: str
    records: Mapping[tuple[str, str], Record]
    thing: Any = None
    folder: str = ""


@dataclass(frozen=True)
class MissingAudit:
    """How to audit a model that is not stored; None stands for stored settings, or the defaults.

    With `stages`, fingerprints are measured too; `force` allows inputs that differ.
    """

    settings: Settings | None = None
    suites: tuple[str, ...] | None = None
    stages: bool = False
    options: RerunOptions = field(default_factory=RerunOptions)
    force: bool = False


@dataclass(frozen=True)
class _Given:
    """One argument: a folder or none, a model or none, a kernel padding or none.

    `thing` is a module or an opened model that was given in Python. `name` is what the user calls
    it, None without a name.
    """

    folder: Path | None = None
    model: str | None = None
    fill: Fill | None = None
    thing: Any = None
    name: str | None = None


def side_of(records: Iterable[Record], name: str | None = None) -> Side:
    """The side that records of one model variant make, the newest of each suite and protocol.

    Raises `InputError` when they are of several variants, or none.
    """
    latest = newest(records)
    variants = {(r.model.reference, r.fill) for r in latest}
    if len(variants) != 1:
        raise InputError(
            f"records of {len(variants)} model variants were given as one side; expected one model "
            "with one kernel padding"
        )
    check_unmixed(latest)
    reference, fill = next(iter(variants))
    return Side(
        name or _name(reference, fill),
        reference,
        fill,
        {(r.suite, r.protocol): r for r in latest},
        reference,
    )


def open_sides(
    things: Sequence[Any], wanted: MissingAudit, names: Mapping[str, Any] = MappingProxyType({})
) -> tuple[list[list[Side]], list[str]]:
    """The groups of sides that `things` name, and a sentence for each unreadable file.

    The first side of a group is the reference of the others. `names` are names of some of `things`,
    or of further ones. Raises `InputError`,
    `UnknownNameError` with near names, `MixedRecordsError`, `NotMeasuredError`.
    """
    given = _given(things, names)
    if not given or (len(given) == 1 and not _is_folder(given[0])):
        raise InputError(ONE_MODEL)  # raised before the model is measured in vain
    cache = RecordCache(wanted.options.where)
    folders = [g for g in given if isinstance(g, _Given) and _is_folder(g)]
    if len(folders) == len(given) > 1:
        groups = _runs(folders, cache)
    else:
        groups = [_models(given, cache, wanted)]
    return groups, cache.problems


def _given(things: Sequence[Any], names: Mapping[str, Any]) -> list[Side | _Given]:
    """What is given, with the names of the user."""
    given = [_read(thing) for thing in things]
    for name, thing in names.items():
        place = next((i for i, other in enumerate(things) if _same_thing(other, thing)), None)
        if place is None:
            given.append(replace(_read(thing), name=name))
        else:
            given[place] = replace(given[place], name=name)
    return given


def _same_thing(one: Any, other: Any) -> bool:
    """Whether two arguments are the same text, or the same object."""
    both = isinstance(one, str | Path) and isinstance(other, str | Path)
    return str(one) == str(other) if both else one is other


def one_side(thing: Any, pattern: Sequence[Record], wanted: MissingAudit) -> Side:
    """The side that `thing` names; if it is not stored, audited as the first of `pattern` was.

    Raises `InputError` for a folder of several models, `UnknownNameError`, `NotMeasuredError`.
    """
    given = _read(thing)
    if isinstance(given, Side):
        return given
    if given.folder is not None:
        found = _stored(given, RecordCache(wanted.options.where), None)
        if len(found) != 1 or not isinstance(found[0], Side):
            raise InputError(f"{str(thing)!r} has {len(found)} models; expected one, as DIR:MODEL")
        return found[0]
    _check_version(pattern[0], wanted.options.run)
    spec = run_spec_of(pattern[:1], wanted.options)
    spec = _of_file(given, spec, pattern, wanted.options)
    settings = sized_as(given.thing, spec.settings, pattern[0].model.spec)
    asked = _asked(given, replace(spec, settings=settings))
    found = _audited(asked, wanted.options.run, Together())
    why = why_not_measured(found)
    if why is not None:
        raise NotMeasuredError(f"{found.reference!r} could not be measured: {why}")
    return found


def _check_version(record: Record, run: RunOptions) -> None:
    """Raise `InputError`, before anything is measured, if it would not compare with `record`."""
    suite = run.toolkit().suites.get(record.suite)
    now = suite.protocols.get(record.protocol) if suite else None
    if now != record.version:
        raise InputError(
            f"the records are of {record.suite}:{record.protocol} version {record.version}, and a "
            f"model measured now would be of version {now or 'none'}; measure the records again, "
            "or name a model whose records are of their version"
        )


def _is_folder(thing: Side | _Given) -> bool:
    """Whether a folder was named as a whole, with all its models."""
    return isinstance(thing, _Given) and bool(thing.folder) and thing.model is None


class RecordCache:
    """The records of folders, each of which is read once."""

    def __init__(self, where: Sequence[str]) -> None:
        self.problems: list[str] = []
        self._where = where
        self._read: dict[Path, list[Record]] = {}

    def records(self, folder: Path) -> list[Record]:
        """The records of `folder` that match `where`."""
        if folder not in self._read:
            records, problems = read_folder(folder)
            self.problems += problems
            kept = choose(records, self._where)
            if not kept:
                raise InputError(f"no record in {str(folder)!r} matches --where")
            self._read[folder] = kept
        return self._read[folder]

    def cached(self) -> list[Record]:
        """All records that have been read so far."""
        return [record for records in self._read.values() for record in records]

    def references(self, folder: Path) -> list[str]:
        """The models of `folder`."""
        return sorted({record.model.reference for record in self.records(folder)})

    def side(self, folder: Path, reference: str, fill: str | None) -> Side:
        """One variant in `folder`; the untreated one, or the only one, unless asked otherwise."""
        own = [r for r in self.records(folder) if r.model.reference == reference]
        fills = sorted({record.fill for record in own})
        chosen = fill or (DEFAULT_FILL if DEFAULT_FILL in fills else fills[0])
        if chosen not in fills:
            raise UnknownNameError(
                f"no record of {reference!r} in {str(folder)!r} has kernel padding {chosen!r}; "
                f"there is {' and '.join(fills)}"
            )
        kept = read_fingerprints(folder)[0].get((reference, chosen))
        found = side_of([*(r for r in own if r.fill == chosen), *([kept] if kept else [])])
        return replace(found, folder=str(folder))


def _read(thing: Any) -> Side | _Given:
    """What one argument is."""
    if isinstance(thing, Side):
        return thing
    if isinstance(thing, str | Path):
        return _read_text(str(thing))
    if isinstance(thing, list | tuple):
        return side_of(thing)
    return _Given(thing=thing)


def _read_text(text: str) -> _Given:
    """Split a text into folder, model and kernel padding; an existing path is never split."""
    fill: Fill | None = None
    stem, plus, last = text.rpartition("+")
    if plus and last in FILLS and not Path(text).exists():
        text, fill = stem, next(f for f in FILLS if f == last)
    if _holds_records(text):
        return _Given(Path(text), None, fill)
    for place in (i for i, char in enumerate(text) if char == ":" and i > 0):
        if _holds_records(text[:place]) and text[place + 1 :]:
            return _Given(Path(text[:place]), text[place + 1 :], fill)
    return _Given(None, text, fill)


def _holds_records(text: str) -> bool:
    """Whether it is a folder, or a packed file, rather than a model."""
    return Path(text).is_dir() or (is_packed(text) and Path(text).is_file())


def _runs(given: Sequence[_Given], cache: RecordCache) -> list[list[Side]]:
    """One group for each variant that all folders hold."""
    folders = [g.folder for g in given if g.folder is not None]
    variants = [
        {(r.model.reference, r.fill) for r in cache.records(folder) if one.fill in (None, r.fill)}
        for folder, one in zip(folders, given, strict=True)
    ]
    shared = set.intersection(*variants)
    if not shared:
        counts = "; ".join(f"{f} has {len(v)}" for f, v in zip(folders, variants, strict=True))
        raise InputError(
            f"the folders have no model variant in common ({counts}); name models as DIR:MODEL"
        )
    groups = []
    for reference, fill in sorted(shared):
        own = [cache.side(folder, reference, fill) for folder in folders]
        groups.append(
            [replace(s, name=f"{s.name} in {f}") for s, f in zip(own, folders, strict=True)]
        )
    return groups


def _models(given: Sequence[Side | _Given], cache: RecordCache, wanted: MissingAudit) -> list[Side]:
    """One group: stored models as they are, the others audited under the settings of those."""
    library = _library(given)
    rest = given[1:] if library is not None else given
    sides: list[Side | _Given] = []
    for one in rest:
        sides += [one] if isinstance(one, Side) else _stored(one, cache, library)
    pattern = [side for side in sides if isinstance(side, Side)]
    if library is not None and not pattern:
        pattern = [cache.side(library, cache.references(library)[0], None)]
    if all(isinstance(side, Side) for side in sides):
        return _named(sides, [side for side in sides if isinstance(side, Side)])
    if wanted.options.run.toolkit is standard:
        names = [g.model for g in sides if isinstance(g, _Given) and g.model is not None]
        _check_models(names, wanted.options.run)
    spec, run = _run_spec(pattern, wanted), wanted.options.run
    if wanted.stages:
        spec = RunSpec(spec.settings, (*(s for s in spec.suites if s != PRINT), PRINT))
        run = replace(run, toolkit=WithFingerprint(run.toolkit))
    stored = [*(r for side in pattern for r in side.records.values()), *cache.cached()]
    specs = _input_specs(
        sides, [_of_file(one, spec, stored, wanted.options) for one in sides], wanted
    )
    asked = [
        _asked(one, own) for one, own in zip(sides, specs, strict=True) if isinstance(one, _Given)
    ]
    together = Together(asked)
    found = [
        one if isinstance(one, Side) else _audited(_asked(one, own), run, together)
        for one, own in zip(sides, specs, strict=True)
    ]
    _check_measured(found)
    return _named(sides, found)


def _named(given: Sequence[Side | _Given], sides: Sequence[Side]) -> list[Side]:
    """The sides of one group with distinct short names, and those that the user gave."""
    own = {
        place: one.name
        for place, one in enumerate(given)
        if one.name and (isinstance(one, _Given) or one.name != _name(one.reference, one.fill))
    }
    names = short_names([side.name for side in sides], [side.folder for side in sides], own)
    return [replace(side, name=name) for side, name in zip(sides, names, strict=True)]


def _input_specs(
    sides: Sequence[Side | _Given], specs: Sequence[RunSpec], wanted: MissingAudit
) -> list[RunSpec]:
    """How each side is measured: modules at the size of the first side that is not a module.

    Raises `UnlikeRecordsError`, before anything is measured, if inputs differ from the first one.
    """
    run = wanted.options.run
    inputs = _inputs(sides, specs, run)
    sizes = [spec for one, spec in zip(sides, inputs, strict=True) if spec and not _is_module(one)]
    found = list(specs)
    for place, one in enumerate(sides):
        if isinstance(one, _Given) and sizes:
            settings = sized_as(one.thing, specs[place].settings, sizes[0])
            found[place] = replace(specs[place], settings=settings)
            if _is_module(one):
                (inputs[place],) = _inputs([one], [found[place]], run)
    photographs = specs[0].settings.images not in BUILT_IN
    for one, spec in zip(sides, inputs, strict=True):
        differences = input_differences(inputs[0], spec, cropping=photographs)
        if differences and not wanted.force:
            raise UnlikeRecordsError(
                f"{_shown(sides[0])} and {_shown(one)} are not comparable: "
                f"{'; '.join(differences)}. Nothing was measured; declare the input that is wrong "
                "with --input KEY=VALUE, or compare them anyway with --force"
            )
    return found


def _is_module(one: Side | _Given) -> bool:
    return isinstance(one, _Given) and isinstance(one.thing, nn.Module)


def _inputs(
    sides: Sequence[Side | _Given], specs: Sequence[RunSpec], run: RunOptions
) -> list[Mapping[str, Any]]:
    """The input of each side; empty if it is not known before the model is measured."""
    asked = [
        (one.model if one.thing is None else one.thing, spec.settings)
        for one, spec in zip(sides, specs, strict=True)
        if isinstance(one, _Given)
    ]
    found = iter(known_inputs(asked, run))
    return [_stored_input(one) if isinstance(one, Side) else next(found) for one in sides]


def _stored_input(one: Side) -> Mapping[str, Any]:
    return next((r.model.spec for r in one.records.values() if r.model.spec), {})


def _shown(one: Side | _Given) -> str:
    if isinstance(one, Side):
        return one.name
    return one.model or str(getattr(one.thing, "reference", type(one.thing).__name__))


def _of_file(
    one: Side | _Given, spec: RunSpec, stored: Sequence[Record], options: RerunOptions
) -> RunSpec:
    """`spec` with the input declarations that `stored` has for this very file, and for no other.

    Those of the command come first; without stored records, those of `spec` are kept.
    """
    if isinstance(one, Side):
        return spec
    if not stored:
        inputs = {**spec.settings.inputs, **options.inputs}
        return replace(spec, settings=replace(spec.settings, inputs=inputs))
    own = [r for r in stored if one.model and same_file(r.model.reference, one.model)]
    last = max(own, key=lambda r: (r.status != "failed", r.created), default=None)
    declared = {**(stated_inputs(last) if last is not None else {}), **options.inputs}
    return replace(spec, settings=replace(spec.settings, inputs=declared))


def _library(given: Sequence[Side | _Given]) -> Path | None:
    """A bare folder before two or more models: where these are looked up first."""
    first = given[0] if len(given) > 2 else None
    return first.folder if isinstance(first, _Given) and first.model is None else None


def _stored(one: _Given, cache: RecordCache, library: Path | None) -> Sequence[Side | _Given]:
    """The stored sides that an argument names, or itself when it is to be audited."""
    if one.folder is not None and one.model is None:
        found = [cache.side(one.folder, r, one.fill) for r in cache.references(one.folder)]
        if one.name and len(found) != 1:
            raise InputError(
                f"the name {one.name!r} was given to {str(one.folder)!r}, which has {len(found)} "
                "models; expected one, as NAME=DIR:MODEL"
            )
        return [_called(side, one.name) for side in found]
    folder = one.folder or library
    if folder is None or one.model is None:
        return [one]
    try:
        reference = find_reference(one.model, cache.references(folder))
    except UnknownNameError:
        if one.folder is not None:
            raise
        return [one]
    return [_called(cache.side(folder, reference, one.fill), one.name)]


def _called(side: Side, name: str | None) -> Side:
    return replace(side, name=name) if name else side


def _run_spec(pattern: Sequence[Side], wanted: MissingAudit) -> RunSpec:
    """The settings of stored sides, else those that were asked for, else the defaults."""
    records = [record for side in pattern[:1] for record in side.records.values()]
    if records:
        spec = run_spec_of(records, wanted.options)
        return RunSpec(spec.settings, wanted.suites or spec.suites)
    return RunSpec(wanted.settings or Settings(), wanted.suites or DEFAULT_SUITES)


def _asked(one: _Given, spec: RunSpec) -> Asked:
    """How a model is audited that is not stored."""
    return Asked(one.model if one.thing is None else one.thing, spec, [one.fill or DEFAULT_FILL])


def _audited(asked: Asked, run: RunOptions, together: Together) -> Side:
    """Audit a model now; what could not be measured is in its records."""
    return replace(side_of(together.measure(asked, run)), thing=asked.model)


def why_not_measured(side: Side) -> str | None:
    """Why nothing of a model could be measured; None if something was."""
    records = list(side.records.values())
    if any(record.status == "ok" for record in records):
        return None
    return next((r.error.message for r in records if r.error), records[0].reason) or "unknown"


def _check_measured(sides: Sequence[Side]) -> None:
    """Raise `NotMeasuredError` unless two models were measured, which can be compared."""
    broken = {side.reference: why for side in sides if (why := why_not_measured(side))}
    if broken and len(sides) - len(broken) < 2:
        texts = "; ".join(f"{name!r} could not be measured: {why}" for name, why in broken.items())
        raise NotMeasuredError(texts)


def _check_models(names: Sequence[str], run: RunOptions) -> None:
    """Raise `UnknownNameError` for models that cannot exist, before any is measured."""
    try:
        check_references(names, run)
    except UnknownNameError as error:
        hints = "".join(dict.fromkeys(map(_no_folder, names)))
        raise UnknownNameError(f"{error}{hints}") from error


def _no_folder(name: str) -> str:
    """A clause that there is no such folder, for a name that does not look like a model."""
    known = Reference.parse_any(name).runtime
    return "" if known or Path(name).exists() else "; there is no folder of that name either"


def _name(reference: str, fill: str) -> str:
    return reference if fill == DEFAULT_FILL else f"{reference}+{fill}"
