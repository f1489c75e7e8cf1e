"""The noise floor: how much the numbers of an unchanged model vary, measured and stored.

The same model is measured four times with the settings of its baseline: twice identically, once
with another batch size, once with another number of threads. For every metric, map and stage the
floor is the largest difference of the last three from the first. The tolerances of `check` are at
least a multiple of it. It is stored next to the baseline, in `DIR/check` (`NAME.check` for a packed
file), with the fingerprint of the model.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..comparison.divergence import stage_differences
from ..comparison.fingerprint import NAME, beside
from ..execution.settings import default_batch
from ..output.files import StoreError, read_bounded, write_text
from ..records.environment import Environment
from ..records.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from ..execution.settings import RunOptions
    from ..records.record import Record


FILE = "noise.json"

MAX_BYTES = 2**26

Change = Annotated[float, Field(ge=0)]


class Floor(BaseModel):
    """The floor of one model variant: largest differences by metric, map and stage."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    metrics: dict[str, Change]
    maps: dict[str, Change]
    stages: dict[str, Change]
    runs: list[str]
    environment: Environment
    created: str


class Floors(BaseModel):
    """Floors by `REFERENCE FILL`."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="constants")
    floors: dict[str, Floor] = {}

    def find(self, reference: str, fill: str) -> Floor | None:
        """The floor of one variant, or None."""
        return self.floors.get(f"{reference} {fill}")


def read_floors(baseline: Path) -> Floors:
    """The floors of a baseline; empty if none were measured. Raises `StoreError`."""
    path = beside(baseline) / FILE
    if not os.path.lexists(path):
        return Floors()
    try:
        return Floors.model_validate_json(read_bounded(path, MAX_BYTES))
    except (ValidationError, OSError) as error:
        raise StoreError(
            f"{path} cannot be read as a noise floor; measure it again with `perimetry check "
            "--measure-noise`"
        ) from error


@contextlib.contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Compute on `count` threads, here and in processes started inside the context."""
    if count is None:
        yield
        return
    import torch

    before, variable = torch.get_num_threads(), os.environ.get("OMP_NUM_THREADS")
    torch.set_num_threads(count)
    os.environ["OMP_NUM_THREADS"] = str(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if variable is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = variable


def floor_of(runs: Mapping[str, Sequence[Record]]) -> Floor:
    """The floor of one variant: the largest differences of its runs from the first one."""
    (_, first), *others = runs.items()
    found: dict[str, dict[str, float]] = {"metrics": {}, "maps": {}, "stages": {}}
    for _, records in others:
        for a, b in paired(first, records):
            _update_maxima(found["metrics"], metric_changes(a, b))
            _update_maxima(found["maps"], map_changes(a, b))
            stages = stage_differences(a, b) if a.suite == NAME else []
            if not isinstance(stages, str):
                _update_maxima(found["stages"], {p.key: p.difference for p in stages})
    return Floor(
        **found,
        runs=list(runs),
        environment=first[0].environment,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def paired(first: Sequence[Record], second: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Finished records of one suite, protocol and fill, pair by pair."""
    others = {(r.suite, r.protocol, r.fill): r for r in second if r.status == "ok"}
    keys = [((r.suite, r.protocol, r.fill), r) for r in first if r.status == "ok"]
    return [(record, others[key]) for key, record in keys if key in others]


def metric_changes(a: Record, b: Record) -> dict[str, float]:
    """Absolute differences of the metrics that both have, by `SUITE:PROTOCOL.METRIC`."""
    found = {}
    for name in a.metrics.keys() & b.metrics.keys():
        one, other = a.metrics[name].value, b.metrics[name].value
        if one is not None and other is not None:
            found[f"{a.suite}:{a.protocol}.{name}"] = abs(other - one)
    return found


def map_changes(a: Record, b: Record) -> dict[str, float]:
    """|a - b| / |a| of every map that both have in one shape, by `SUITE:PROTOCOL.MAP`."""
    found = {}
    for name in a.maps.keys() & b.maps.keys():
        one, other = (np.asarray(r.maps[name], dtype=np.float64) for r in (a, b))
        if one.shape == other.shape and one.size:
            found[f"{a.suite}:{a.protocol}.{name}"] = relative_change(one, other)
    return found


def relative_change(one: np.ndarray, other: np.ndarray) -> float:
    """|other - one| / |one|; infinite where only one of them is 0 or not finite."""
    if np.array_equal(one, other, equal_nan=True):
        return 0.0
    scale, gap = float(np.linalg.norm(one)), float(np.linalg.norm(other - one))
    return gap / scale if scale > 0 and np.isfinite(gap) else float("inf")


def _update_maxima(largest: dict[str, float], new: Mapping[str, float]) -> None:
    for name, value in new.items():
        largest[name] = max(largest.get(name, 0.0), value)


def store_noise(baseline: Path, found: Mapping[tuple[str, str], tuple[Floor, Record]]) -> None:
    """Store floors and fingerprints next to the baseline; those of other models stay."""
    store = Store(beside(baseline))
    floors = dict(read_floors(baseline).floors)
    for (reference, fill), (floor, print_) in found.items():
        floors[f"{reference} {fill}"] = floor
        store.put(print_)
    text = Floors(floors=dict(sorted(floors.items()))).model_dump_json(indent=1)
    write_text(beside(baseline) / FILE, text)


def drop_noise(baseline: Path, variants: Collection[tuple[str, str]]) -> None:
    """Remove floors and fingerprints of `variants` (reference, fill); those of others stay."""
    if not beside(baseline).is_dir():
        return
    store, names = Store(beside(baseline)), {f"{name} {fill}" for name, fill in variants}
    for record in store.records():
        if (record.model.reference, record.fill) in variants:
            store.remove(record)
    kept = {n: f for n, f in read_floors(baseline).floors.items() if n not in names}
    write_text(beside(baseline) / FILE, Floors(floors=kept).model_dump_json(indent=1))


RUNS = 4
"""How often a model is measured for its noise floor."""


def measure_runs(
    run: RunOptions, measure: Callable[[RunOptions, str], Sequence[Record]]
) -> dict[str, Sequence[Record]]:
    """What `measure` finds in each of the four runs, by the name of the run.

    It is called with the options and the name; the number of threads is set around it.
    """
    import torch

    batch = run.batch or default_batch(run.device if run.device != "auto" else "cpu")
    other = max(1, batch // 2 - 1) if batch > 1 else 2
    fewer = 1 if torch.get_num_threads() > 1 else 2
    fixed = replace(run, batch=batch)
    runs: dict[str, tuple[RunOptions, int | None]] = {
        "first": (fixed, None),
        "same again": (fixed, None),
        f"batch {other} instead of {batch}": (replace(fixed, batch=other), None),
        f"{fewer} threads": (fixed, fewer),
    }
    found: dict[str, Sequence[Record]] = {}
    for name, (options, count) in runs.items():
        with threads(count):
            found[name] = measure(options, name)
    return found
