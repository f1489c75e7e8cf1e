"""Train what this folder publishes, and write it: `python results/training/publish.py RUN_DIR IDX`.

IDX is a folder with the four files of Fashion-MNIST (Debian has them as `dataset-fashion-mnist`, in
/usr/share/datasets/fashion-mnist). The command goes on where it was stopped; `--budget MINUTES`
stops it. Seeds come outermost, so that what is done is done for all variants. Written: README.md,
board.csv, seeds.csv, packed records and pictures; with `--samples` the ONNX files of
bench/sample_models, too.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from perimetry import leaderboard
from perimetry.bench.records.archive import open_records, pack_records
from perimetry.bench.records.store import Store
from perimetry.bench.training.experiment import Experiment, Recipe, TrainingRun
from perimetry.bench.training.figures import draw_curves, draw_panel
from perimetry.bench.training.report import with_interval
from perimetry.bench.training.study import TrainingStudy
from perimetry.bench.training.trainer import Clock

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perimetry.bench.records.record import Record

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from paired import KIM, MICRO, ORDINARY, change, number, verdict, with_star  # noqa: E402
from publishing import days, filled, table  # noqa: E402

SAMPLES = HERE.parents[1] / "bench" / "sample_models"
SHIPPED = ((MICRO, ("none", "zero", "box")), (ORDINARY, ("none", "zero")))
"""The variants of seed 0 that ship with the package."""
PACKED = ("records", "smaller")
FILLS = ("none", "zero", "fresh", "box")
SEEDS = {"micro_object": 10, "classification": 4}
"""More where seeds differ more."""
SMALLER = {"fills": ("none", "zero"), "seeds": 2, "side": 2, "train": 2048}
"""A second, harder micro-object study: boxes of 2 x 2 pixels."""


def studies(out: Path, idx: Path) -> list[TrainingStudy]:
    """Both tasks, each with its own data, and the one with smaller boxes."""
    micro = Experiment(
        network="tiny-resnet",
        tasks=(MICRO,),
        fills=FILLS,
        seeds=SEEDS[MICRO],
        size=(40, 40),
        train=1024,
        test=512,
        side=3,
        recipe=Recipe(epochs=14, batch=32, rate=0.03),
    )
    ordinary = Experiment(
        network="tiny-resnet",
        tasks=(ORDINARY,),
        fills=FILLS,
        seeds=SEEDS[ORDINARY],
        data=str(idx),
        size=(40, 40),
        train=4096,
        test=2000,
        recipe=Recipe(epochs=8, batch=64, rate=0.05),
    )
    smaller = replace(micro, **SMALLER, recipe=replace(micro.recipe, epochs=16))
    return [
        TrainingStudy(experiment, out, device="cpu") for experiment in (micro, ordinary, smaller)
    ]


def train(held: list[TrainingStudy], clock: Clock) -> bool:
    """Train every variant that is not done, seed by seed; whether all are done now."""
    every = [(variant, study) for study in held for variant in study.runs()]
    whole = True
    for variant, study in sorted(every, key=lambda pair: pair[0].seed):
        done = not clock.spent() and study.run(variant, clock, lambda _share: None) is not None
        sys.stderr.write(f"{'done' if done else 'not done'}: {variant.label}\n")
        whole &= done
    return whole


def publish(records: list[Record], smaller: list[Record]) -> None:
    """Write everything but the samples."""
    for name, held in zip(PACKED, (records, smaller), strict=True):
        with tempfile.TemporaryDirectory() as folder:
            store = Store(folder)
            for record in held:
                store.put(record)
            pack_records(store, HERE / f"{name}.jsonl.gz")
    leaderboard(records).to_csv(HERE / "board.csv", index=False)
    seeds = [
        {"task": record.protocol, "box": record.settings["side"], "fill": record.fill, **row}
        for record in records + smaller
        for row in record.tables["seeds"]
    ]
    pd.DataFrame(seeds).round(6).to_csv(HERE / "seeds.csv", index=False)
    for task in SEEDS:
        own = [record for record in records if record.protocol == task]
        draw_curves(own, task, HERE / f"{task}.curves.png")
        draw_panel(own, HERE / f"{task}.maps.png")
    (HERE / "README.md").write_text(render(), encoding="utf-8")


def of_task(records: list[Record], task: str) -> list[Record]:
    """The variants of one task in the order of `FILLS`."""
    return sorted((r for r in records if r.protocol == task), key=lambda r: FILLS.index(r.fill))


def values(records: list[Record], task: str, metrics: Iterable[str]) -> str:
    """A line a metric, a column a variant."""
    own = of_task(records, task)
    lines = [[f"`{m}`", *(with_interval(r.metrics[m]) for r in own)] for m in metrics]
    return table(("mean over seeds", *(f"`{r.fill}`" for r in own)), lines)


def changes(records: list[Record], task: str, metrics: Iterable[str]) -> str:
    """A line a metric, a column a padded network: its difference from the untreated one."""
    plain, *treated = of_task(records, task)
    lines = [[f"`{m}`", *(with_star(change(r, plain, m)) for r in treated)] for m in metrics]
    return table(("less `none`, paired", *(f"`{r.fill}`" for r in treated)), lines)


def verdicts(records: list[Record]) -> str:
    """Kim et al.'s two findings against each variant, by the paired interval alone."""
    lines = []
    for (task, metric), (words, size, relative) in KIM.items():
        plain, *treated = of_task(records, task)
        kim = size * (plain.metrics[metric].value if relative else 1.0)
        for record in treated:
            found = change(record, plain, metric)
            cells = (
                words,
                f"`{record.fill}`",
                f"{kim:+.3f}",
                with_star(found),
                verdict(found, kim),
            )
            lines.append(list(cells))
    heads = (
        "Kim et al. with kernel padding",
        "variant",
        "as large here",
        "found, less `none`",
        "verdict",
    )
    return table(heads, lines)


def by_seed(records: list[Record]) -> str:
    """Epochs to 90 % of every seed."""
    own = of_task(records, MICRO)
    lines = [
        [f"`{r.fill}`", *(number(row["epochs_to_90"]) for row in r.tables["seeds"])] for r in own
    ]
    return table(("seed", *(str(row["seed"]) for row in own[0].tables["seeds"])), lines)


def render() -> str:
    """README.md from its template and the packed records; every number in a table is computed."""
    records, smaller = (open_records(HERE / f"{name}.jsonl.gz").records() for name in PACKED)
    first = records[0]
    minutes = sum(record.timing.measure_s for record in records + smaller) / 60
    speed = ("epochs_to_90", "reached_90", "mean_accuracy", "accuracy")
    phase = ("phase_weakest", "phase_spread", "phase_agreement")
    along = ("weakest_start", "weakest_end", "imbalance_start", "imbalance_end")
    field = ("erf_start", "erf_end")
    parts = {
        "verdicts": verdicts(records),
        "by_seed": by_seed(records),
        "by_seed_smaller": by_seed(smaller),
        "micro": values(records, MICRO, (*speed, *phase)),
        "micro_changes": changes(records, MICRO, ("epochs_to_90", "mean_accuracy", "accuracy")),
        "smaller": values(smaller, MICRO, speed[1:]),
        "ordinary": values(records, ORDINARY, ("accuracy", "mean_accuracy")),
        "ordinary_changes": changes(records, ORDINARY, ("accuracy", "mean_accuracy")),
        "micro_ends": values(records, MICRO, (*along, *field)),
        "ordinary_ends": values(records, ORDINARY, (*along, *field)),
        "seeds_micro": str(first_members(records, MICRO)),
        "seeds_ordinary": str(first_members(records, ORDINARY)),
        "seeds_smaller": str(first_members(smaller, MICRO)),
        **first_epoch(records),
        "torch": first.environment.libraries["torch"],
        "date": days([*records, *smaller]),
        "version": first.version,
        "minutes": f"{minutes:.0f}",
        "cpu": first.environment.device_name,
    }
    return filled(HERE, parts)


def first_epoch(records: list[Record]) -> dict[str, str]:
    """What one epoch of micro-object does to the network without padding."""
    plain = of_task(records, MICRO)[0]
    before, after = plain.tables["along"][:2]
    accuracy = plain.tables["curve"][0]["accuracy"]
    return {
        "untrained": f"{before['imbalance']:.2f}",
        "one_epoch": f"{after['imbalance']:.2f}",
        "chance": f"{accuracy:.2f}",
    }


def first_members(records: list[Record], task: str) -> int | None:
    """How many seeds stand behind a task."""
    return of_task(records, task)[0].model.members


def ship(held: list[TrainingStudy]) -> None:
    """Copy the variants that ship with the package to where it keeps them."""
    for study, (task, fills) in zip(held, SHIPPED, strict=False):
        for fill in fills:
            path = study.model_path(TrainingRun(task, fill, 0))
            shutil.copy(path, SAMPLES / f"{path.name.partition('.')[0]}.onnx")


def main() -> None:
    """Train, then publish."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path, metavar="RUN_DIR")
    parser.add_argument("idx", type=Path, metavar="IDX")
    parser.add_argument("--budget", type=float, metavar="MINUTES")
    parser.add_argument("--samples", action="store_true")
    given = parser.parse_args()
    held = studies(given.out, given.idx)
    if not train(held, Clock(None if given.budget is None else 60 * given.budget)):
        sys.exit("the budget ended; the same command goes on from here")
    found = [study.train().records for study in held]
    publish(found[0] + found[1], found[2])
    if given.samples:
        ship(held)


if __name__ == "__main__":
    main()
