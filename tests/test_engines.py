"""Engines: faults cost the models that have them, and no number depends on how it was measured."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import onnx_files
import pytest
import sweep_tools
import torch
import toys

from perimetry.adapters.errors import InputError, UnknownNameError
from perimetry.bench.execution.engines import process
from perimetry.bench.execution.plan import Choice
from perimetry.bench.execution.runner import run_jobs
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import to_csv
from perimetry.bench.records.store import Store

FAULTS = {
    "segfault": "the worker was killed by signal 11 (SIGSEGV)",
    "noise": "the worker ended with exit code 3",
    "hang": "took longer than the time limit of 15 s",
    "hog": "MemoryError",
}
"""What is planted in toys, and how the error in its record must begin."""


def sweep(folder, references, options, **how):
    store = Store(folder)
    jobs = sweep_tools.jobs_of(references, **how)
    summary = run_jobs(jobs, store, sweep_tools.SETTINGS, options)
    return store, summary


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two hundred models: 180 toys, 16 small ONNX files, and four of these cut short."""
    folder = tmp_path_factory.mktemp("zoo")
    whole = [
        onnx_files.save(onnx_files.convnet(size=8 + 8 * (i % 4)), folder / f"net{i:02}.onnx")
        for i in range(16)
    ]
    broken = []
    for i in range(4):
        path = folder / f"cut{i}.onnx"
        path.write_bytes(Path(whole[i]).read_bytes()[: 40 * (i + 1)])
        broken.append(str(path))
    toy = [f"toy:{i:03}" for i in range(180 - len(FAULTS))] + [f"toy:{name}" for name in FAULTS]
    references = sorted([*whole, *broken, *toy], key=lambda r: hash(r) % 97)
    options = replace(sweep_tools.OPTIONS, time_limit_s=15.0, memory_limit_mib=8192)
    return sweep(folder / "records", references, options), set(broken)


def test_a_sweep_of_two_hundred_models_marks_exactly_those_that_are_at_fault(planted):
    """Crash, exit, hang, memory hog and cut files fail, each by its kind; the others are whole."""
    (store, summary), broken = planted
    records = store.records()
    assert len(records) == 200
    failed = {r.model.reference: r.error.message for r in records if r.status == "failed"}
    assert set(failed) == {f"toy:{name}" for name in FAULTS} | broken
    for name, text in FAULTS.items():
        assert failed[f"toy:{name}"].startswith(text)
    assert summary.made == Counter(r.status for r in records)
    assert summary.made["ok"] == 192
    assert store.read()[1] == []


def test_what_died_is_tried_again_as_often_as_asked(tmp_path, monkeypatch):
    """A model that kills its worker the first time is measured the second time; one that always
    does is failed after its tries."""
    monkeypatch.setenv("TOY_ONCE", str(tmp_path / "once"))
    names = ["toy:once", "toy:segfault"]
    store, summary = sweep(tmp_path / "out", names, replace(sweep_tools.OPTIONS, retries=1))
    found = {r.model.reference: r.status for r in store.records()}
    assert found == {"toy:once": "ok", "toy:segfault": "failed"}
    assert summary.made == Counter(ok=1, failed=1)


def test_an_unknown_engine_offers_near_names(tmp_path):
    """A misspelt engine is an UnknownNameError that suggests the nearest one."""
    with pytest.raises(UnknownNameError, match="ray"):
        sweep(tmp_path, ["toy:a"], replace(sweep_tools.OPTIONS, engine="rey"))


def test_without_ray_the_error_says_what_to_install(tmp_path, monkeypatch):
    """Choosing the ray engine without ray is an InputError with the command to install it."""
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'perimetry\[ray\]'"):
        sweep(tmp_path, ["toy:a"], replace(sweep_tools.OPTIONS, engine="ray"))


NAMES = [f"toy:{i}{'x' * i}" for i in range(6)]
EVERYTHING = {"suites": ("structure", "deadpixel:all"), "fills": ("none", "box")}


def numbers(folder):
    """Everything in the records of a folder that the machine's clock does not decide."""
    found = {}
    for record in Store(folder).records():
        kept = record.model_dump(exclude={"timing", "created", "environment"})
        arrays = {k: v.tobytes() for part in record.arrays for k, v in part.items()}
        found[record.key] = (kept, arrays)
    return found


def board(folder):
    return to_csv(Board(Store(folder).records(), suites=toys.SUITES))


@pytest.fixture(scope="module")
def reference(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    sweep(folder, NAMES, sweep_tools.OPTIONS, **EVERYTHING)
    return folder


def in_shards(folder):
    for i in (1, 2, 3):
        sweep(folder, Choice(shard=(i, 3)).of(NAMES), sweep_tools.OPTIONS, **EVERYTHING)


def resumed(folder):
    sweep(folder, NAMES[:3], sweep_tools.OPTIONS, suites=("deadpixel",), fills=("box",))
    sweep(folder, NAMES, sweep_tools.OPTIONS, **EVERYTHING)


WAYS = {
    "two workers": lambda folder: sweep(
        folder, NAMES, replace(sweep_tools.OPTIONS, workers=2), **EVERYTHING
    ),
    "other order": lambda folder: sweep(folder, NAMES[::-1], sweep_tools.OPTIONS, **EVERYTHING),
    "other batch": lambda folder: sweep(
        folder, NAMES, replace(sweep_tools.OPTIONS, batch=3), **EVERYTHING
    ),
    "three shards": in_shards,
    "a resumed run": resumed,
}


@pytest.mark.parametrize("way", WAYS)
def test_records_do_not_depend_on_how_they_were_made(tmp_path, reference, way):
    """Workers, order, batch, shards and resume change no bit of a record, nor of the board."""
    WAYS[way](tmp_path)
    found, expected = numbers(tmp_path), numbers(reference)
    assert found.keys() == expected.keys()
    assert len(found) == len(NAMES) * 7
    for key, one in expected.items():
        assert found[key] == one
    assert board(tmp_path) == board(reference)


def test_the_comparison_sees_a_changed_number(tmp_path, reference):
    """Another seed gives other records, so the test above can fail."""
    jobs = sweep_tools.jobs_of(NAMES[:1], **EVERYTHING)
    changed = type(sweep_tools.SETTINGS)(images="noise", count=4, seed=1)
    run_jobs(jobs, Store(tmp_path), changed, sweep_tools.OPTIONS)
    first = next(iter(numbers(tmp_path)))
    assert numbers(tmp_path)[first] != numbers(reference)[first]


def test_a_worker_keeps_to_its_memory_limit(tmp_path):
    """What 256 MiB cannot hold fails under such a limit and is measured without it."""
    for limit, status in ((256, "failed"), (None, "ok")):
        folder = tmp_path / str(limit)
        store, _ = sweep(
            folder, ["toy:large"], replace(sweep_tools.OPTIONS, memory_limit_mib=limit)
        )
        (record,) = store.records()
        assert record.status == status


@pytest.mark.parametrize(
    ("limit", "workers", "share"),
    [
        (2048.0, 1, 0.25),
        (16384.0, 1, 1.0),
        (None, 1, None),
        (None, 2, 0.45),
        (None, 3, 0.3),
        (2048.0, 2, 0.25),
    ],
)
def test_a_worker_on_a_gpu_keeps_to_its_share_of_it(monkeypatch, limit, workers, share):
    """Torch gets the limit as a share of the GPU's 8 GiB; by default workers have equal shares."""
    shares = []
    gpu = SimpleNamespace(total_memory=8 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: gpu)
    note = lambda share, device: shares.append((share, device))  # noqa: E731
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", note)
    process.bound_memory("cuda:1", limit, workers)
    assert shares == ([] if share is None else [(pytest.approx(share), "cuda:1")])
