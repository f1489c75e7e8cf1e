"""`audit`: measure one model in this process."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from ...adapters.errors import InputError
from ..records.hashing import digest, model_identity, module_identity
from ..records.parts import to_json_value
from .black_box import measure_with_stand_ins
from .keywords import read_keywords
from .plan import DEFAULT_SUITES, AuditPlan
from .settings import RunOptions, Settings, SettingsFields, standard
from .workbench import Workbench

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

    from ...adapters.model import Model
    from ...adapters.treatment import Fill
    from ..records.record import Record
    from .plan import Job
    from .settings import Toolkit


def audit(
    reference: str | Path | nn.Module | Model,
    suites: Sequence[str] = DEFAULT_SUITES,
    kernel_padding: Sequence[Fill] = ("none",),
    *,
    device: str = "auto",
    batch: int | None = None,
    name: str | None = None,
    toolkit: Toolkit | None = None,
    **settings: Unpack[SettingsFields],
) -> list[Record]:
    """Measure one model in this process: a record per kernel padding, suite and protocol.

    `reference` is what `adapters.load.load` takes; `name` is the name of a module in its records.
    `suites` are named as on the command line (`erf`, `erf:kim2023`, `erf:all`). `settings` are the
    fields of `execution.settings.Settings`, such as `images`, `count`, `seed`, `target`, `size`,
    `options` and `inputs`. A model without reliable gradients is also measured by the suites of
    `black_box.STAND_INS`. A measurement that fails gives a failed record; only wrong names and
    settings raise, as subclasses of `PerimetryError`.

    >>> records = audit("timm:test_resnet@init", ("structure",))  # doctest: +SKIP
    >>> records[0].metrics["weakest"].value  # doctest: +SKIP
    """
    check_several("suites", suites)
    check_several("kernel_padding", kernel_padding)
    chosen = read_keywords(audit, Settings, settings)
    _import_libraries()
    tools = toolkit or standard()
    run = RunOptions(device=device, batch=batch, toolkit=lambda: tools)
    return measure_here(reference, suites, kernel_padding, chosen, run, name=name)


def check_several(argument: str, names: Sequence[str] | None) -> None:
    """Raise `InputError` for one name where a sequence of names is expected."""
    if isinstance(names, str):
        raise InputError(f"{argument}={names!r} was given; expected a sequence: ({names!r},)")


def measure_here(
    reference: str | Path | nn.Module | Model,
    suites: Sequence[str],
    fills: Sequence[str],
    settings: Settings,
    run: RunOptions,
    *,
    name: str | None = None,
) -> list[Record]:
    """Measure one model in this process, as `audit` does."""
    from ...adapters.device import pick_device

    place, toolkit = pick_device(run.device), run.toolkit()
    text, objects, identities = _named(reference, name, settings)
    plan = AuditPlan([text], suites, fills, settings, place.type, toolkit.suites, identities)
    bench = Workbench(
        toolkit, settings, device=str(place), batch=run.batch_on(place.type), objects=objects
    )

    def measure(jobs: Sequence[Job]) -> list[Record]:
        records: list[Record] = []
        for job in jobs:
            bench.measure(job, records.append)
        return records

    return measure_with_stand_ins(plan, measure)


LIBRARIES = ("sympy", "scipy.sparse", "scipy.special", "torch", "torchvision", "timm")
"""Libraries, or parts of them, that add warning filters when they are first imported."""


@cache
def _import_libraries() -> None:
    """Import what changes the warning filters of the program, and restore those.

    Raises what an import raises.
    """
    # In a thread of its own: a library that keeps the error of an optional import keeps the frames
    # below it, too, and with them a caller's model.
    with warnings.catch_warnings(), ThreadPoolExecutor(1) as thread:
        list(thread.map(import_module, LIBRARIES))


def _named(
    reference: str | Path | nn.Module | Model, name: str | None, settings: Settings
) -> tuple[str, dict[str, nn.Module | Model], dict[str, str]]:
    """The text that stands for `reference`; a module's own entry and hash by that text."""
    if isinstance(reference, str | Path):
        return str(reference), {}, {}
    from torch import nn

    if isinstance(reference, nn.Module):
        text = name or f"module:{type(reference).__name__}"
        parts = [module_identity(reference)]
        parts += [digest(to_json_value(dict(settings.inputs)))] if settings.inputs else []
        return text, {text: reference}, {text: "+".join(parts)}
    text = name or reference.reference
    return text, {text: reference}, {text: model_identity(reference)}
