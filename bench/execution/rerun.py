"""Measuring again as stored records were measured: their settings, read back from them.

`compare` audits a model beside stored records, `check` a model against its baseline, `verify` a
published set against itself; all of them must repeat images, seed, size, draws and the settings
of suites exactly, or the numbers would not be comparable.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypedDict

from ...adapters.errors import InputError
from ...adapters.reference import Reference
from ...adapters.scratch import scratch_folder
from ..records.hashing import FIT_KEY, images_identity
from ..records.parts import to_json_value
from ..records.references import stated_inputs
from ..records.selection import is_imported
from .audit import measure_here
from .identities import find_identities
from .plan import AuditPlan
from .settings import FIT_DEFAULT, GOAL_FIELDS, RunOptions, Settings, open_fit_images, standard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from ...adapters.model import Model
    from ...adapters.treatment import Fill
    from ...suites.images import ImageSet
    from ..records.record import Record
    from .cost import Progress


COMMON = (
    *("target", "size", "members", "images_sha256", "draws", "precision", "recalibrate"),
    *GOAL_FIELDS,
    FIT_KEY,
)
"""Entries of a record's settings that are the run's; the others are the suite's own."""


@dataclass(frozen=True)
class RerunOptions:
    """Which stored records to use, where their images are, and how to measure again.

    `where` selects the records for which every KEY=VALUE holds (see `records.selection.choose`);
    `images` and `fit_images` are paths to the folders that the records were measured on and that
    their kernel padding `fit` was fitted on; `run` says how to measure. `inputs` declares the input
    of models that are measured now, over what the records declare (see `settings.Settings`).
    """

    where: Sequence[str] = ()
    images: str | None = None
    fit_images: str | None = None
    run: RunOptions = field(default_factory=RunOptions)
    inputs: Mapping[str, Any] = field(default_factory=dict)


class RerunFields(TypedDict, total=False):
    """The fields of `RerunOptions` as keyword arguments."""

    where: Sequence[str]
    images: str | None
    fit_images: str | None
    run: RunOptions
    inputs: Mapping[str, Any]


@dataclass(frozen=True)
class RunSpec:
    """What to measure and how: `suites` are named `SUITE:PROTOCOL`."""

    settings: Settings
    suites: tuple[str, ...]


def run_spec_of(records: Sequence[Record], options: RerunOptions | None = None) -> RunSpec:
    """The settings and suites that `records` were measured with.

    Raises `InputError` when the records have different settings, when a folder they need is not
    given in `options`, or when the folder given has other images.
    """
    options = options or RerunOptions()
    if not records:
        raise InputError("no record was given; expected at least one to read the settings from")
    _refuse_unmeasured(records)
    random = [record for record in records if record.images is not None]
    chosen = _settings((random or list(records))[0], options.images)
    found = [_settings(record, options.images) for record in random]
    for record, other in zip(random, found, strict=True):
        if replace(other, options={}) != replace(chosen, options={}):
            raise InputError(
                f"{record.label} was measured with other settings than {random[0].label}; select "
                "one set of settings with --where, such as --where seed=0"
            )
    inputs = {**chosen.inputs, **options.inputs}
    chosen = replace(chosen, options=_options(records), inputs=inputs)
    spec = RunSpec(
        _with_fit(chosen, records, options.fit_images),
        tuple(dict.fromkeys(f"{record.suite}:{record.protocol}" for record in records)),
    )
    if random:
        wanted, images = random[0].settings.get("images_sha256"), spec.settings.open_images()
        _check_same(images, wanted, spec.settings.images, random[0])
    return spec


def _refuse_unmeasured(records: Sequence[Record]) -> None:
    """Raise `InputError` for records of what others have published, or of a training."""
    for record in records:
        if record.suite == "training":
            raise InputError(
                f"{record.label} is of networks that were trained, not of one that was measured; "
                "expected records of a run: `perimetry train` trains these again"
            )
        if is_imported(record):
            raise InputError(
                f"{record.label} was imported, not measured here; expected records of a run: "
                "choose them with --where. `perimetry verify DIR --imported FOLDER` reads them "
                "again from the files that were imported"
            )


def rerun(
    reference: str | nn.Module | Model,
    spec: RunSpec,
    fills: Sequence[Fill],
    run: RunOptions,
    *,
    name: str | None = None,
) -> list[Record]:
    """Measure one model as `spec` says; failures become failed records.

    `name` is the name of a module in its records. Maps are rounded as the store rounds them when
    `run.isolated` is set, and not rounded otherwise.
    """
    if run.isolated and isinstance(reference, str):
        return in_workers(plan_of([reference], spec, fills, run), run)
    return measure_here(reference, spec.suites, fills, spec.settings, run, name=name)


def known_inputs(asked: Sequence[tuple[Any, Settings]], run: RunOptions) -> list[dict[str, Any]]:
    """The fields of the input of each model, measured with these settings; empty if not known yet.

    Files are read in one process with limits if `run.isolated` is set. What is wrong with a model
    is left to its measurement.
    """
    from .engines.process import each_bounded

    found: list[dict[str, Any]] = [{} for _ in asked]
    elsewhere: dict[int, Callable[[], Any]] = {}
    for place, (thing, settings) in enumerate(asked):
        if isinstance(thing, str) and run.toolkit is not standard:
            continue
        work = partial(_input_fields, thing, settings.size, dict(settings.inputs))
        if run.isolated and isinstance(thing, str) and Reference.parse_any(thing).file is not None:
            elsewhere[place] = work
        else:
            found[place] = work()
    answers = each_bounded(list(elsewhere.values()), run)
    for place, answer in zip(elsewhere, answers, strict=True):
        found[place] = answer if isinstance(answer, dict) else {}
    return found


def _input_fields(
    thing: Any, size: tuple[int, int] | None, inputs: Mapping[str, Any]
) -> dict[str, Any]:
    from ...adapters.load import input_of

    try:
        spec = input_of(thing, size=size, inputs=inputs)
    except Exception:
        return {}
    fields = {} if spec is None else to_json_value(asdict(spec))
    return fields if isinstance(fields, dict) else {}


def sized_as(thing: Any, settings: Settings, spec: Mapping[str, Any]) -> Settings:
    """`settings` for `thing` beside a model with the input `spec`: a module takes its size."""
    from torch import nn

    stated = settings.size is not None or "size" in settings.inputs
    if stated or not isinstance(thing, nn.Module) or not spec:
        return settings
    return replace(settings, size=(int(spec["height"]), int(spec["width"])))


def plan_of(
    references: Sequence[str], spec: RunSpec, fills: Sequence[Fill], run: RunOptions
) -> AuditPlan:
    """How `in_workers` measures models as `spec` says. Raises as `AuditPlan.jobs` does."""
    suites = run.toolkit().suites
    identities = find_identities(references, spec.settings, run)
    plan = AuditPlan(
        references, spec.suites, fills, spec.settings, run.device_kind, suites, identities
    )
    plan.jobs()
    return plan


def in_workers(plan: AuditPlan, run: RunOptions, bar: Progress | None = None) -> list[Record]:
    """Measure models in the workers of one run; `bar` also counts those of other runs."""
    from ..records.store import Store
    from .runner import run_jobs

    run = run if len(plan.references) > 1 else replace(run, device=run.devices[0])
    run = replace(run, progress=run.progress and bar is None)
    report = () if bar is None else (bar.report,)
    with scratch_folder() as folder, bar or contextlib.nullcontext():
        store = Store(folder)
        run_jobs(plan.jobs(), store, plan.settings, run, *report)
        records = store.records()
        for record in records:
            record.arrays  # noqa: B018 - read before the folder is removed
    return records


def _settings(record: Record, images: str | None) -> Settings:
    """The settings of the run that made one record, without those of suites."""
    stored, shown = record.settings, record.images
    size = stored.get("size")
    chosen = Settings(
        seed=record.seed,
        target=stored.get("target"),
        size=(int(size[0]), int(size[1])) if size else None,
        members=stored.get("members"),
        inputs=stated_inputs(record),
    )
    if shown is None:
        return chosen
    return replace(
        chosen,
        images=_folder(shown.name, images, "--images"),
        count=stored.get("count", shown.count),
        precision_goal=stored.get("precision_goal"),
        most_images=stored.get("most_images", chosen.most_images),
        draws=stored.get("draws", chosen.draws),
        precision=stored.get("precision", chosen.precision),
        recalibrate=stored.get("recalibrate", chosen.recalibrate),
    )


def _folder(name: str, given: str | None, option: str) -> str:
    """The images that records call `name`: built in, or in the folder `given` with `option`."""
    from ...suites.images import BUILT_IN

    if name in BUILT_IN:
        return name
    if given is None:
        raise InputError(
            f"the records need a folder of images called {name!r}, which is not stored with them; "
            f"give its path with {option} FOLDER"
        )
    return given


def _check_same(images: ImageSet, sha256: str | None, given: str, record: Record) -> None:
    """Raise `InputError` when the images of the folder `given` are not those of `record`."""
    if sha256 is not None and images_identity(images) != sha256:
        raise InputError(
            f"{given!r} has other images than those of {record.label}; expected the folder with "
            "the same files"
        )


def _with_fit(settings: Settings, records: Sequence[Record], given: str | None) -> Settings:
    """`settings` with the images that the records of kernel padding `fit` were fitted on.

    Without such records, `given` is for the models that are measured beside them.
    """
    fitted = [record for record in records if record.fill == "fit"]
    kinds = {record.settings.get(FIT_KEY): record for record in fitted}
    if len(kinds) > 1:
        raise InputError(
            f"{fitted[0].label} was fitted on other images than other records here; select one "
            "image set with --where, such as --where fit_images=dead-leaves"
        )
    if not fitted:
        return replace(settings, fit_images=given or FIT_DEFAULT)
    ((wanted, record),) = kinds.items()
    if wanted is None:
        return settings
    name = record.fit_images.name if record.fit_images else "unknown"
    settings = replace(settings, fit_images=_folder(name, given, "--fit-images"))
    _check_same(open_fit_images(settings), wanted, settings.fit_images, record)
    return settings


def _options(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Settings of suites by suite. Raises `InputError` where two records of one suite differ."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        own = {key: value for key, value in record.settings.items() if key not in COMMON}
        known = found.setdefault(record.suite, {})
        # each protocol records only the settings that it uses
        if any(known.get(name, value) != value for name, value in own.items()):
            raise InputError(
                f"the records of {record.suite} have different settings: "
                f"{json.dumps(known)} and {json.dumps(own)}; select one of them with "
                "--where, or name the protocol"
            )
        known.update(own)
    return {suite: own for suite, own in found.items() if own}
