"""A script without a guard that starts workers gets an error that says so, and its run ends."""

import json
import subprocess
import sys

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
