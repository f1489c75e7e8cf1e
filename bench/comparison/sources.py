"""The sides of a comparison: stored folders, models in them, or models that are audited now.

    DIR          every model in a folder of records, or in a packed `.jsonl` file
    DIR:MODEL    one of them, by its reference or enough of it
    REF          a model, audited now under the settings of the stored ones, or the defaults
    ...+FILL     its kernel-padded variant, such as timm:resnet18@init+box

In Python also a `Side`, the records of one model variant, a module or an opened model.

If only folders are given, they are runs to compare: models pair by reference and kernel padding. A
folder before two or more model names is where these are looked up first.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError, NotMeasuredError, UnknownNameError
from ..execution.rerun import RunSpec, run_spec_of, sized_as
from ..execution.together import Together
from ..records.references import find_reference
from .audited import (
    MissingAudit,
    asked_of,
    audited,
    check_measured,
    check_models,
    check_version,
    for_file,
    input_specs,
    spec_beside,
)
from .fingerprint import CELL, WithFingerprint
from .sides import (
    Argument,
    RecordCache,
    Side,
    is_folder,
    read_argument,
    read_arguments,
    short_side_names,
    variant_name,
    why_not_measured,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..records.record import Record


PRINT = ":".join(CELL)


ONE_MODEL = (
    "fewer than two models were given; expected at least two, such as A.onnx B.onnx, or A and its "
    "kernel-padded variant A+box"
)


def open_sides(
    things: Sequence[Any], wanted: MissingAudit, names: Mapping[str, Any] = MappingProxyType({})
) -> tuple[list[list[Side]], list[str]]:
    """The groups of sides that `things` name, and a sentence for each unreadable file.

    The first side of a group is the reference of the others. `names` are names of some of `things`,
    or of further ones. Raises `InputError`, `UnknownNameError` with near names,
    `MixedRecordsError`, `NotMeasuredError`.
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
    check_version(pattern[0], wanted.options.run)
    check_models([given], wanted.options.run)
    spec = run_spec_of(pattern[:1], wanted.options)
    spec = for_file(given, spec, pattern, wanted.options)
    settings = sized_as(given.thing, spec.settings, pattern[0].model.spec)
    asked = asked_of(given, replace(spec, settings=settings))
    side = audited(asked, wanted.options.run, Together())
    why = why_not_measured(side)
    if why is not None:
        raise NotMeasuredError(f"{side.reference!r} could not be measured: {why}")
    return side


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
    # a bare folder before two or more models is where these are looked up first
    first = given[0] if len(given) > 2 else None
    library = first.folder if isinstance(first, Argument) and first.model is None else None
    rest = given[1:] if library is not None else given
    sides: list[Side | Argument] = []
    for one in rest:
        sides += [one] if isinstance(one, Side) else _stored(one, cache, library)
    pattern = [side for side in sides if isinstance(side, Side)]
    if library is not None and not pattern:
        pattern = [cache.side(library, cache.references(library)[0], None)]
    if all(isinstance(side, Side) for side in sides):
        return _named(sides, [side for side in sides if isinstance(side, Side)])
    check_models(sides, wanted.options.run)
    spec, run = spec_beside(pattern, wanted), wanted.options.run
    if wanted.stages:
        spec = RunSpec(spec.settings, (*(s for s in spec.suites if s != PRINT), PRINT))
        run = replace(run, toolkit=WithFingerprint(run.toolkit))
    stored = [*(r for side in pattern for r in side.records.values()), *cache.cached()]
    specs = input_specs(
        sides, [for_file(one, spec, stored, wanted.options) for one in sides], wanted
    )
    asked = [
        asked_of(one, own)
        for one, own in zip(sides, specs, strict=True)
        if isinstance(one, Argument)
    ]
    together = Together(asked)
    found = [
        one if isinstance(one, Side) else audited(asked_of(one, own), run, together)
        for one, own in zip(sides, specs, strict=True)
    ]
    check_measured(found)
    return _named(sides, found)


def _named(given: Sequence[Side | Argument], sides: Sequence[Side]) -> list[Side]:
    """The sides of one group with distinct short names, and those that the user gave."""
    own = {
        place: one.name
        for place, one in enumerate(given)
        if one.name
        and (isinstance(one, Argument) or one.name != variant_name(one.reference, one.fill))
    }
    names = short_side_names([side.name for side in sides], [side.folder for side in sides], own)
    return [replace(side, name=name) for side, name in zip(sides, names, strict=True)]


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
