"""How far a run is: counts, time spent and left, and what Ctrl-C says is kept."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest
import toys
from typer.testing import CliRunner

from perimetry.bench import demo
from perimetry.bench.cli.main import app
from perimetry.bench.cli.options import INTERRUPTED
from perimetry.bench.execution import cost
from perimetry.bench.execution.cost import Progress, duration, record_costs
from perimetry.bench.execution.engines.base import Event
from perimetry.bench.execution.plan import AuditPlan
from perimetry.bench.execution.settings import Settings
from perimetry.suites.registry import SUITES


def jobs_of(names):
    settings = Settings(images="noise", count=4)
    references = [f"toy:{name}" for name in names]
    suites = ("structure", "deadpixel:all")
    return AuditPlan(references, suites, ("none",), settings, "cpu", toys.SUITES).jobs()


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    now = [100.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    cost._begun.cache_clear()
    yield now
    cost._begun.cache_clear()


def test_a_line_in_a_log_says_how_many_of_all_and_the_time_spent_and_left(clock, capsys):
    """Half of the work in 30 s: another 30 s are left; before anything is done, no guess."""
    jobs = jobs_of(("a", "b"))
    with Progress(record_costs(jobs, 4)) as bar:
        bar.report(Event("begin", "cpu", jobs[0]))
        clock[0] += 30
        for cell in jobs[0].cells:
            bar.report(Event("ok", "cpu", jobs[0], cell=cell))
        bar.report(Event("begin", "cpu", jobs[1]))
    first, second = capsys.readouterr().err.splitlines()
    assert first.split() == ["0", "of", "6", "records", "0", "s", "toy:a", "(none)"]
    assert re.fullmatch(r" +3 of 6 records  30 s, about 30 s left  toy:b \(none\)", second)


def test_what_is_left_is_weighed_by_what_models_cost(clock, capsys):
    """A cheap model that is done says little of the time of an expensive one."""
    settings = Settings(images="noise", count=4)
    references = ["timm:resnet18@init", "timm:resnet50@init"]
    plan = AuditPlan(references, ("erf",), ("none",), settings, "cpu", SUITES)
    cheap, expensive = plan.jobs()
    with Progress(record_costs([cheap, expensive], 4)) as bar:
        clock[0] += 10
        bar.report(Event("ok", "cpu", cheap, cell=cheap.cells[0]))
        bar.report(Event("begin", "cpu", expensive))
    left = float(re.search(r"about (\d+) s left", capsys.readouterr().err)[1])
    assert 15 < left < 40  # 1.8 and 4.1 GFLOP


def test_a_model_that_costs_almost_nothing_still_takes_its_time(clock, capsys):
    """What is left after a large model is never 0 s while a small one has not begun."""
    settings = Settings(images="noise", count=4)
    references = ["timm:resnet50@init", "timm:test_vit@init"]
    large, small = AuditPlan(references, ("erf",), ("none",), settings, "cpu", SUITES).jobs()
    with Progress(record_costs([large, small], 4)) as bar:
        clock[0] += 20
        bar.report(Event("ok", "cpu", large, cell=large.cells[0]))
        bar.report(Event("begin", "cpu", small))
    assert float(re.search(r"about (\d+) s left", capsys.readouterr().err)[1]) > 1


@pytest.mark.parametrize(
    ("spent", "text"),
    [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (5940, "99 min"), (7500, "2 h 05 min")],
)
def test_times_are_short(spent, text):
    """Seconds, minutes, or hours and minutes."""
    assert duration(spent) == text


def test_the_demo_says_how_long_it_takes_before_anything_else(monkeypatch, tmp_path):
    """The first line names the models and a time."""

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(demo, "references", interrupted)
    done = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert re.match(r"perimetry: 12 models .* about \d+ (s|min) ", done.stderr)
    assert done.exit_code == INTERRUPTED


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_says_what_is_kept_and_how_to_go_on(tmp_path):
    """After the first record of a run of several models, an interrupt names their number."""
    words = [*("timm:test_resnet@init", "timm:test_vit@init", "timm:test_convnext@init")]
    words += ["--suite", "structure", "--kernel-padding", "none,box", "--out", str(tmp_path)]
    code = "from perimetry.bench.cli.main import main; main()"
    command = [sys.executable, "-c", code, "run", *words]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if re.match(r" +[1-9]\d* of \d+ records", line):
                process.send_signal(signal.SIGINT)
                break
        rest = process.stderr.read()
    if process.returncode == 0:
        pytest.skip("the run had ended before the signal arrived")
    assert process.returncode == INTERRUPTED
    shown = re.search(r"interrupted; (\d+) finished records are kept in (.+?): give the same", rest)
    assert int(shown[1]) == len(list((tmp_path / "records").glob("*.json"))) >= 1
    assert "perimetry board" in rest
