"""A script without a guard that starts workers gets an error that says so, and its run ends."""

import json
import multiprocessing
import subprocess
import sys
from functools import partial

import pytest

from perimetry.bench.execution.engines.process import each_bounded
from perimetry.bench.execution.settings import RunOptions

SCRIPT = """
from pathlib import Path
from perimetry.bench.cli.main import app
app(["run", "timm:test_resnet@init", "--out", "out", "--suite", "structure",
     "--kernel-padding", "none", "--device", "cpu"])
"""


def test_a_script_without_a_guard_learns_what_to_add(tmp_path):
    """An unguarded script exits with 1 and its record names the missing `__main__` guard."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    (path,) = (tmp_path / "out" / "records").glob("*.json")
    assert "__main__" in json.loads(path.read_text())["error"]["message"]


def test_a_process_that_cannot_start_says_why(monkeypatch):
    """The error is multiprocessing's own, which names the guard, and not one of the clean-up."""

    def refuse(_process):
        raise RuntimeError("use the proper idiom: if __name__ == '__main__'")

    monkeypatch.setattr(multiprocessing.get_context("spawn").Process, "start", refuse)
    with pytest.raises(RuntimeError, match="__main__"):
        each_bounded([partial(int, "3")], RunOptions("cpu"), log=False)
