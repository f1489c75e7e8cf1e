"""The runner: what breaks one model costs that model only, and a rerun goes on where one stopped.

Real worker processes are used throughout; see `toys` for what each model does.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import psutil
import pytest
import toys

from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.runner import missing_jobs, run_jobs
from perimetry.bench.execution.settings import RunOptions, Settings
from perimetry.bench.output.files import StoreError
from perimetry.bench.ranking.board import Board
from perimetry.bench.ranking.tables import to_json
from perimetry.bench.records.store import Store

SETTINGS = Settings(images="noise", count=4)
FAULTS = ["a", "segfault", "measure-kill", "measure-error", "hang", "unknown", "noise", "headless"]
LIMIT_S = 10.0


def jobs_of(names, fills=("none",), suites=("structure", "deadpixel:all"), settings=SETTINGS):
    references = [f"toy:{name}" for name in names]
    return AuditPlan(references, suites, fills, settings, "cpu", toys.SUITES).jobs()


@pytest.fixture(scope="module")
def faults(tmp_path_factory):
    """One run over a sound model and one of every fault."""
    store = Store(tmp_path_factory.mktemp("faults"))
    events = []
    summary = run_jobs(
        jobs_of([*FAULTS, "last"]),
        store,
        SETTINGS,
        RunOptions(device="cpu", time_limit_s=LIMIT_S, toolkit=toys.toolkit),
        report=events.append,
    )
    return store, summary, events


def of(store, name):
    found = [r for r in store.records() if r.model.reference == f"toy:{name}"]
    return {f"{r.suite}:{r.protocol}": r for r in found}


def statuses(store, name):
    return {cell: record.status for cell, record in of(store, name).items()}


EVERYTHING = {"structure:expected", "deadpixel:energy", "deadpixel:kim2023"}


def test_every_cell_of_every_model_has_a_record(faults):
    """No row vanishes: nine models of three cells give 27 records, counted by status."""
    store, summary, events = faults
    records = store.records()
    assert len(records) == 27
    assert summary.made == Counter(r.status for r in records)
    assert Counter(e.what for e in events if e.cell is not None) == summary.made
    assert store.read()[1] == []


@pytest.mark.parametrize("name", ["a", "last"])
def test_sound_models_come_out_whatever_the_others_do(faults, name):
    """The first and the last model are measured in full."""
    assert statuses(faults[0], name) == dict.fromkeys(EVERYTHING, "ok")


def test_a_segmentation_fault_is_named(faults):
    """A worker that segfaults while opening costs the model, and the record names the signal."""
    found = of(faults[0], "segfault")
    assert set(found) == EVERYTHING
    for record in found.values():
        assert record.status == "failed"
        assert record.error.kind == "died"
        assert "signal 11 (SIGSEGV)" in record.error.message
        assert "while opening the model" in record.error.message


def test_a_kill_costs_only_the_suite_at_work(faults):
    """Killed with signal 9 in one suite, the other suite's record stands; the text says memory."""
    found = of(faults[0], "measure-kill")
    assert found["structure:expected"].status == "ok"
    for cell in ("deadpixel:energy", "deadpixel:kim2023"):
        assert found[cell].status == "failed"
        assert "signal 9 (SIGKILL; " in found[cell].error.message


def test_an_exception_keeps_its_traceback(faults):
    """A suite that raises gives failed records with the end of the traceback."""
    found = of(faults[0], "measure-error")
    assert found["structure:expected"].status == "ok"
    assert found["deadpixel:energy"].error.message == "RuntimeError: planted error"
    assert "toys.py" in found["deadpixel:energy"].error.trace


def test_a_hang_ends_at_the_time_limit(faults):
    """A model that never opens is given up after the time limit."""
    for record in of(faults[0], "hang").values():
        assert record.error.kind == "time limit"
        assert record.error.message == (
            f"took longer than the time limit of {LIMIT_S:g} s, while opening the model"
        )


def test_an_unknown_model_offers_near_names(faults):
    """The error of an unknown name is the loader's own text."""
    for record in of(faults[0], "unknown").values():
        assert "did you mean toy:even?" in record.error.message


def test_last_words_of_a_dead_worker_are_kept(faults):
    """What a worker printed before it ended is in the record, with its exit code."""
    for record in of(faults[0], "noise").values():
        assert "exit code 3" in record.error.message
        assert record.error.trace == "last words"


def test_what_does_not_apply_is_skipped(faults):
    """A suite that does not apply gives skipped records beside the measured one."""
    assert statuses(faults[0], "headless") == {
        "structure:expected": "ok",
        "deadpixel:energy": "skipped",
        "deadpixel:kim2023": "skipped",
    }


def test_a_rerun_makes_only_what_failed(faults):
    """Finished and skipped records are kept; failed ones are repeated with `retry_failed`."""
    store, summary, _ = faults
    again = jobs_of([*FAULTS, "last"])
    held = len(store.records())
    assert missing_jobs(again, store, retry_failed=False) == ([], held)
    due, kept = missing_jobs(again, store, retry_failed=True)
    assert sum(len(job.cells) for job in due) == summary.made["failed"]
    assert kept == held - summary.made["failed"]
    assert not run_jobs(
        again, store, SETTINGS, RunOptions(device="cpu", retry_failed=False, toolkit=toys.toolkit)
    ).made


def test_a_full_disk_ends_the_run_with_what_to_do(tmp_path):
    """When the disk fills up in a worker, the run stops and says so; earlier records stay whole."""
    store = Store(tmp_path)
    jobs = jobs_of(["a", "full-disk", "last"])
    with pytest.raises(StoreError, match="no space left"):
        run_jobs(jobs, store, SETTINGS, RunOptions(device="cpu", toolkit=toys.toolkit))
    assert statuses(store, "a") == dict.fromkeys(EVERYTHING, "ok")
    assert statuses(store, "full-disk") == {"structure:expected": "ok"}
    assert statuses(store, "last") == {}
    assert store.read()[1] == []
    assert not list(store.folder.glob(".*"))


PARENT = """
import sys, toys
from pathlib import Path
from perimetry.bench.execution.settings import Settings
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.settings import RunOptions
from perimetry.bench.execution.runner import run_jobs
from perimetry.bench.records.store import Store
settings = Settings(images="noise", count=4)
plan = AuditPlan(
    [f"toy:slow-{i}" for i in range(4)], ["structure", "deadpixel:all"], ["none", "box"],
    settings, "cpu", toys.SUITES,
)
options = RunOptions(device="cpu", toolkit=toys.toolkit)
print(run_jobs(plan.jobs(), Store(sys.argv[1]), settings, options).text())
"""


def start(folder: Path, log: Path, **variables: str) -> subprocess.Popen:
    path = os.pathsep.join([str(Path(toys.__file__).parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), "TOY_LOG": str(log)}
    environment.update(variables)
    command = [sys.executable, "-c", PARENT, str(folder)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(condition):
    end = time.monotonic() + 600
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.01)


def board_text(folder) -> str:
    return to_json(Board(Store(folder).records(), suites=toys.SUITES))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = start(folder, folder / "log")
    process.communicate()
    assert process.returncode == 0
    return board_text(folder)


@pytest.mark.parametrize("victim", ["parent", "worker"])
def test_killed_and_repeated_nothing_is_lost_or_done_twice(tmp_path, undisturbed, victim):
    """kill -9 of the run or of its worker, then the same command: the board of a quiet run.

    The kill comes at any moment after nine records; the last of four models waits for it.
    """
    log = tmp_path / "log"
    stop = tmp_path / "stop"
    stop.touch()
    process = start(tmp_path, log, TOY_STOP=str(stop))
    records = tmp_path / "records"
    wait_for(lambda: records.is_dir() and len(list(records.glob("*.json"))) >= 9)
    worker = next(
        p for p in psutil.Process(process.pid).children() if "spawn_main" in str(p.cmdline())
    )
    os.kill(process.pid if victim == "parent" else worker.pid, signal.SIGKILL)
    stop.unlink()
    process.communicate()
    wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)
    stored = {
        (r.model.reference, r.fill, r.protocol)
        for r in Store(tmp_path).records()
        if r.suite == "deadpixel" and r.status == "ok"
    }
    assert stored

    again = start(tmp_path, log)
    out, _ = again.communicate()
    assert again.returncode == 0
    made = Counter(tuple(line.split()) for line in log.read_text().splitlines())
    assert all(made[cell] == 1 for cell in stored), out
    assert board_text(tmp_path) == undisturbed
    assert len(json.loads(undisturbed)["rows"]) == 8


def test_two_runs_of_one_folder_agree(tmp_path, undisturbed):
    """Two runs at once in one folder end with the board of one run, no record twice."""
    both = [start(tmp_path, tmp_path / f"log{i}") for i in range(2)]
    for process in both:
        process.communicate()
    assert [p.returncode for p in both] == [0, 0]
    assert board_text(tmp_path) == undisturbed
    assert len(list((tmp_path / "records").glob("*.json"))) == 28


def test_an_untouched_model_takes_over_what_is_exact_without_measuring_it_again(monkeypatch):
    """A ViT has no kernel to pad: its structure is measured once, and both records say the same."""
    from perimetry import audit
    from perimetry.suites.structure import Structure

    measured = []
    original = Structure.measure
    monkeypatch.setattr(
        Structure, "measure", lambda self, *rest: measured.append(1) or original(self, *rest)
    )
    records = audit("timm:test_vit@init", ("structure",), ("none", "zero"), device="cpu")
    assert len(measured) == 1
    assert records[0].metrics == records[1].metrics
    assert [r.fill for r in records] == ["none", "zero"]
    audit("timm:test_resnet@init", ("structure",), ("none", "zero"), device="cpu")
    assert len(measured) == 3


@pytest.mark.parametrize("damage", ["cut", "removed"])
def test_a_record_with_damaged_arrays_is_measured_again(faults, tmp_path, damage):
    """A resumed run does not leave a row without maps."""
    shutil.copytree(faults[0].root, tmp_path / "copy")
    store, jobs = Store(tmp_path / "copy"), jobs_of(["a"])
    assert missing_jobs(jobs, store, retry_failed=True) == ([], 3)
    record = next(r for r in of(store, "a").values() if r.map_names)
    path = store.path(record).with_suffix(".npz")
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:100])
    else:
        path.unlink()
    due, kept = missing_jobs(jobs, store, retry_failed=True)
    assert [cell.key for job in due for cell in job.cells] == [record.key]
    assert kept == 2
