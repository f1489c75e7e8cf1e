"""The command for a GPU, rehearsed on the CPU: one small model, and what happens when it is cut."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_XDIST")}


def documented_command() -> list[str]:
    """The rehearsal as CONTRIBUTING.md gives it, by this interpreter."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (line,) = re.findall(r"^ +(python tests/gpu/run\.py .*--small)", text, re.MULTILINE)
    return [sys.executable, *shlex.split(line)[1:]]


def start(out: Path, *more: str) -> subprocess.Popen[str]:
    """The documented command with another folder for its results."""
    command = documented_command()
    command[command.index("--out") + 1] = str(out)
    return subprocess.Popen(
        [*command, *more],
        cwd=ROOT,
        env=ENVIRONMENT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def result(out: Path) -> dict:
    return json.loads((out / "gpu.json").read_text())


def wait_for(path: Path, process: subprocess.Popen[str]) -> None:
    """Wait until there is a file, or the process has ended without it."""
    while not path.exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.05)


def test_the_documented_command_tests_and_measures_and_writes_its_page(tmp_path):
    """All tests that can run pass; every table is there; the page's other parts stay."""
    page = tmp_path / "page.md"
    old = "# Title\n\n<!-- measured: rehearsal -->\n\nold\n\n<!-- end: rehearsal -->\n\nby hand\n"
    page.write_text(old)
    process = start(tmp_path / "gpu", "--page", str(page), "--limit-s", "3000")
    output, _ = process.communicate()
    found = result(tmp_path / "gpu")
    assert process.returncode == 0, (output, found["parts"])
    assert not found["cut_off"]
    outcomes = {line["test"]: line["outcome"] for line in found["acceptance"]}
    assert set(outcomes.values()) == {"passed", "skipped"}
    assert sum(outcome == "passed" for outcome in outcomes.values()) > 10
    figures = found["bench"]["figures"]
    assert figures["audits"][0]["seconds"] > 0
    assert figures["throughput"][0]["images_per_s"] > 0
    assert figures["busy"][0]["reason"]
    assert figures["captures"][0]["reason"]
    assert figures["comparisons"][0]["agreement"] < 1e-3
    written = (tmp_path / "gpu" / "gpu.md").read_text().strip()
    assert page.read_text() == f"# Title\n\n{written}\n\nby hand\n"
    assert "| full gradient audit" in written


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_what_was_found_is_written(tmp_path, number):
    """It ends its part too, and says what was cut off."""
    process = start(tmp_path, "--limit-s", "3000")
    wait_for(tmp_path / "acceptance.log", process)
    process.send_signal(number)
    process.communicate(timeout=300)
    assert process.returncode == 3
    found = result(tmp_path)
    assert found["cut_off"] == signal.Signals(number).name
    assert found["parts"][0]["state"].startswith("cut off")
    assert found["parts"][1]["state"] == "not begun"
    assert "ended early" in (tmp_path / "gpu.md").read_text()


def test_when_the_time_is_up_it_ends_by_itself(tmp_path):
    """No test can have finished in a tenth of a second; the files are there all the same."""
    process = start(tmp_path, "--limit-s", "0.1")
    process.communicate(timeout=300)
    assert process.returncode == 3
    found = result(tmp_path)
    assert all(part["state"].startswith("cut off") for part in found["parts"])
    assert "No measurement was finished." in (tmp_path / "gpu.md").read_text()


def test_without_cuda_every_test_is_skipped_with_the_reason():
    """A machine without a GPU says why; one with a GPU runs them."""
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    command = [sys.executable, "-m", "pytest", "tests/gpu", "-p", "no:cacheprovider", "-q", "-rs"]
    done = subprocess.run(
        command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "CUDA is missing" in done.stdout
    assert "passed" not in done.stdout.splitlines()[-1]
