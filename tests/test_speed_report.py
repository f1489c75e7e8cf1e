"""`perimetry bench`: the operations it counts, the tables it prints, the file it updates."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.execution.engines import process
from perimetry.bench.records.environment import environment
from perimetry.bench.speed import goals
from perimetry.bench.speed.device_use import (
    BusyShare,
    CaptureTiming,
    Throughput,
    busy_share,
    covered,
    throughput_at,
    time_capture,
)
from perimetry.bench.speed.goals import MapComparison, time_to_certainty
from perimetry.bench.speed.measure import (
    AuditTiming,
    TimeGrowth,
    TimingRow,
    full_audit,
    open_bench,
    time_growth,
)
from perimetry.bench.speed.report import BenchmarkPlan, SpeedReport, with_report
from perimetry.bench.speed.report import measure as measure_speed
from perimetry.bench.speed.stopwatch import (
    DeviceRates,
    WorkCount,
    count_work,
    interleaved_times,
    measured_rates,
    peak_of,
)
from perimetry.bench.speed.tables import render_speed
from perimetry.suites.registry import SUITES


def test_operations_and_bytes_of_a_product_are_those_of_the_formula():
    """An (m, k) by (k, n) product has 2 m k n operations and moves three matrices."""
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_work(lambda: a @ b) == WorkCount(2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_a_view_moves_nothing():
    """Transposing, slicing and reshaping count no operation and no byte."""
    x = torch.ones(4, 6)
    assert count_work(lambda: x.t()[1:].unsqueeze(0)) == WorkCount(0, 0)


def test_a_backward_pass_to_the_input_counts_as_the_forward_pass():
    """With frozen weights a convolution's backward pass has the operations of the forward pass."""
    layer = nn.Conv2d(3, 8, 3, padding=1, bias=False).requires_grad_(False)
    x = torch.ones(2, 3, 6, 6)
    forward = 2 * (2 * 8 * 6 * 6) * (3 * 3 * 3)
    assert count_work(lambda: layer(x)).operations == forward

    def both():
        leaf = x.clone().requires_grad_()
        torch.autograd.grad(layer(leaf.view_as(leaf)).sum(), leaf)

    assert count_work(both).operations == 2 * forward


def test_the_roofline_is_set_by_the_slower_of_both():
    """Operations at their rate or bytes at theirs, whichever takes longer."""
    rates = DeviceRates(operations=100.0, bytes=10.0)
    assert rates.roofline_s(WorkCount(500, 10)) == 5.0
    assert rates.bound(WorkCount(500, 10)) == "operations"
    assert rates.roofline_s(WorkCount(100, 40)) == 4.0
    assert rates.bound(WorkCount(100, 40)) == "memory"
    assert WorkCount(2, 3).times(2) == WorkCount(4, 6)


def test_no_time_lies_below_the_roofline():
    """Passes that beat the kernels raise the rate that they beat, which then has their name."""
    rates = DeviceRates(100.0, 10.0, "matrix product", "copy")
    assert rates.including(WorkCount(500, 40), 5.0, "passes") == rates
    faster = rates.including(WorkCount(500, 40), 2.0, "passes")
    assert faster.roofline_s(WorkCount(500, 40)) == 2.0
    assert (faster.operations_of, faster.bytes_of) == ("passes", "passes")
    assert rates.including(WorkCount(500, 10), 4.0, "passes").bytes_of == "copy"


def test_the_rates_are_those_of_the_fastest_kernel():
    """Each has the name of its kernel, and no kernel that is timed again is much above it."""
    rates = measured_rates("cpu")
    assert rates.operations > rates.bytes > 0
    assert rates.operations_of
    assert rates.bytes_of in {"copy", "addition", "sum"}


def test_the_cost_to_certainty_ends_at_the_goal_or_says_why_not():
    """The cost to certainty has seconds, images and half width, or why there is none."""
    found = time_to_certainty("timm:test_resnet@init", device="cpu", batch=8, rounds=1)
    assert found.half_width <= goals.GOAL
    assert found.seconds > 0
    assert found.reason == ""
    few = time_to_certainty("timm:resnet18", device="cpu", batch=8, rounds=1)
    assert few.reason


ONE_SIZE = """
import torch
from torch import nn

class Masked(nn.Module):
    input_size = (32, 32)

    def __init__(self):
        super().__init__()
        self.mask, self.body = torch.ones(32, 32), nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return self.body(x * self.mask)
"""


def test_growth_with_the_input_is_unknown_where_a_model_takes_one_size(tmp_path, monkeypatch):
    """The reason stands in its place, and what was measured before is not lost."""
    (tmp_path / "takes_one_size.py").write_text(ONE_SIZE)
    monkeypatch.chdir(tmp_path)
    found = time_growth("py:takes_one_size:Masked", device="cpu", count=4, batch=4, rounds=1)
    images, side = found
    assert images.factor > 0
    assert side.factor is None
    assert "an input of 3 x 128 x 128" in side.reason
    report = SpeedReport(
        "cpu", environment(torch.device("cpu")), DeviceRates(1.0, 1.0, "a", "b"), growth=found
    )
    assert "an input of 3 x 128 x 128" in render_speed(report)


WITHOUT_RULE = """
import torch
from torch import nn

class Rounded(nn.Module):
    input_size = (32, 32)

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, 2, 1)

    def forward(self, x):
        return self.body(torch.special.bessel_j0(x))
"""


def test_a_suite_that_does_not_apply_is_left_out_of_the_benchmark(tmp_path, monkeypatch):
    """`structure` has no rule for a Bessel function; what is measured after it is there."""
    (tmp_path / "without_rule.py").write_text(WITHOUT_RULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "perimetry.bench.speed.report.measured_rates", lambda _d: DeviceRates(1e9, 1e9, "a", "b")
    )
    plan = BenchmarkPlan(
        ("py:without_rule:Rounded",), ("structure", "padding"), "cpu", count=2, batch=2, rounds=1
    )
    found = measure_speed(plan)
    assert "bessel" in found.left_out["py:without_rule:Rounded: structure"]
    assert [row.suite for row in found.rows] == ["padding"]
    assert "gradient" in found.certainty[0].reason
    assert all(growth.factor is None and "gradient" in growth.reason for growth in found.growth)
    assert "not measured" in render_speed(found)
    assert "bessel" in render_speed(found)


def test_jobs_alternate():
    """Two jobs are warmed up once each and then timed in turn: A, B, A, B."""
    seen = []
    times = interleaved_times([lambda: seen.append("a"), lambda: seen.append("b")], 2, "cpu")
    assert "".join(seen) == "ababab"
    assert len(times) == 2
    assert all(t >= 0 for t in times)


def test_a_peak_is_what_a_job_took_for_a_while():
    """64 MiB that are taken and given back show in the peak; a job without any shows none."""
    taken = peak_of(lambda: torch.ones(64 * 2**18).sum(), "cpu")
    if taken is None:  # no such count on this system
        return
    assert 60 < taken < 96
    assert peak_of(lambda: None, "cpu") < 16


def test_overhead_is_the_time_beyond_the_bare_passes():
    """1.05 s over 1 s is 5 %; without bare passes there is no overhead."""
    assert TimingRow("m", "erf", 8, 224, 1.05, 1.0, passes_s=1.0).overhead == pytest.approx(0.05)
    assert TimingRow("m", "structure", 8, 224, 1.0, 1.0).overhead is None


@pytest.fixture
def report():
    rows = [
        TimingRow("timm:a", "structure", 4, 224, 0.5, 10.0),
        TimingRow("timm:a", "erf", 4, 224, 1.1, 20.0, 1.0, WorkCount(2e9, 1e9), 0.02),
    ]
    found = SpeedReport(
        "cpu", environment(), DeviceRates(10e9, 1e9), rows, [TimeGrowth("images", 2, 4, 1.9)]
    )
    found.audits = [
        AuditTiming("timm:a", 64, 224, ("erf:energy", "deadpixel:energy"), 2.5, 0.9, 30.0)
    ]
    return found


def test_a_report_holds_every_figure_with_its_unit(report):
    """Time, rate, memory, overhead, roofline and growth stand in the row of their model."""
    text = render_speed(report)
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in text.splitlines() if "|" in line]
    assert ["timm:a", "224", "erf", "4", "1.10 s", "3.6", "20 MiB"] in cells
    assert ["timm:a", "224", "structure", "4", "500 ms", "", "10 MiB"] in cells
    roofline = ["2", "1.0", "1.00 s", "memory", "1.1x"]
    assert ["timm:a", "erf", "1.00 s", "+10.0%", "20 ms", *roofline] in cells
    assert ["timm:a", "224", "64", "2", "2.50 s", "900 ms", "30 MiB"] in cells
    assert ["images", "2", "4", "1.90x"] in cells
    assert "10 GFLOP/s" in text


def cells_of(report):
    return [re.split(r"\s*\|\s*", line.strip("| ")) for line in render_speed(report).splitlines()]


def test_on_a_gpu_the_goals_stand_beside_what_was_measured(report):
    """The page gives the goals of 3 s per audit and of 20 times the speed per map."""
    assert not report.goals
    report.device = "cuda:0"
    name = "full gradient audit of resnet50, 64 images"
    assert [name, "under 3 s", "not measured"] == cells_of(report)[4][:3]
    report.audits = [AuditTiming("timm:resnet50@init", 64, 224, ("a", "b"), 2.5, 0.9, 30.0)]
    report.comparisons = [MapComparison("timm:resnet50@init", "openerf", 64, 0.1, 1.9, 1e-6)]
    assert [goal.reached for goal in report.goals] == [True, False]
    assert [name, "under 3 s", "2.50 s (2 protocols)", "yes"] in cells_of(report)
    report.comparisons = [MapComparison("timm:resnet50@init", "openerf", 64, 0.1, 2.0, 1e-6)]
    assert report.goals[1].reached
    row = ["timm:resnet50@init", "64", "openerf", "100 ms", "2.00 s", "20.0x", "1e-06"]
    assert row in cells_of(report)


def test_an_audit_of_another_size_is_not_taken_for_the_goals(report):
    """A ResNet-50 with twelve images, or another model with 64, says nothing about it."""
    report.device = "cuda:0"
    for model, images in (("timm:resnet50@init", 12), ("timm:resnet18@init", 64)):
        report.audits = [AuditTiming(model, images, 224, ("a",), 0.5, 0.1, 1.0)]
        assert report.goals[0].reached is None


def test_how_a_device_is_used_stands_in_tables(report):
    """The tables have images per second, the share of time busy, and the gain by capture."""
    report.throughput = [Throughput("timm:a", 64, 812.4), Throughput("timm:a", 256, None, "full")]
    report.busy = [BusyShare("timm:a", "full gradient audit", 2.5, 0.874)]
    report.captures = [
        CaptureTiming("timm:a", 8, 0.024, 0.020),
        CaptureTiming("timm:a", 64, 0.100, 0.095),
        CaptureTiming("timm:a", 65, reason="RuntimeError: no"),
    ]
    cells = cells_of(report)
    assert ["timm:a", "64", "812"] in cells
    assert ["timm:a", "256", "full"] in cells
    assert ["timm:a", "full gradient audit", "2.50 s", "87%"] in cells
    assert ["timm:a", "8", "24 ms", "20 ms", "1.20x", "yes"] in cells
    assert ["timm:a", "64", "100 ms", "95 ms", "1.05x", "no"] in cells


def test_time_that_kernels_share_counts_once():
    """Two overlapping intervals, one inside and one apart are busy from 0 to 5 and 7 to 8."""
    assert covered([(7.0, 8.0), (0.0, 4.0), (1.0, 2.0), (3.0, 5.0)]) == 6.0
    assert covered([]) == 0.0


def test_a_cpu_has_a_rate_but_no_share_and_no_graphs():
    """On a CPU share and graphs are missing with a reason, and the rate is measured."""
    bench = open_bench("timm:test_resnet@init", device="cpu", count=2, batch=2, rounds=1)
    rate = throughput_at(bench, 3)
    assert rate.images_per_s > 0
    busy, graph = busy_share(bench, "nothing", lambda: None), time_capture(bench, 2)
    assert busy.share is None
    assert "GPU" in busy.reason
    assert not graph.pays
    assert "GPU" in graph.reason


def test_a_batch_that_does_not_fit_has_a_reason_in_place_of_a_rate(monkeypatch):
    """A batch that does not fit has a reason, and the other batches are measured."""
    bench = open_bench("timm:test_resnet@init", device="cpu", count=2, batch=2, rounds=1)
    run = bench.model.run

    def small(x, **options):
        if len(x) > 2:
            raise torch.OutOfMemoryError("too much")
        return run(x, **options)

    monkeypatch.setattr(bench.model, "run", small)
    none, some = (throughput_at(bench, batch) for batch in (4, 2))
    assert none.images_per_s is None
    assert "out of memory" in none.reason
    assert some.images_per_s > 0


def test_the_model_that_has_a_goal_comes_first_on_a_gpu():
    """Were the run cut off, its figures would be there."""
    plan = BenchmarkPlan(("timm:a", "timm:resnet50@init"), (), "cuda:0", 64, 64)
    assert plan.used == "timm:resnet50@init"
    assert BenchmarkPlan(("timm:a",), (), "cuda", 64, 64).used == "timm:a"
    assert BenchmarkPlan(("timm:a",), (), "cpu", 12, 8).used is None


def test_a_full_audit_covers_every_protocol_that_takes_gradients_and_no_other():
    """Four of erf, two of deadpixel and frequency; statistics are part of the time."""
    bench = open_bench("timm:test_resnet@init", device="cpu", count=4, batch=2, rounds=1)
    found = full_audit(bench, SUITES)
    assert set(found.cells) == {
        *(f"erf:{name}" for name in ("energy", "kim2023", "replknet2022", "luo2016")),
        *(f"deadpixel:{name}" for name in ("energy", "kim2023")),
        "frequency:gradient",
    }
    assert (found.images, found.side) == (4, bench.model.spec.height)
    assert 0 < found.statistics_s < found.seconds


def test_a_page_keeps_what_was_written_by_hand(tmp_path):
    """A new measurement replaces the part of its device alone."""
    page = with_report("# Title\n\nby hand\n", "cpu", "one")
    page = with_report(page, "cuda:0", "two")
    again = with_report(page, "cpu", "three")
    assert again == page.replace("one", "three")
    assert again.startswith("# Title\n\nby hand\n")
    assert again.index("three") < again.index("two")


def test_the_command_measures_a_small_model_and_writes_the_page(tmp_path):
    """One run over a tiny model writes its row in every table of the page."""
    page = tmp_path / "page.md"
    arguments = ["bench", "timm:test_resnet@init", "--suite", "structure,deadpixel", "--count", "2"]
    done = CliRunner().invoke(
        app, [*arguments, "--device", "cpu", "--rounds", "1", "--markdown", str(page)]
    )
    assert done.exit_code == 0, done.output
    text = page.read_text()
    for part in (
        "structure",
        "deadpixel",
        "side",
        "full gradient audit",
    ):
        assert f"| {part} " in text
    assert text.count("| timm:test_resnet@init ") == 5


def test_an_unknown_suite_is_answered_with_near_names():
    """`structur` exits with 1 and suggests `structure`."""
    done = CliRunner().invoke(app, ["bench", "--suite", "structur"])
    assert done.exit_code == 1
    assert "did you mean structure?" in done.output


def test_a_model_that_does_not_exist_is_refused_before_any_is_measured(monkeypatch):
    """All names are looked up first, so that a typo does not cost the time of other models."""
    monkeypatch.setattr(process, "call_bounded", None)
    done = CliRunner().invoke(app, ["bench", "timm:test_resnet@init", "nope.onnx"])
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "nope.onnx" in done.output
