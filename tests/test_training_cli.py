"""`perimetry train` from the command line to tables, pictures, records and models."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.model_report.provenance import repeat
from perimetry.bench.records.store import Store
from perimetry.bench.training.figures import draw_panel
from perimetry.bench.training.report import seeds_text
from perimetry.suites.registry import SUITES
from perimetry.suites.training.suite import TRAINING

SMALL = ("--network", "tiny-resnet", "--size", "24", "--train", "32", "--test", "16")
SHORT = (*SMALL, "--epochs", "1", "--batch", "16", "--device", "cpu")


def train(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run")
    done = train("--out", out, *SHORT, "--seeds", 4)
    assert done.exit_code == 0, done.output
    return out, done.output


def test_both_tasks_and_variants_get_records_with_every_metric(run):
    """A record a task and fill; each metric has a value, or the reason why not."""
    out, _ = run
    records = Store(out).records()
    assert {(r.protocol, r.fill) for r in records} == {
        (task, fill) for task in TRAINING.protocols for fill in ("none", "zero")
    }
    for record in records:
        assert record.status == "ok"
        assert record.model.members == 4
        assert set(record.metrics) == {m.name for m in TRAINING.metrics}
        assert (
            record.images.name
            == {"micro_object": "dead-leaves", "classification": "digits"}[record.protocol]
        )


def test_the_summary_has_variants_and_paired_differences(run):
    """Every reported metric, the intervals, and what is compared with what."""
    _, output = run
    for text in ("epochs_to_90", "minus none", "[+0.000, +0.000]", "Means over 4 seeds"):
        assert text in output


def test_curves_and_maps_are_drawn(run):
    """Curves and a panel are drawn for each task, and the maps of each network."""
    out, _ = run
    names = {path.name for path in (out / "pictures").iterdir()}
    for task in TRAINING.protocols:
        assert {f"{task}.curves.png", f"{task}.maps.png"} <= names
        for fill in ("none", "zero"):
            assert f"tiny-resnet.{fill}.training-{task}.erf_end.png" in names
    assert all((out / "pictures" / name).stat().st_size > 1000 for name in names)


def test_the_first_seeds_networks_become_onnx_files(run):
    """The first seed's networks are written as one ONNX file per task and fill."""
    out, _ = run
    assert {path.name.partition(".")[0] for path in (out / "models").glob("*.onnx")} == {
        f"tiny-resnet-{task}-{fill}-seed0"
        for task in ("micro-object", "classification")
        for fill in ("none", "zero")
    }


def test_the_other_commands_read_the_records(run):
    """`board` ranks the records of a training, and `show` reports them."""
    out, _ = run
    board = CliRunner().invoke(app, ["board", str(out), "--format", "csv"])
    assert board.exit_code == 0, board.output
    assert "training:classification.accuracy" in board.output
    shown = CliRunner().invoke(app, ["show", str(out), "--kernel-padding", "zero"])
    assert shown.exit_code == 0, shown.output
    assert "Measured: accuracy on the test images" in shown.output
    assert "The model was trained with padded kernels from the first step." in shown.output
    assert "training.erf_end" in shown.output


def test_the_command_that_show_names_makes_the_same_records_again(run, tmp_path):
    """Given as it stands, it finds keys equal to those of the records it was made from."""
    out, _ = run
    records = [r for r in Store(out).records() if r.protocol == "micro_object"]
    words = shlex.split(repeat(records, SUITES))
    assert words[:2] == ["perimetry", "train"]
    done = train(*words[2:-1], tmp_path, "--device", "cpu")
    assert done.exit_code == 0, done.output
    assert {r.key for r in Store(tmp_path).records()} == {r.key for r in records}


def test_a_spent_budget_says_what_is_undone(tmp_path):
    """Nothing is measured, nothing is broken, and the next variant is named."""
    done = train("--out", tmp_path, *SHORT, "--budget", 0, "--task", "micro_object")
    assert done.exit_code == 0, done.output
    assert "10 runs remaining" in done.output
    assert "micro_object, none, seed 0" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--task", "micro"), "did you mean micro_object"),
        (("--kernel-padding", "none,zeros"), "did you mean zero"),
        (("--kernel-padding", "none,fit"), "expected some of none, zero"),
        (("--network", "tiny-resnets"), "did you mean tiny-resnet"),
        (("--data", "dead-leaves"), "classification needs two"),
        (("--data", "nowhere"), "neither a folder nor built in"),
        (("--box", "20"), "expected 1 to half a side"),
        (("--batch", "64", "--task", "micro_object"), "fewer than a batch of 64"),
        (("--size", "x"), "expected SIDE or HEIGHTxWIDTH"),
    ],
)
def test_slips_are_one_line_on_standard_error(tmp_path, arguments, message):
    """A wrong argument exits with 1, a message and no traceback."""
    done = train("--out", tmp_path, *SHORT, *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


def test_the_suite_skips_every_model_and_says_which_command_to_give():
    """`run --suite training` skips each model and names the command to use."""
    assert "perimetry train" in SUITES["training"].skip(None, "micro_object")


def test_a_panel_takes_maps_of_nothing(tmp_path):
    """A network that answers all boxes alike has a contrast of 0 everywhere; it is still drawn."""
    record = SimpleNamespace(fill="none", maps={"phase_contrast": np.zeros((2, 2))})
    assert draw_panel([record], tmp_path / "x.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("seeds", "text"),
    [
        ({1}, "1 seed; .*--seeds 4"),
        ({3}, "3 seeds; .*--seeds 4"),
        ({5}, "5 seeds with 95 % intervals; "),
        ({2, 5}, "2 or 5 seeds with 95 % intervals for tasks with at least 4; "),
    ],
)
def test_a_summary_promises_no_interval_that_its_seeds_do_not_give(seeds, text):
    """The summary of one seed does not speak of 95 % intervals."""
    assert re.search(text, seeds_text(seeds))
