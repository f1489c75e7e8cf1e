"""`perimetry bench`: the operations it counts, the tables it prints, the file it updates."""

from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.records.environment import environment
from perimetry.bench.speed.measure import (
    AuditTiming,
    TimeGrowth,
    TimingRow,
    full_audit,
    interleaved_times,
    open_bench,
    peak_of,
)
from perimetry.bench.speed.report import SpeedReport, render_speed, with_report
from perimetry.bench.speed.roofline import DeviceRates, WorkCount, count_work
from perimetry.suites.registry import SUITES


def test_operations_and_bytes_of_a_product_are_those_of_the_formula():
    """An (m, k) by (k, n) product: 2 m k n operations, and three matrices moved."""
    a, b = torch.ones(3, 5), torch.ones(5, 7)
    assert count_work(lambda: a @ b) == WorkCount(2 * 3 * 5 * 7, 4 * (15 + 35 + 21))


def test_a_view_moves_nothing():
    """Transposing, slicing and reshaping count no operation and no byte."""
    x = torch.ones(4, 6)
    assert count_work(lambda: x.t()[1:].unsqueeze(0)) == WorkCount(0, 0)


def test_a_backward_pass_to_the_input_counts_as_the_forward_pass():
    """Of a convolution with frozen weights: as many operations there as back."""
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


def test_jobs_alternate():
    """One warm-up of each, then A B A B."""
    seen = []
    times = interleaved_times([lambda: seen.append("a"), lambda: seen.append("b")], 2, "cpu")
    assert "".join(seen) == "ababab"
    assert len(times) == 2
    assert all(t >= 0 for t in times)


def test_a_peak_is_what_a_job_took_for_a_while():
    """64 MiB held and given back show in the peak; nothing shows where nothing is taken."""
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


def test_on_a_gpu_the_goals_stand_beside_what_was_measured(report):
    """The row of a full audit on CUDA names the goal of 3 s."""
    report.device = "cuda:0"
    cells = [re.split(r"\s*\|\s*", line.strip("| ")) for line in render_speed(report).splitlines()]
    audit = ["timm:a", "224", "64", "2", "2.50 s", "900 ms", "30 MiB", "3 s (ResNet-50, 64 images)"]
    assert audit in cells


def test_a_full_audit_covers_every_protocol_that_takes_gradients_and_no_other():
    """Four of erf and two of deadpixel; statistics are part of the time."""
    bench = open_bench("timm:test_resnet@init", device="cpu", count=4, batch=2, rounds=1)
    found = full_audit(bench, SUITES)
    assert set(found.cells) == {
        *(f"erf:{name}" for name in ("energy", "kim2023", "replknet2022", "luo2016")),
        *(f"deadpixel:{name}" for name in ("energy", "kim2023")),
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
    """One run over a tiny model: every table has its row, and the file holds what was printed."""
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
    assert text.count("timm:test_resnet@init") == 4


def test_an_unknown_suite_is_answered_with_near_names():
    """`structur` exits with 1 and suggests `structure`."""
    done = CliRunner().invoke(app, ["bench", "--suite", "structur"])
    assert done.exit_code == 1
    assert "did you mean structure?" in done.output
