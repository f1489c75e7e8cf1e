"""Write this folder from finished studies: `python results/fine-tuning/publish.py RUN_DIR`.

RUN_DIR holds the folders that run.sh makes, one for each network and task. Written:
records.jsonl.gz (packed records), seeds.csv (every number of every seed), a picture of each
network's curves, README.md. Without RUN_DIR the README alone is written again, from the records.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.stats import t as student

from perimetry import load_records
from perimetry.adapters.reference import Reference
from perimetry.bench.records.archive import open_records, pack_records
from perimetry.bench.records.store import Store
from perimetry.bench.training.figures import draw_curves
from perimetry.bench.training.report import with_interval

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent))
from paired import KIM, MICRO, ORDINARY, change, number, verdict, with_star  # noqa: E402
from publishing import days, filled, reflow, table  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterable

    from perimetry.bench.records.record import Record

SPEED = ("epochs_to_90", "reached_90", "mean_accuracy", "accuracy")
ALONG = ("weakest_start", "weakest_end", "imbalance_start", "imbalance_end", "erf_start", "erf_end")


POWER = 2.8
"""Standard errors that a difference must have to be shown at 95 % in four of five studies."""
MOST = 1000


def architecture(record: Record) -> str:
    """The network as timm names it."""
    return Reference.parse_any(record.model.reference).tagged_name


def pairs(records: list[Record]) -> dict[tuple[str, str], tuple[Record, Record]]:
    """Of each network and task: the record with kernel padding `zero`, and the one without."""
    found = {(architecture(r), r.protocol, r.fill): r for r in records}
    names = sorted({name for name, _, _ in found})
    return {
        (name, task): (found[name, task, "zero"], found[name, task, "none"])
        for task in (MICRO, ORDINARY)
        for name in names
        if (name, task, "zero") in found
    }


def verdicts(records: list[Record]) -> str:
    """Kim et al.'s two findings against each network, by the paired interval alone."""
    lines = []
    for (name, task), (padded, plain) in pairs(records).items():
        metric = next(m for t, m in KIM if t == task)
        words, size, relative = KIM[task, metric]
        kim = size * (epochs(plain) if relative else 1.0)
        found = change(padded, plain, metric)
        seeds = str(len(plain.settings["seeds"]))
        lines.append(
            [words, f"`{name}`", seeds, f"{kim:+.3f}", with_star(found), verdict(found, kim)]
        )
    heads = ("Kim et al. with kernel padding", "network", "seeds", "as large here")
    return table((*heads, "found, `zero` less `none`", "verdict"), lines)


def epochs(plain: Record) -> float:
    """Mean epochs to 90 %; one that never got there counts as the first that was not trained."""
    never = len(plain.tables["curve"]) + 1
    return float(np.mean([row["epochs_to_90"] or never for row in plain.tables["seeds"]]))


def findings(records: list[Record]) -> str:
    """A sentence a pair, and one on the phases before and after."""
    found = []
    for (name, task), (padded, plain) in pairs(records).items():
        metric = next(m for t, m in KIM if t == task)
        difference = with_star(change(padded, plain, metric))
        if task == MICRO:
            text = f"gets to 90 % after {epochs(plain):.1f} epochs, with `zero` after "
            text += f"{epochs(padded):.1f}: {difference} ({_seeds_to_tell(padded, plain)})"
        else:
            one, other = (r.metrics[metric].value for r in (plain, padded))
            text = f"has an accuracy of {one:.3f}, with `zero` {other:.3f}: {difference}"
        found.append(f"- `{name}`, {task.replace('_', '-')}, {text}.")
    for (name, task), (padded, plain) in pairs(records).items():
        if task == MICRO:
            start, end, other = (
                r.metrics[f"weakest_{when}"].value
                for r, when in ((plain, "start"), (plain, "end"), (padded, "end"))
            )
            found.append(
                f"- The least sensitive phase of `{name}` gets {start:.2f} of the mean before "
                f"fine-tuning, {end:.2f} after, and {other:.2f} with `zero`."
            )
    return "\n".join(found)


def _seeds_to_tell(padded: Record, plain: Record) -> str:
    """How many seeds would show a difference as large as the one found, in four of five studies."""
    value, low, high = change(padded, plain, "epochs_to_90")
    if low * high > 0:
        return "shown"
    count = len(plain.settings["seeds"])
    spread = (high - low) / 2 / student.ppf(0.975, count - 1) * count**0.5
    needed = (POWER * spread / value) ** 2 if value else np.inf
    return f"about {needed:.0f} seeds would show it" if needed < MOST else "too small to tell"


def by_seed(records: list[Record], task: str, metric: str, digits: int) -> str:
    """One number of every seed, without and with kernel padding."""
    lines = []
    for (name, own), both in pairs(records).items():
        if own == task:
            for record in reversed(both):
                cells = [row[metric] for row in record.tables["seeds"]]
                shown = [number(c) if digits == 0 else f"{c:.{digits}f}" for c in cells]
                lines.append([f"`{name}`", f"`{record.fill}`", *shown])
    most = max(len(line) for line in lines) - 2
    heads = ("network", "kernel padding", *(f"seed {seed}" for seed in range(most)))
    return table(heads, lines)


def values(records: list[Record], task: str, metrics: tuple[str, ...]) -> str:
    """A line a network and metric: without, with, and the paired difference."""
    lines = [
        [
            f"`{name}`",
            f"`{metric}`",
            with_interval(plain.metrics[metric]),
            with_interval(padded.metrics[metric]),
            with_star(change(padded, plain, metric)),
        ]
        for (name, own), (padded, plain) in pairs(records).items()
        if own == task
        for metric in metrics
    ]
    return table(("network", "mean over seeds", "`none`", "`zero`", "`zero` less `none`"), lines)


def render() -> str:
    """README.md from its template and the packed records; every number in a table is computed."""
    records = open_records(HERE / "records.jsonl.gz").records()
    first = records[0]
    parts = {
        "verdicts": verdicts(records),
        "findings": findings(records),
        "by_seed": by_seed(records, MICRO, "epochs_to_90", 0),
        "final_by_seed": by_seed(records, MICRO, "accuracy", 3),
        "micro": values(records, MICRO, SPEED),
        "micro_along": values(records, MICRO, ALONG),
        "ordinary": values(records, ORDINARY, ("accuracy", "mean_accuracy")),
        "ordinary_along": values(records, ORDINARY, ALONG),
        "curves": "\n".join(
            f"![{name}: accuracy, dead pixels and ERF along training]({name}.png)"
            for name, task in pairs(records)
            if task == MICRO
        ),
        "minutes": f"{sum(r.timing.measure_s for r in records) / 60:.0f}",
        "torch": first.environment.libraries["torch"],
        "timm": first.environment.libraries["timm"],
        "cpu": first.environment.device_name,
        "date": days(records),
    }
    return reflow(filled(HERE, parts))


def largest(records: Iterable[Record]) -> list[Record]:
    """Of each network, task and kernel padding the record of the most seeds."""
    by_size = sorted(records, key=lambda r: len(r.settings["seeds"]))
    return list({(architecture(r), r.protocol, r.fill): r for r in by_size}.values())


def publish(folder: Path) -> None:
    """Pack the records of all studies below `folder`, and draw their curves."""
    records = largest(r for path in sorted(folder.iterdir()) for r in load_records(path))
    with tempfile.TemporaryDirectory() as scratch:
        store = Store(scratch)
        for record in records:
            store.put(record)
        pack_records(store, HERE / "records.jsonl.gz")
    rows = [
        {"network": architecture(r), "task": r.protocol, "fill": r.fill, **row}
        for r in records
        for row in r.tables["seeds"]
    ]
    pd.DataFrame(rows).round(6).to_csv(HERE / "seeds.csv", index=False)
    for (name, task), both in pairs(records).items():
        if task == MICRO:
            draw_curves(list(reversed(both)), task, HERE / f"{name}.png")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        publish(Path(sys.argv[1]))
    (HERE / "README.md").write_text(render(), encoding="utf-8")
