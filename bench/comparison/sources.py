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
from ..execution.settings import Settings, standard
from ..execution.together import Asked, Together
from ..records.selection import (
    find_reference,
    same_file,
    stated_inputs,
)
from .compatibility import UnlikeRecordsError, input_differences
from .fingerprint import CELL, WithFingerprint
from .sides import (
    DEFAULT_FILL,
    Argument,
    RecordCache,
    Side,
    is_folder,
    read_argument,
    read_arguments,
    short_names,
    side_of,
    variant_name,
    why_not_measured,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..execution.settings import RunOptions
    from ..records.record import Record


PRINT = ":".join(CELL)


COMPARED = (*DEFAULT_SUITES, "padding")
"""The suites of models of which none is stored: evenness, receptive field and border."""


ONE_MODEL = (
    "fewer than two models were given; expected at least two, such as A.onnx B.onnx, or A and its "
    "kernel-padded variant A+box"
)


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


def open_sides(
    things: Sequence[Any], wanted: MissingAudit, names: Mapping[str, Any] = MappingProxyType({})
) -> tuple[list[list[Side]], list[str]]:
    """The groups of sides that `things` name, and a sentence for each unreadable file.

    The first side of a group is the reference of the others. `names` are names of some of `things`,
    or of further ones. Raises `InputError`,
    `UnknownNameError` with near names, `MixedRecordsError`, `NotMeasuredError`.
    """
    given = read_arguments(things, names)
    if not given or (len(given) == 1 and not is_folder(given[0])):
        raise InputError(ONE_MODEL)  # raised before the model is measured in vain
    cache = RecordCache(wanted.options.where)
    folders = [g for g in given if isinstance(g, Argument) and is_folder(g)]
    if len(folders) == len(given) > 1:
        groups = _runs(folders, cache)
    else:
        groups = [_models(given, cache, wanted)]
    return groups, cache.problems


def one_side(thing: Any, pattern: Sequence[Record], wanted: MissingAudit) -> Side:
    """The side that `thing` names; if it is not stored, audited as the first of `pattern` was.

    Raises `InputError` for a folder of several models, `UnknownNameError`, `NotMeasuredError`.
    """
    given = read_argument(thing)
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
    side = _audited(asked, wanted.options.run, Together())
    why = why_not_measured(side)
    if why is not None:
        raise NotMeasuredError(f"{side.reference!r} could not be measured: {why}")
    return side


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


def _runs(given: Sequence[Argument], cache: RecordCache) -> list[list[Side]]:
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


def _models(
    given: Sequence[Side | Argument], cache: RecordCache, wanted: MissingAudit
) -> list[Side]:
    """One group: stored models as they are, the others audited under the settings of those."""
    library = _library(given)
    rest = given[1:] if library is not None else given
    sides: list[Side | Argument] = []
    for one in rest:
        sides += [one] if isinstance(one, Side) else _stored(one, cache, library)
    pattern = [side for side in sides if isinstance(side, Side)]
    if library is not None and not pattern:
        pattern = [cache.side(library, cache.references(library)[0], None)]
    if all(isinstance(side, Side) for side in sides):
        return _named(sides, [side for side in sides if isinstance(side, Side)])
    if wanted.options.run.toolkit is standard:
        names = [g.model for g in sides if isinstance(g, Argument) and g.model is not None]
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
        _asked(one, own) for one, own in zip(sides, specs, strict=True) if isinstance(one, Argument)
    ]
    together = Together(asked)
    found = [
        one if isinstance(one, Side) else _audited(_asked(one, own), run, together)
        for one, own in zip(sides, specs, strict=True)
    ]
    _check_measured(found)
    return _named(sides, found)


def _named(given: Sequence[Side | Argument], sides: Sequence[Side]) -> list[Side]:
    """The sides of one group with distinct short names, and those that the user gave."""
    own = {
        place: one.name
        for place, one in enumerate(given)
        if one.name
        and (isinstance(one, Argument) or one.name != variant_name(one.reference, one.fill))
    }
    names = short_names([side.name for side in sides], [side.folder for side in sides], own)
    return [replace(side, name=name) for side, name in zip(sides, names, strict=True)]


def _input_specs(
    sides: Sequence[Side | Argument], specs: Sequence[RunSpec], wanted: MissingAudit
) -> list[RunSpec]:
    """How each side is measured: modules at the size of the first side that is not a module.

    Raises `UnlikeRecordsError`, before anything is measured, if inputs differ from the first one.
    """
    run = wanted.options.run
    inputs = _inputs(sides, specs, run)
    sizes = [spec for one, spec in zip(sides, inputs, strict=True) if spec and not _is_module(one)]
    found = list(specs)
    for place, one in enumerate(sides):
        if isinstance(one, Argument) and sizes:
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


def _is_module(one: Side | Argument) -> bool:
    return isinstance(one, Argument) and isinstance(one.thing, nn.Module)


def _inputs(
    sides: Sequence[Side | Argument], specs: Sequence[RunSpec], run: RunOptions
) -> list[Mapping[str, Any]]:
    """The input of each side; empty if it is not known before the model is measured."""
    asked = [
        (one.model if one.thing is None else one.thing, spec.settings)
        for one, spec in zip(sides, specs, strict=True)
        if isinstance(one, Argument)
    ]
    found = iter(known_inputs(asked, run))
    return [_stored_input(one) if isinstance(one, Side) else next(found) for one in sides]


def _stored_input(one: Side) -> Mapping[str, Any]:
    return next((r.model.spec for r in one.records.values() if r.model.spec), {})


def _shown(one: Side | Argument) -> str:
    if isinstance(one, Side):
        return one.name
    return one.model or str(getattr(one.thing, "reference", type(one.thing).__name__))


def _of_file(
    one: Side | Argument, spec: RunSpec, stored: Sequence[Record], options: RerunOptions
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


def _library(given: Sequence[Side | Argument]) -> Path | None:
    """A bare folder before two or more models: where these are looked up first."""
    first = given[0] if len(given) > 2 else None
    return first.folder if isinstance(first, Argument) and first.model is None else None


def _stored(one: Argument, cache: RecordCache, library: Path | None) -> Sequence[Side | Argument]:
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
    return RunSpec(wanted.settings or Settings(), wanted.suites or COMPARED)


def _asked(one: Argument, spec: RunSpec) -> Asked:
    """How a model is audited that is not stored."""
    return Asked(one.model if one.thing is None else one.thing, spec, [one.fill or DEFAULT_FILL])


def _audited(asked: Asked, run: RunOptions, together: Together) -> Side:
    """Audit a model now; what could not be measured is in its records."""
    return replace(side_of(together.measure(asked, run)), thing=asked.model)


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
