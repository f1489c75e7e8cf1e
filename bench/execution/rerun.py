"""Measuring again as stored records were measured: their settings, read back from them.

`compare` audits a model beside stored records, `check` a model against its baseline, `verify` a
published set against itself; all of them must repeat images, seed, size, draws and the settings
of suites exactly, or numbers would be compared that do not compare.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ...adapters.errors import InputError
from ..records.hashing import images_identity
from ..records.record import FIT_KEY
from ..records.selection import stated_inputs
from .fit_images import open_fit_images
from .plan import make_jobs
from .settings import FIT_DEFAULT, Settings
from .toolkit import Toolkit, standard

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

    from ...adapters.model import Model
    from ...adapters.treatment import Fill
    from ..records.record import Record
    from .engines.base import Event


COMMON = (
    *("target", "size", "members", "images_sha256", "draws", "precision", "recalibrate"),
    FIT_KEY,
)
"""Entries of a record's settings that are the run's; the others are the suite's own."""


@dataclass(frozen=True)
class Folders:
    """Where the folders are now that records name but cannot find.

    `images` were audited, `fit_images` is what kernel padding `fit` was fitted on.
    """

    images: str | None = None
    fit_images: str | None = None


@dataclass(frozen=True)
class RunSpec:
    """What to measure and how: `suites` are named `SUITE:PROTOCOL`."""

    settings: Settings
    suites: tuple[str, ...]


@dataclass(frozen=True)
class RunOptions:
    """With what to measure; nothing here changes a number beyond float noise.

    `isolated` measures in a worker process, so that a model that crashes costs only its records;
    `progress` then shows on standard error how far it is.
    """

    device: str = "auto"
    batch: int | None = None
    time_limit_s: float | None = None
    isolated: bool = False
    progress: bool = False
    toolkit: Callable[[], Toolkit] = standard


def run_spec_of(records: Sequence[Record], folders: Folders | None = None) -> RunSpec:
    """The order that gave `records`.

    Raises `InputError` when the records were made under unlike settings, when a folder they need is
    not among `folders`, or when its images are not theirs.
    """
    folders = folders or Folders()
    if not records:
        raise InputError("there is no record whose settings could be taken")
    random = [record for record in records if record.images is not None]
    chosen = _settings((random or list(records))[0], folders.images)
    found = [_settings(record, folders.images) for record in random]
    for record, other in zip(random, found, strict=True):
        if replace(other, options={}) != replace(chosen, options={}):
            raise InputError(
                f"{record.label} was made under other settings than {random[0].label}; choose one "
                "kind with --where, such as --where seed=0"
            )
    chosen = replace(chosen, options=_options(records))
    order = RunSpec(
        _with_fit(chosen, records, folders.fit_images),
        tuple(dict.fromkeys(f"{record.suite}:{record.protocol}" for record in records)),
    )
    if random:
        _check_images(random[0], order.settings)
    return order


def rerun(
    reference: str | nn.Module | Model,
    order: RunSpec,
    fills: Sequence[Fill],
    tools: RunOptions,
    *,
    name: str | None = None,
) -> list[Record]:
    """Measure one model by `order`; failures become failed records.

    `name` is what a module is called in its records. Maps are as they would come out of a store
    when the work is isolated, and not yet rounded otherwise.
    """
    if tools.isolated and isinstance(reference, str):
        return _in_workers(reference, order, fills, tools)
    from .audit import audit

    return audit(
        reference,
        order.suites,
        fills,
        **vars(order.settings),
        device=tools.device,
        batch=tools.batch,
        name=name,
        toolkit=tools.toolkit(),
    )


def _in_workers(
    reference: str, order: RunSpec, fills: Sequence[Fill], tools: RunOptions
) -> list[Record]:
    from ..records.store import Store
    from .devices import default_batch, devices
    from .engines.base import Options
    from .runner import run_jobs

    found = devices(tools.device)[:1]
    jobs = make_jobs(
        [reference],
        order.suites,
        fills,
        order.settings,
        device=found[0].partition(":")[0],
        known=tools.toolkit().suites,
    )
    batch = tools.batch or default_batch(found[0])
    options = Options(devices=found, batch=batch, time_limit_s=tools.time_limit_s)
    with tempfile.TemporaryDirectory(prefix="perimetry-") as folder:
        store = Store(folder)
        with _shown(sum(len(job.cells) for job in jobs), tools) as report:
            run_jobs(jobs, store, order.settings, options, toolkit=tools.toolkit, report=report)
        records = store.records()
        for record in records:
            record.arrays  # noqa: B018 - read before the folder goes
    return records


@contextlib.contextmanager
def _shown(total: int, tools: RunOptions) -> Iterator[Callable[[Event], None]]:
    """What takes the events of a run of `total` records: progress on standard error, or nothing."""
    if not tools.progress:
        yield lambda _event: None
        return
    from .progress import Progress

    with Progress(total) as shown:
        yield shown.report


def own_options(record: Record) -> dict[str, Any]:
    """The suite's own settings in a record."""
    return {key: value for key, value in record.settings.items() if key not in COMMON}


def _settings(record: Record, images: str | None) -> Settings:
    """The settings of the run that made one record, without those of suites."""
    held, shown = record.settings, record.images
    size = held.get("size")
    chosen = Settings(
        seed=record.seed,
        target=held.get("target"),
        size=(int(size[0]), int(size[1])) if size else None,
        members=held.get("members"),
        inputs=stated_inputs(record),
    )
    if shown is None:
        return chosen
    return replace(
        chosen,
        images=_images_name(shown.name, images),
        count=shown.count,
        draws=held.get("draws", chosen.draws),
        precision=held.get("precision", chosen.precision),
        recalibrate=held.get("recalibrate", chosen.recalibrate),
    )


def _images_name(name: str, given: str | None) -> str:
    from ...suites.images import BUILT_IN

    if name in BUILT_IN:
        return name
    if given is None:
        raise InputError(
            f"the records were made on the images of a folder called {name!r}; say where it is "
            "now, with --images FOLDER"
        )
    return given


def _check_images(record: Record, settings: Settings) -> None:
    from ...suites.images import open_images

    wanted = record.settings.get("images_sha256")
    images = open_images(settings.images, settings.count, settings.seed)
    if wanted is not None and images_identity(images) != wanted:
        raise InputError(
            f"{settings.images!r} holds other images than {record.label} was made on; give the "
            "folder with the same files"
        )


def _with_fit(settings: Settings, records: Sequence[Record], given: str | None) -> Settings:
    """`settings` with what the records of kernel padding `fit` were fitted on.

    Where there is none of them, `given` is for what is to be measured beside them.
    """
    fitted = [record for record in records if record.fill == "fit"]
    kinds = {record.settings.get(FIT_KEY): record for record in fitted}
    if len(kinds) > 1:
        raise InputError(
            f"{fitted[0].label} was fitted on other images than other records here; choose one "
            "kind with --where, such as --where fit_images=dead-leaves"
        )
    if not fitted:
        return replace(settings, fit_images=given or FIT_DEFAULT)
    ((wanted, record),) = kinds.items()
    if wanted is None:
        return settings
    return _check_fitted(record, replace(settings, fit_images=_fit_folder(record, given)))


def _fit_folder(record: Record, given: str | None) -> str:
    """Where the images are that `record` was fitted on."""
    from ...suites.images import BUILT_IN

    name = record.fit_images.name if record.fit_images else "unknown"
    if name in BUILT_IN:
        return name
    if given is None:
        raise InputError(
            f"{record.label} was fitted on images of a folder called {name!r}, which is not stored "
            "with it; say where it is now, with --fit-images FOLDER"
        )
    return given


def _check_fitted(record: Record, settings: Settings) -> Settings:
    """`settings`, whose images to fit on must be those of `record`. Raises `InputError`."""
    if images_identity(open_fit_images(settings)) != record.settings[FIT_KEY]:
        raise InputError(
            f"{settings.fit_images!r} gives other images to fit on than {record.label} was fitted "
            "on; give the folder with the same files"
        )
    return settings


def _options(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """Settings of suites by suite. Raises `InputError` where two records of one suite differ."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        own = own_options(record)
        if found.setdefault(record.suite, own) != own:
            raise InputError(
                f"the records of {record.suite} were made under unlike settings: "
                f"{json.dumps(found[record.suite])} and {json.dumps(own)}; choose one kind with "
                "--where, or name the protocol"
            )
    return {suite: own for suite, own in found.items() if own}
