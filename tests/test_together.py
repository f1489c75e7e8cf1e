"""Stored models are measured again together: one set of workers for all, or one by one."""

from __future__ import annotations

import re

import pytest
from toys import toolkit

from perimetry.adapters.errors import UnknownNameError
from perimetry.bench.execution import together as module
from perimetry.bench.execution.rerun import RunSpec
from perimetry.bench.execution.settings import RunOptions, Settings
from perimetry.bench.execution.together import Asked, Together

SPEC = RunSpec(Settings(count=2, draws=20), ("deadpixel:energy",))


def asked(*names, spec=SPEC):
    return [Asked(f"toy:{name}", spec, ["none"]) for name in names]


@pytest.fixture
def runs(monkeypatch):
    """The names of the models of every run in workers, which is carried out."""
    found, measure = [], module.in_workers

    def counted(plan, *rest):
        found.append(list(plan.references))
        return measure(plan, *rest)

    monkeypatch.setattr(module, "in_workers", counted)
    return found


@pytest.mark.parametrize("workers", [1, 2])
def test_models_of_one_spec_are_one_run_and_a_crash_costs_its_own_record(workers, runs):
    """Three models, the second of which dies; the number of workers changes no number."""
    run = RunOptions("cpu", workers=workers, isolated=True, toolkit=toolkit)
    models = asked("even", "segfault", "odd")
    pool = Together(models)
    made = [pool.measure(one, run) for one in models]
    assert runs == [["toy:even", "toy:segfault", "toy:odd"]]
    assert [records[0].status for records in made] == ["ok", "failed", "ok"]
    assert [r[0].model.reference for r in made] == runs[0]


def test_other_settings_and_repetitions_are_runs_of_their_own(runs):
    """A second spec, and a second part, are measured for themselves."""
    run = RunOptions("cpu", isolated=True, toolkit=toolkit)
    other = RunSpec(Settings(count=3, draws=20), SPEC.suites)
    models = [*asked("even", "odd"), *asked("long", spec=other)]
    pool = Together(models)
    for part in ("first", "again"):
        for one in models:
            pool.measure(one, run, part)
    assert runs == [["toy:even", "toy:odd"], ["toy:long"]] * 2


def test_one_progress_counts_all_groups_and_repetitions(capsys):
    """Two groups, two times each: every line counts on, towards one total."""
    run = RunOptions("cpu", isolated=True, progress=True, toolkit=toolkit)
    other = RunSpec(Settings(count=3, draws=20), SPEC.suites)
    models = [*asked("even"), *asked("long", spec=other)]
    pool = Together(models, repetitions=2)
    for part in ("first", "again"):
        for one in models:
            pool.measure(one, run, part)
    lines = re.findall(r"(\d+) of (\d+) records", capsys.readouterr().err)
    assert lines == [(str(made), "4") for made in range(4)]


def test_a_group_that_cannot_be_planned_is_measured_one_by_one(monkeypatch):
    """So that the one at fault says why, and the others are measured."""

    def refuse(*_arguments):
        raise UnknownNameError("planted")

    monkeypatch.setattr(module, "plan_of", refuse)
    alone = []
    monkeypatch.setattr(module, "rerun", lambda model, *_a, **_k: alone.append(model) or [])
    pool = Together(asked("even", "odd"))
    for one in pool.expected:
        pool.measure(one, RunOptions("cpu", isolated=True, toolkit=toolkit))
    assert alone == ["toy:even", "toy:odd"]


def test_without_isolation_everything_is_measured_in_this_process(runs):
    """As in Python and in tests."""
    (one,) = asked("even")
    (record,) = Together([one]).measure(one, RunOptions("cpu", toolkit=toolkit))
    assert runs == []
    assert record.status == "ok"
