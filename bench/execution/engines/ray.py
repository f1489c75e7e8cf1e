"""The Ray engine: the same measuring on every node of a cluster (extra `perimetry[ray]`).

A *crew* is a Ray actor that holds one device of a node and runs the local engine for it, so a
crash, a hang or an out-of-memory kill costs one model there too. A node that goes away takes its
crews with it: their jobs go to others, less what is in the store already, so nothing is lost and
nothing that was finished is measured again. All nodes write to one shared folder.
"""

from __future__ import annotations

import os
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....adapters.errors import InputError
from ...output.files import StoreError
from ...records.record import Failure
from ...records.store import Store
from .base import Event, RunLedger, Summary
from .local import LocalEngine

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..plan import Job
    from .base import EngineContext


RESTARTS = 3
"""How often a job may lose its node before its records say *failed*."""


STARTUP_S = 300.0
"""How long to wait for a first crew, or for another when all are gone."""


Outcome = list[tuple[str, str]]
"""Keys of the records that a crew made, and their statuses."""


class MeasuringActor:
    """Measures jobs on one device of one node; the body of a Ray actor."""

    def __init__(self, means: EngineContext) -> None:
        self._store = Store(means.folder)
        self._outcome: Outcome = []
        self._book = RunLedger(
            self._store, means.settings, Summary(), self._note, means.options.retries
        )
        self._engine = LocalEngine(means, self._book)

    def _note(self, event: Event) -> None:
        if event.cell is not None:
            self._outcome.append((event.cell.key, event.what))

    def ready(self) -> bool:
        """Say that the crew is there."""
        return True

    def measure(self, job: Job) -> Outcome | str:
        """Measure `job`; what was made, or why the store cannot be written."""
        self._outcome = []
        try:
            self._engine.work_off([job])
        except StoreError as error:
            return str(error)
        return self._outcome


class RayEngine:
    """Crews all over a Ray cluster, and their jobs; `book` is told what becomes of them."""

    def __init__(self, means: EngineContext, book: RunLedger) -> None:
        self._ray = connect(means.options.address)
        self._means = means
        self._book = book
        self._queue: deque[Job] = deque()
        self._crews: dict[Any, Any] = {}  # what is awaited of a crew -> the crew
        self._jobs: dict[Any, Job] = {}  # what is awaited of a crew -> its job, if it has one
        self._lost: dict[str, int] = {}

    def work_off(self, jobs: Sequence[Job]) -> None:
        """Go on until every job is done. Raises `StoreError`, `InputError` when no crew starts."""
        self._queue = deque(jobs)
        for _ in range(min(len(jobs), self._places())):
            self._hire()
        while self._queue or self._jobs:
            ready, _ = self._ray.wait(list(self._crews), timeout=None if self._jobs else STARTUP_S)
            if not ready:
                raise InputError(
                    f"no node of the Ray cluster could start a worker in {STARTUP_S:g} s; expected "
                    f"{self._needs()} to be free on some node"
                )
            self._hear(ready[0])

    def close(self) -> None:
        """End all crews."""
        for crew in self._crews.values():
            self._ray.kill(crew)
        self._crews.clear()

    def _needs(self) -> dict[str, float]:
        """Resources of one crew: a GPU, or the cores of a worker."""
        if self._means.options.devices[0] == "cpu":
            return {"num_cpus": 1, "num_gpus": 0}
        return {"num_cpus": 1, "num_gpus": 1 / self._means.options.workers}

    def _places(self) -> int:
        """Crews that the cluster has room for now."""
        have, needs = self._ray.cluster_resources(), self._needs()
        if needs["num_gpus"]:
            return max(1, int(have.get("GPU", 0) / needs["num_gpus"]))
        return max(1, int(have.get("CPU", 0)))

    def _hire(self) -> None:
        """Ask for one more crew; Ray puts it where there is room."""
        options = self._means.options
        device = (
            "cpu" if options.devices[0] == "cpu" else "cuda:0"
        )  # Ray shows a crew its GPU alone
        means = replace(
            self._means, options=replace(options, devices=(device,), workers=1, engine="local")
        )
        crew = (
            self._ray.remote(MeasuringActor).options(**self._needs(), max_restarts=0).remote(means)
        )
        self._crews[crew.ready.remote()] = crew

    def _hear(self, answer: Any) -> None:
        """Take what a crew says, and give it its next job."""
        crew, job = self._crews.pop(answer), self._jobs.pop(answer, None)
        try:
            said = self._ray.get(answer)
        except self._ray.exceptions.RayError as error:
            self._bereft(job, error)
            return
        if isinstance(said, str):
            raise StoreError(said)
        if job is not None:
            for key, status in said:
                self._book.kept("ray", job, key, status)
        self._dispatch(crew)

    def _dispatch(self, crew: Any) -> None:
        if not self._queue:
            self._ray.kill(crew)
            return
        job = self._queue.popleft()
        self._book.report(Event("begin", "ray", job))
        answer = crew.measure.remote(job)
        self._crews[answer], self._jobs[answer] = crew, job

    def _bereft(self, job: Job | None, error: Exception) -> None:
        """Give the job of a crew that is gone to another, less what it had finished."""
        if job is not None:
            rest = self._unfinished(job)
            for cell in rest.cells:
                self._lost[cell.key] = self._lost.get(cell.key, 0) + 1
            often = {c.key for c in rest.cells if self._lost[c.key] > RESTARTS}
            text = f"its node was lost {RESTARTS + 1} times: {str(error).splitlines()[0]}"
            self._book.fail("ray", rest.only(often), Failure(kind="died", message=text))
            rest = rest.without(often)
            if rest.cells:
                self._queue.appendleft(rest)
        if self._queue:
            self._hire()

    def _unfinished(self, job: Job) -> Job:
        """The job less what a lost crew had finished, which is counted; failed ones may be old."""
        found = self._book.store.find([cell.key for cell in job.cells])
        done = {key: r.status for key, r in found.items() if r.status != "failed"}
        for key, status in done.items():
            self._book.kept("ray", job, key, status)
        return job.without(done)


def connect(address: str | None) -> Any:
    """Ray itself, connected to `address`, to RAY_ADDRESS, or to a new cluster on this machine.

    Usage reporting is off unless the user has said otherwise. Raises `InputError` where Ray is not
    installed or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise InputError(
            "the engine 'ray' needs Ray; install it with `pip install 'perimetry[ray]'`"
        ) from error
    if not ray.is_initialized():
        try:
            ray.init(address=address, log_to_driver=False, include_dashboard=False)
        except (ConnectionError, ValueError) as error:
            raise InputError(
                f"no Ray cluster at {address!r}: {error}; expected HOST:PORT, or 'auto'"
            ) from error
    return ray
