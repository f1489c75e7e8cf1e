"""Sides of a comparison that are not stored: how they are audited now, and checks before and after.

The declarations of input and output in the stored records of an ONNX file are used again for that
file, by whatever path it is named, and for no other file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from ...adapters.errors import InputError, NotMeasuredError, UnknownNameError
from ...adapters.reference import Reference
from ...suites.images import BUILT_IN
from ..execution.identities import check_references
from ..execution.plan import DEFAULT_SUITES
from ..execution.rerun import RerunOptions, RunSpec, known_inputs, run_spec_of, sized_as
from ..execution.settings import Settings, standard
from ..execution.together import Asked, Together
from ..output.text import clean
from ..records.references import UNTREATED, same_file, spec_of, stated_inputs
from .compatibility import UnlikeRecordsError, input_differences
from .sides import Argument, Side, side_of, why_not_measured

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..execution.settings import RunOptions
    from ..records.record import Record


COMPARED = (*DEFAULT_SUITES, "padding")
"""The suites of models of which none is stored: evenness, receptive field and border."""


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


def check_version(record: Record, run: RunOptions) -> None:
    """Raise `InputError`, before anything is measured, if it would not compare with `record`."""
    suite = run.toolkit().suites.get(record.suite)
    now = suite.protocols.get(record.protocol) if suite else None
    if now != record.version:
        raise InputError(
            f"the records are of {record.suite}:{record.protocol} version {record.version}, and a "
            f"model measured now would be of version {now or 'none'}; measure the records again, "
            "or name a model whose records are of their version"
        )


def input_specs(
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
    return [
        spec_of(one.records.values()) if isinstance(one, Side) else next(found) for one in sides
    ]


def _shown(one: Side | Argument) -> str:
    if isinstance(one, Side):
        return one.name
    return one.model or str(getattr(one.thing, "reference", type(one.thing).__name__))


def for_file(
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


def spec_beside(pattern: Sequence[Side], wanted: MissingAudit) -> RunSpec:
    """The settings of stored sides, else those that were asked for, else the defaults."""
    records = [record for side in pattern[:1] for record in side.records.values()]
    if records:
        spec = run_spec_of(records, wanted.options)
        return RunSpec(spec.settings, wanted.suites or spec.suites)
    return RunSpec(wanted.settings or Settings(), wanted.suites or COMPARED)


def asked_of(one: Argument, spec: RunSpec) -> Asked:
    """How a model is audited that is not stored."""
    return Asked(one.model if one.thing is None else one.thing, spec, [one.fill or UNTREATED])


def audited(asked: Asked, run: RunOptions, together: Together) -> Side:
    """Audit a model now; what could not be measured is in its records."""
    return replace(side_of(together.measure(asked, run)), thing=asked.model)


def check_measured(sides: Sequence[Side]) -> None:
    """Raise `NotMeasuredError` unless two models were measured, which can be compared."""
    broken = {side.reference: why for side in sides if (why := why_not_measured(side))}
    if broken and len(sides) - len(broken) < 2:
        texts = "; ".join(f"{name!r} could not be measured: {why}" for name, why in broken.items())
        raise NotMeasuredError(texts)


def check_models(sides: Sequence[Side | Argument], run: RunOptions) -> None:
    """Raise `UnknownNameError` for models that cannot exist, before any is measured.

    Also where factories that need arguments leave fewer than two models to compare; where they
    leave more, those are named on standard error if progress is shown there.
    """
    if run.toolkit is not standard:
        return
    names = [one.model for one in sides if isinstance(one, Argument) and one.model is not None]
    try:
        faults = check_references(names, run)
    except UnknownNameError as error:
        hints = "".join(dict.fromkeys(map(_no_folder, names)))
        raise UnknownNameError(f"{error}{hints}") from error
    if faults and len(sides) - len(faults) < 2:
        raise UnknownNameError(f"nothing was measured; {'; '.join(faults)}")
    if run.progress:
        for text in faults:
            sys.stderr.write(f"perimetry: {clean(text, 2000)}\n")


def _no_folder(name: str) -> str:
    """A clause that there is no such folder, for a name that does not look like a model."""
    known = Reference.parse_any(name).runtime
    return "" if known or Path(name).exists() else "; there is no folder of that name either"
