"""The examples folder: each file does what it says."""

from __future__ import annotations

import runpy
import shlex
import subprocess
import sys
from pathlib import Path

import onnx_files
import pytest
import timm
import torch
import typer
import yaml
from test_plugin import pytest_in
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.regression.tolerances import OFF, read_tolerances

EXAMPLES = Path(__file__).parents[1] / "examples"
REFERENCE = "timm:test_resnet@init"


@pytest.fixture(scope="module")
def zoo(tmp_path_factory):
    """A folder with a baseline as the example's first command makes it."""
    folder = tmp_path_factory.mktemp("zoo")
    done = CliRunner().invoke(
        app,
        ["run", REFERENCE, "--suite", "structure", "--kernel-padding", "none", "--device", "cpu",
         "--out", str(folder / "baseline")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def test_the_zoos_test_file_runs_and_passes(zoo):
    """The example's test file passes on models that are as in the baseline."""
    (zoo / "test_zoo.py").write_text((EXAMPLES / "test_zoo.py").read_text())
    options = ["-q", "--perimetry-device", "cpu"]
    done = pytest_in(zoo, *options, "test_zoo.py", ZOO_MODELS=REFERENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout
    done = pytest_in(zoo, *options, "test_zoo.py")
    assert "1 failed, 1 passed" in done.stdout
    assert "--as" in done.stdout


def commands(workflow):
    """The `perimetry` command lines of a workflow, as lists of words."""
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    lines = [line for step in steps for line in step.get("run", "").splitlines()]
    return [shlex.split(line) for line in lines if line.startswith("perimetry ")]


def parsed(words):
    """The values that a command line gives to its command, which is not run."""
    _, name, *rest = words
    command = typer.main.get_command(app).commands[name]
    with command.make_context(name, rest) as context:
        return name, context.params


def test_the_workflow_parses_and_its_commands_are_commands():
    """The workflow is valid YAML, and every option of its commands exists."""
    workflow = yaml.safe_load((EXAMPLES / "check-models.yml").read_text())
    assert workflow[True] == {"pull_request": None}  # YAML reads the key `on` as true
    found = dict(parsed(words) for words in commands(workflow))
    assert set(found) == {"doctor", "check", "run", "compare"}
    assert found["check"]["junit"] == Path("models.xml")
    assert found["check"]["baseline"] == Path("baseline")
    assert found["compare"]["sides"] == ["baseline", "now"]
    with pytest.raises(Exception, match="No such option"):
        parsed(["perimetry", "check", "--baselin", "x"])


def test_the_workflows_gate_passes_on_its_own_baseline(zoo, monkeypatch):
    """The check command as it stands in the workflow, run where its files are."""
    workflow = yaml.safe_load((EXAMPLES / "check-models.yml").read_text())
    (check,) = [words for words in commands(workflow) if words[1] == "check"]
    (zoo / "tolerances.toml").write_text((EXAMPLES / "tolerances.toml").read_text())
    monkeypatch.chdir(zoo)
    done = CliRunner().invoke(app, check[1:])
    assert done.exit_code == 0, done.output
    assert (zoo / "models.xml").exists()


def test_the_example_tolerances_are_read():
    """The example file of tolerances is read, with its switched-off detectors and bounds."""
    found = read_tolerances(EXAMPLES / "tolerances.toml")
    assert (found.fingerprint, found.maps) == (OFF, OFF)
    assert found.bounds("deadpixel.weakest").direction == "worse"
    assert found.bounds("deadpixel.rawL1").ignore


def test_the_vendor_comparison_writes_its_report(tmp_path):
    """Two files give a Markdown report of metrics and stages whose pictures exist."""
    ours = onnx_files.save(onnx_files.convnet(), tmp_path / "ours.onnx")
    theirs = onnx_files.convnet()
    changed = onnx_files.weights(8, 3, 3, 3, seed=9)
    constant = next(i for i in theirs.graph.initializer if i.name == "w1")
    constant.raw_data = changed.tobytes()
    vendor = onnx_files.save(theirs, tmp_path / "vendor.onnx")
    script = runpy.run_path(str(EXAMPLES / "compare_vendors.py"))
    script["report"](tmp_path / "report.md", [ours, vendor], images=8)
    text = (tmp_path / "report.md").read_text()
    assert "vendor.onnx" in text
    assert "| `deadpixel.weakest`" in text
    assert "stage 1 of" in text
    pictures = [line.split("(")[-1].rstrip(")") for line in text.splitlines() if line[:1] == "!"]
    assert pictures
    assert all((tmp_path / picture).exists() for picture in pictures)


SWEEP = EXAMPLES / "sweep_gpu.py"


def sweep(*words):
    """Run the example's script and return what it printed."""
    done = subprocess.run(
        [sys.executable, str(SWEEP), *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_the_sweep_gives_each_model_the_largest_batch_that_fits():
    """A power of two, at most 256, and 0 where one image does not fit; hand-made sizes."""
    names = runpy.run_path(str(SWEEP))
    size, kept = names["Size"], names["KEPT"]
    model = size("timm:a", 1000, 100)
    for images, batch in ((0.99, 0), (1, 1), (1.99, 1), (2, 2), (63, 32), (64, 64), (1e6, 256)):
        assert model.batch(1000 + kept * 100 * images) == batch
    small, large = size("timm:small", 0, 1), size("timm:large", 0, 10**9)
    groups, left_out = names["plan"]([large, model, small], 2000 + 4 * kept * 100)
    assert groups == {256: ["timm:small"], 8: ["timm:a"]}
    assert left_out == ["timm:large"]


def test_weights_and_layers_of_the_sweep_are_counted():
    """The sweep counts all weights, and more outputs than those of the first convolution."""
    found = runpy.run_path(str(SWEEP))["size_of"](REFERENCE)
    with torch.device("meta"):
        net = timm.create_model("test_resnet")
    assert found.weights == 4 * sum(p.numel() for p in net.parameters())
    first = next(m for m in net.modules() if isinstance(m, torch.nn.Conv2d))
    assert found.outputs > 4 * first.out_channels * (160 // first.stride[0]) ** 2


def test_the_sweep_prints_commands_that_the_command_line_takes(tmp_path):
    """Large batches first; what stands after `--` is passed on; nothing is measured."""
    out = tmp_path / "zoo"
    text = sweep(
        *("--out", str(out), "--memory-gib", "1", "--device", "cpu", "--dry-run"),
        *("--models", REFERENCE, "timm:vit_large_patch16_384@init", "--", "--seed", "7"),
    )
    (line,) = [line for line in text.splitlines() if line.startswith("perimetry ")]
    name, options = parsed(shlex.split(line))
    assert (name, options["references"]) == ("run", [REFERENCE])
    assert (options["seed"], options["workers"]) == (7, 2)
    assert "vit_large_patch16_384@init: left out" in text
    assert [path.name for path in out.iterdir()] == ["sizes.csv"]


def test_the_sweep_measures_and_resumes(tmp_path):
    """The second run of the sweep finds every record present."""
    words = ("--out", str(tmp_path), "--memory-gib", "1", "--device", "cpu", "--models", REFERENCE)
    more = ("--", "--suite", "structure", "--kernel-padding", "none", "--count", "2")
    assert "1 ok" in sweep(*words, *more)
    assert "already present: 1" in sweep(*words, *more)
