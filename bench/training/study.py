"""`perimetry train`: networks with and without kernel padding, over several seeds, on two tasks.

All runs are planned first. The outermost loop is over seeds, so that an interrupted study has whole
seeds; records are made of the seeds that all fills of a task have finished. Everything is in one
folder, from which the same command resumes: `checkpoints` (one file per run), `records`, `models`
(trained networks as ONNX files) and `pictures`.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...adapters.reference import Reference
from ...adapters.treatment import UNTOUCHED
from ...suites.training.data import DEFAULT_SIZE, TrainingSet, open_training_set
from ...suites.training.suite import TRAINING
from ...suites.training.summary import summarise
from ...suites.training.tasks import Task, open_task
from ..records.environment import STACK, environment, versions
from ..records.hashing import file_sha256
from ..records.parts import ImagesInfo, ModelInfo, Timing, Value, to_json_value, treatment_data
from ..records.record import Record
from .experiment import DEFAULT_DATA, FinishedRun, Result, TrainingRun
from .trainer import Clock, Trainer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

    from ...adapters.trainable import Trainable
    from ...suites.base import Measurement
    from .experiment import Experiment


class TrainingStudy:
    """An experiment in a folder: its data, its plan and its runs."""

    def __init__(self, experiment: Experiment, out: Path, *, device: str = "auto") -> None:
        """Open the data. Raises subclasses of `PerimetryError` for data that cannot be used."""
        from ...adapters.device import pick_device

        self.experiment, self.out = experiment, out
        self.device: torch.device = pick_device(device)
        self.data: dict[str, TrainingSet] = {}
        opened: dict[str, TrainingSet] = {}
        for task in experiment.tasks:
            name = experiment.data or DEFAULT_DATA[task]
            if name not in opened:
                opened[name] = self._open(name)
            self.data[task] = opened[name]
        self.tasks = {task: self._task(task) for task in experiment.tasks}

    def _open(self, name: str) -> TrainingSet:
        wanted = self.experiment
        default = (DEFAULT_SIZE, DEFAULT_SIZE) if wanted.data is None else None
        return open_training_set(
            name, size=wanted.size or default, train=wanted.train, test=wanted.test
        )

    def _task(self, name: str) -> Task:
        from .probe import stride_of

        data, period = self.data[name], (1, 1)
        if name == "micro_object":
            network = self.network(name, self.experiment.first_seed)
            period = stride_of(network.module, network.spec)
        return open_task(name, data, period=period, side=self.experiment.side)

    def network(self, task: str, seed: int) -> Trainable:
        """The network before any padding, which all fills share."""
        from ...adapters.trainable import open_trainable

        classes = 2 if task == "micro_object" else len(self.data[task].classes)
        return open_trainable(self.experiment.network, classes, self.data[task].size, seed=seed)

    def runs(self) -> list[TrainingRun]:
        """All runs in their order."""
        first = self.experiment.first_seed
        return [
            TrainingRun(task, fill, seed)
            for seed in range(first, first + self.experiment.seeds)
            for task in self.experiment.tasks
            for fill in self.experiment.fills
        ]

    def settings(self, task: str) -> dict[str, Any]:
        """Everything that can change the numbers of a task, except fill and seed."""
        experiment, data = self.experiment, self.data[task]
        return {
            "images_sha256": data.digest(),
            "train": len(data.train),
            "size": list(data.size),
            "side": experiment.side if task == "micro_object" else None,
            **asdict(experiment.recipe),
        }

    def key(self, task: str, *rest: Any) -> str:
        """Sha256 of everything that can change the numbers of `task` and `rest`."""
        known = [self.experiment.network, task, self.settings(task), self.device.type]
        weights = Reference.parse_any(self.experiment.network).file
        digest = file_sha256(weights) if weights else ""
        text = json.dumps([*known, digest, versions(STACK), *rest])
        return hashlib.sha256(text.encode()).hexdigest()

    def checkpoint(self, run: TrainingRun) -> Path:
        """Where the checkpoint of a run is, or would be."""
        key = self.key(run.task, run.fill, run.seed)
        name = f"{run.task}.{run.fill}.seed{run.seed}.{key[:12]}.safetensors"
        return self.out / "checkpoints" / name

    def run(
        self, run: TrainingRun, clock: Clock, report: Callable[[float], None]
    ) -> FinishedRun | None:
        """Train one network, or resume it; None if the time limit is reached first."""
        from ...adapters.trainable import pad_trainable

        network = self.network(run.task, run.seed)
        treatment = pad_trainable(network, run.fill, seed=run.seed)
        trainer = Trainer(
            network,
            self.tasks[run.task],
            self.experiment.recipe,
            seed=run.seed,
            path=self.checkpoint(run),
            images=len(self.data[run.task].train),
            device=self.device,
            report=report,
        )
        history = trainer.run(clock)
        if history is None:
            return None
        return FinishedRun(history, treatment, trainer.seconds, network.spec, network.module)

    def train(
        self,
        clock: Clock | None = None,
        report: Callable[[TrainingRun, float], None] = lambda _run, _share: None,
    ) -> Result:
        """Train the remaining runs within the time limit, export networks, write the records.

        `report` gets the share of each run that is done. Raises as `Trainer.run` does; finished
        runs stay.
        """
        from ..records.store import Store

        clock = clock or Clock()
        store = Store(self.out)
        done: dict[TrainingRun, FinishedRun] = {}
        remaining: list[TrainingRun] = []
        for run in self.runs():
            found = None
            if not clock.spent() or self.checkpoint(run).exists():
                report(run, 0.0)
                found = self.run(run, clock, partial(report, run))
            if found is None:
                remaining.append(run)
                continue
            self._export(run, found)
            done[run] = replace(found, module=None)
            report(run, 1.0)
        records = list(make_records(self, done))
        for record in records:
            store.put(record)
        return Result(records, remaining)

    def whole_seeds(self, done: dict[TrainingRun, FinishedRun], task: str) -> list[int]:
        """The seeds for which all runs of `task` are done."""
        first = self.experiment.first_seed
        return [
            seed
            for seed in range(first, first + self.experiment.seeds)
            if all(TrainingRun(task, fill, seed) in done for fill in self.experiment.fills)
        ]

    def model_path(self, run: TrainingRun) -> Path:
        """The path of the ONNX file of a trained network."""
        network = Reference.parse_any(self.experiment.network).tagged_name
        key = self.key(run.task, run.fill, run.seed)
        name = f"{network}-{run.task.replace('_', '-')}-{run.fill}-seed{run.seed}"
        return self.out / "models" / f"{name}.{key[:8]}.onnx"

    def _export(self, run: TrainingRun, found: FinishedRun) -> None:
        """Write the networks of the first seeds as ONNX files if they do not exist yet."""
        import torch

        from ...adapters.export import export_onnx

        path, first = self.model_path(run), self.experiment.first_seed
        if found.module is None or run.seed >= first + self.experiment.export or path.exists():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        module = found.module.cpu().eval().to(memory_format=torch.contiguous_format)
        export_onnx(module, found.spec.blank(), path, spec=found.spec)


def pairs(records: list[Record]) -> Iterator[tuple[Record, Record]]:
    """Each record with kernel padding, and that without padding of its task."""
    plain = {r.protocol: r for r in records if r.fill == "none"}
    for record in records:
        if record.fill != "none" and record.protocol in plain:
            yield record, plain[record.protocol]


def make_records(study: TrainingStudy, done: Mapping[TrainingRun, FinishedRun]) -> Iterator[Record]:
    """The record of each task and fill; none for a task without a seed that all fills finished."""
    experiment = study.experiment
    for task in experiment.tasks:
        seeds = study.whole_seeds(dict(done), task)
        if not seeds:
            continue
        for fill in experiment.fills:
            runs = [done[TrainingRun(task, fill, seed)] for seed in seeds]
            found = summarise(
                [run.history for run in runs], task, side=experiment.side, draws=experiment.draws
            )
            yield _record(study, TrainingRun(task, fill, seeds[0]), seeds, runs, found)


def _record(
    study: TrainingStudy,
    first: TrainingRun,
    seeds: list[int],
    runs: list[FinishedRun],
    found: Measurement,
) -> Record:
    """The record of the runs of one task and fill; `first` is that of the first of `seeds`."""
    data = study.data[first.task]
    draws = {n: e.draws for n, e in found.metrics.items() if e.draws is not None}
    record = Record(
        key=study.key(first.task, first.fill, seeds, study.experiment.draws),
        status="ok",
        model=_model(study, runs[0], len(seeds)),
        fill=first.fill,
        suite=TRAINING.name,
        protocol=first.task,
        version=TRAINING.protocols[first.task],
        settings=to_json_value(
            {**study.settings(first.task), "seeds": seeds, "draws": study.experiment.draws}
        ),
        seed=first.seed,
        images=ImagesInfo(name=data.name, count=len(data.test), sha256=data.digest()),
        metrics={name: Value.of(estimate) for name, estimate in found.metrics.items()},
        tables=to_json_value(found.tables),
        map_names=sorted(found.maps),
        notes=_notes(study, first, runs[0], seeds),
        environment=environment(study.device),
        timing=Timing(measure_s=sum(run.seconds for run in runs)),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return record.attach((dict(found.maps), draws))


def _model(study: TrainingStudy, run: FinishedRun, members: int) -> ModelInfo:
    spec, treatment = run.spec, run.treatment
    return ModelInfo(
        reference=study.experiment.network,
        source={"runtime": "torch", "weights": "trained for this record"},
        spec=to_json_value(vars(spec)),
        spec_sha256=spec.digest(),
        treatment=treatment_data(treatment),
        members=members,
    )


def _notes(
    study: TrainingStudy, first: TrainingRun, run: FinishedRun, seeds: list[int]
) -> list[str]:
    """Notes on unfinished seeds and untouched networks."""
    asked = study.experiment.seeds
    notes = [f"{len(seeds)} of {asked} seeds are done: the budget ended"]
    notes = notes if len(seeds) < asked else []
    if first.fill != "none" and not run.treatment.layers:
        notes.append(UNTOUCHED)
    return notes
