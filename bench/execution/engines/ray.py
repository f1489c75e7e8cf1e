"""The Ray engine: the same measuring on every node of a cluster (extra `perimetry[ray]`).

Each Ray actor uses one device of a node and runs the local engine for it, so a crash, a hang or an
out-of-memory kill affects one model there too. When a node is lost, its jobs go to other nodes,
less the records that are in the store already: nothing is lost and nothing finished is measured
again. All nodes write to one shared folder.
"""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ....adapters.errors import InputError
from ...output.files import StoreError
from ...records.parts import Failure
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
"""How long to wait for the first actor, or for another when all are lost."""

Outcome = list[tuple[str, str]]
"""Keys of the records that an actor made, and their statuses."""


class MeasuringActor:
    """Measures jobs on one device of one node; the body of a Ray actor."""

    def __init__(self, context: EngineContext) -> None:
        self._outcome: Outcome = []
        store, retries = Store(context.folder), context.options.retries
        ledger = RunLedger(store, context.settings, Summary(), self._note, retries)
        self._engine = LocalEngine(context, ledger)

    def _note(self, event: Event) -> None:
        if event.cell is not None:
            self._outcome.append((event.cell.key, event.what))

    def ready(self) -> bool:
        """Return once the actor has started."""
        return True

    def measure(self, job: Job) -> Outcome | str:
        """Measure `job`; the records made, or why the store cannot be written."""
        self._outcome = []
        try:
            self._engine.run([job])
        except StoreError as error:
            return str(error)
        return self._outcome


class RayEngine:
    """The actors of a Ray cluster, and their jobs; `ledger` counts their records."""

    def __init__(self, context: EngineContext, ledger: RunLedger) -> None:
        self._ray = connect(context.options.address)
        self._context = context
        self._ledger = ledger
        self._queue: deque[Job] = deque()
        self._actors: dict[Any, Any] = {}  # awaited result -> the actor that computes it
        self._jobs: dict[Any, Job] = {}  # awaited result -> the job of that actor, if it has one
        self._lost: dict[str, int] = {}

    def run(self, jobs: Sequence[Job]) -> None:
        """Measure every job. Raises `StoreError`, and `InputError` when no actor starts."""
        self._queue = deque(jobs)
        for _ in range(min(len(jobs), self._capacity())):
            self._start_actor()
        while self._queue or self._jobs:
            ready, _ = self._ray.wait(list(self._actors), timeout=None if self._jobs else STARTUP_S)
            if not ready:
                raise InputError(
                    f"no node of the Ray cluster could start a worker in {STARTUP_S:g} s; expected "
                    f"{self._needs()} to be free on some node"
                )
            self._receive(ready[0])

    def close(self) -> None:
        """End all actors."""
        for actor in self._actors.values():
            self._ray.kill(actor)
        self._actors.clear()

    def _needs(self) -> dict[str, float]:
        """Resources of one actor: a GPU, or the cores of a worker."""
        if self._context.options.device_kind == "cpu":
            return {"num_cpus": 1, "num_gpus": 0}
        return {"num_cpus": 1, "num_gpus": 1 / self._context.options.workers}

    def _capacity(self) -> int:
        """The number of actors that the cluster has room for now."""
        have, needs = self._ray.cluster_resources(), self._needs()
        if needs["num_gpus"]:
            return max(1, int(have.get("GPU", 0) / needs["num_gpus"]))
        return max(1, int(have.get("CPU", 0)))

    def _start_actor(self) -> None:
        """Request one more actor; Ray places it where there is room."""
        options = self._context.options
        # Ray shows an actor its own GPU alone, as cuda:0
        device = "cpu" if options.device_kind == "cpu" else "cuda:0"
        options = replace(options, device=device, workers=1, engine="local", progress=False)
        actor_class = self._ray.remote(MeasuringActor).options(**self._needs(), max_restarts=0)
        actor = actor_class.remote(replace(self._context, options=options))
        self._actors[actor.ready.remote()] = actor

    def _receive(self, awaited: Any) -> None:
        """Take the result of an actor, and give it its next job."""
        actor, job = self._actors.pop(awaited), self._jobs.pop(awaited, None)
        try:
            result = self._ray.get(awaited)
        except self._ray.exceptions.RayError as error:
            self._actor_lost(job, error)
            return
        if isinstance(result, str):
            raise StoreError(result)
        if job is not None:
            for key, status in result:
                self._ledger.written("ray", job, key, status)
        self._dispatch(actor)

    def _dispatch(self, actor: Any) -> None:
        if not self._queue:
            self._ray.kill(actor)
            return
        job = self._queue.popleft()
        self._ledger.report(Event("begin", "ray", job))
        awaited = actor.measure.remote(job)
        self._actors[awaited], self._jobs[awaited] = actor, job

    def _actor_lost(self, job: Job | None, error: Exception) -> None:
        """Queue the job of an actor that was lost again, less what it had finished."""
        if job is not None:
            rest = self._unfinished(job)
            for cell in rest.cells:
                self._lost[cell.key] = self._lost.get(cell.key, 0) + 1
            often = {c.key for c in rest.cells if self._lost[c.key] > RESTARTS}
            text = f"its node was lost {RESTARTS + 1} times: {str(error).splitlines()[0]}"
            self._ledger.fail("ray", rest.only(often), Failure(kind="died", message=text))
            rest = rest.without(often)
            if rest.cells:
                self._queue.appendleft(rest)
        if self._queue:
            self._start_actor()

    def _unfinished(self, job: Job) -> Job:
        """The job less what a lost actor had finished, which is counted; failed ones may be old."""
        found = self._ledger.store.find([cell.key for cell in job.cells])
        done = {key: r.status for key, r in found.items() if r.status != "failed"}
        for key, status in done.items():
            self._ledger.written("ray", job, key, status)
        return job.without(done)


def connect(address: str | None) -> Any:
    """Ray itself, connected to `address`, to RAY_ADDRESS, or to a new cluster on this machine.

    Raises `InputError` where Ray is not installed or there is no cluster. Importing `perimetry` has
    switched Ray's usage reports off.
    """
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
