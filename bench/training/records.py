"""Records of training: one for each task and kernel padding, over the finished seeds."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ...adapters.treatment import UNTOUCHED
from ...suites.training.suite import TRAINING
from ...suites.training.summary import summarise
from ..records.environment import environment
from ..records.record import ImagesInfo, ModelInfo, Record, Timing, Value, to_json_value

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ...suites.base import Measurement
    from .experiment import FinishedRun, StudyFacts, TrainingRun


def make_records(study: StudyFacts, done: Mapping[TrainingRun, FinishedRun]) -> Iterator[Record]:
    """The record of each task and fill; none for a task without a seed that all fills finished."""
    from .experiment import TrainingRun

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
    study: StudyFacts,
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


def _model(study: StudyFacts, run: FinishedRun, members: int) -> ModelInfo:
    spec, treatment = run.spec, run.treatment
    layers = [to_json_value(vars(layer)) for layer in treatment.layers]
    return ModelInfo(
        reference=study.experiment.network,
        source={"runtime": "torch", "weights": "trained for this record"},
        spec=to_json_value(vars(spec)),
        spec_sha256=spec.digest(),
        treatment={"fill": treatment.fill, "layers": layers, "left": dict(treatment.refused_layers)}
        if treatment.fill != "none"
        else None,
        members=members,
    )


def _notes(study: StudyFacts, first: TrainingRun, run: FinishedRun, seeds: list[int]) -> list[str]:
    """Notes on unfinished seeds and untouched networks."""
    asked = study.experiment.seeds
    notes = [f"{len(seeds)} of {asked} seeds are done: the budget ended"]
    notes = notes if len(seeds) < asked else []
    if first.fill != "none" and not run.treatment.layers:
        notes.append(UNTOUCHED)
    return notes
