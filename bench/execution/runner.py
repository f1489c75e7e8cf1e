"""Many models: an engine measures the records that are missing in the store.

Records that are already in the store are not made again; failed ones are if the options say so.
Models that take longest come first.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from ...adapters.errors import check_name
from ..output.text import counted
from ..records.manifest import changed_files
from .cost import job_seconds, most_expensive_first, pace
from .engines.base import ENGINES, EngineContext, RunLedger, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..records.record import Record
    from ..records.store import Store
    from .engines.base import Event
    from .engines.local import LocalEngine
    from .engines.ray import RayEngine
    from .plan import Job
    from .settings import RunOptions, Settings


def run_jobs(
    jobs: Sequence[Job],
    store: Store,
    settings: Settings,
    options: RunOptions,
    report: Callable[[Event], None] = lambda _event: None,
) -> Summary:
    """Measure the cells of `jobs` that are not in `store` yet.

    `report` is called in this process with every event. Raises `StoreError` when the store can no
    longer be written.
    """
    todo, present = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    summary = Summary(already_present=present)
    with _progress(todo, settings.count, options, report) as show:
        ledger = RunLedger(store, settings, summary, show, options.retries)
        engine = _engine(EngineContext(settings, options, str(store.root)), ledger)
        try:
            engine.run(most_expensive_first(todo, settings.count))
        finally:
            engine.close()
    return summary


@contextlib.contextmanager
def _progress(
    todo: Sequence[Job], count: int, options: RunOptions, report: Callable[[Event], None]
) -> Iterator[Callable[[Event], None]]:
    """Where events go: to a progress bar on standard error if the options say so, and `report`."""
    if not options.progress:
        yield report
        return
    from .cost import Progress, record_costs

    with Progress(record_costs(todo, count)) as bar:

        def both(event: Event) -> None:
            bar.report(event)
            report(event)

        yield both


def _engine(context: EngineContext, ledger: RunLedger) -> LocalEngine | RayEngine:
    """The engine that the options name. Raises `UnknownNameError`, `InputError` without Ray."""
    if check_name("engine", context.options.engine, ENGINES) == "ray":
        from .engines.ray import RayEngine

        return RayEngine(context, ledger)
    from .engines.local import LocalEngine

    return LocalEngine(context, ledger)


def missing_jobs(jobs: Sequence[Job], store: Store, *, retry_failed: bool) -> tuple[list[Job], int]:
    """The jobs with the cells that must still be measured, and how many cells are present.

    A record is measured again if its maps or draws are damaged, or if its files are not those of
    the manifest.
    """
    keys = [cell.key for job in jobs for cell in job.cells]
    found = store.find(keys)
    changed = {Path(name).stem for name in changed_files(store)}
    done = {
        k
        for k, r in found.items()
        if not (
            store.path(r).stem in changed
            or _is_damaged(r)
            or (retry_failed and r.status == "failed")
        )
    }
    rest = [job.only(c.key for c in job.cells if c.key not in done) for job in jobs]
    return [job for job in rest if job.cells], len(done)


def _is_damaged(record: Record) -> bool:
    """Whether the maps and draws of a record cannot be read."""
    damage = record.find_damage()
    record.forget()
    return damage is not None


def forecast_run(
    jobs: Sequence[Job], store: Store | None, settings: Settings, options: RunOptions
) -> str:
    """One sentence: how many records a run of `jobs` would make, and about how long it would take.

    The time is estimated from what models cost elsewhere (see `cost`), scaled by what the records
    in `store` took. On a GPU there is no estimate without such records.
    """
    todo, present = list(jobs), 0
    if store is not None:
        todo, present = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    models = len({job.reference for job in todo})
    count = sum(len(job.cells) for job in todo)
    made = f"{counted(count, 'record')} of {counted(models, 'model')}"
    text = f"{made} to make; {present} already present"
    factor, variants = pace(store.records() if store is not None else ())
    if not todo or not (variants or options.device_kind == "cpu"):
        return text
    spent = factor * sum(job_seconds(job, settings.count) for job in todo)
    spent /= min(len(options.devices) * options.workers, models)
    basis = f"{variants} variants measured here" if variants else "typical times of one CPU core"
    return f"{text}; about {spent / 60:.1f} minutes, estimated from {basis}"
