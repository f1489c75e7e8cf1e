"""Many models: what is missing in the store is measured by an engine, and nothing else.

Records that are already in the store are not made again, failed ones only when asked to. Models
that take longest come first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...adapters.errors import check_name
from .cost import job_seconds, most_expensive_first, pace
from .engines.base import ENGINES, EngineContext, Event, Options, RunLedger, Summary
from .toolkit import standard

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..records.store import Store
    from .engines.base import Engine
    from .plan import Job
    from .settings import Settings
    from .toolkit import Toolkit


def run_jobs(
    jobs: Sequence[Job],
    store: Store,
    settings: Settings,
    options: Options,
    *,
    toolkit: Callable[[], Toolkit] = standard,
    report: Callable[[Event], None] = lambda _event: None,
) -> Summary:
    """Measure what `store` lacks of `jobs`.

    `toolkit` is called in every worker process, so it must be a function of an importable module.
    `report` is called in this process. Raises `StoreError` when the store can no longer be written.
    """
    todo, held = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    summary = Summary(held=held)
    book = RunLedger(store, settings, summary, report, options.retries)
    engine = _engine(EngineContext(toolkit, settings, options, str(store.root)), book)
    try:
        engine.work_off(most_expensive_first(todo, settings.count))
    finally:
        engine.close()
    return summary


def _engine(means: EngineContext, book: RunLedger) -> Engine:
    """The engine that the options name. Raises `UnknownNameError`, `InputError` without Ray."""
    if check_name("engine", means.options.engine, ENGINES) == "ray":
        from .engines.ray import RayEngine

        return RayEngine(means, book)
    from .engines.local import LocalEngine

    return LocalEngine(means, book)


def missing_jobs(jobs: Sequence[Job], store: Store, *, retry_failed: bool) -> tuple[list[Job], int]:
    """The jobs with the cells that must still be measured, and how many cells need not be."""
    keys = [cell.key for job in jobs for cell in job.cells]
    found = store.find(keys)
    done = {k for k, r in found.items() if not (retry_failed and r.status == "failed")}
    rest = [job.only(c.key for c in job.cells if c.key not in done) for job in jobs]
    return [job for job in rest if job.cells], len(done)


def forecast_run(
    jobs: Sequence[Job], store: Store | None, settings: Settings, options: Options
) -> str:
    """What a run of `jobs` would make, and how long it would take.

    The time is a guess from what models cost elsewhere (see `cost`), set right by what the records
    in `store` took. On a GPU it is told only where there are some.
    """
    todo, held = list(jobs), 0
    if store is not None:
        todo, held = missing_jobs(jobs, store, retry_failed=options.retry_failed)
    models = len({job.reference for job in todo})
    count = sum(len(job.cells) for job in todo)
    text = f"{count} records of {models} models to make; {held} are there already"
    factor, variants = pace(store.records() if store is not None else ())
    if not todo or not (variants or options.devices[0] == "cpu"):
        return text
    spent = factor * sum(job_seconds(job, settings.count) for job in todo)
    spent /= min(len(options.devices) * options.workers, models)
    basis = f"{variants} variants measured here" if variants else "what one core took elsewhere"
    return f"{text}; about {spent / 60:.1f} minutes, going by {basis}"
