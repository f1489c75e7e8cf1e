"""The pytest plugin: a zoo's tests pass, fail and say why; nothing heavy loads before one asks."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
from small_nets import baseline

ROOT = Path(__file__).parents[1]
PLUGIN = "perimetry.bench.pytest_plugin"
TESTS = """
from small_nets import net, opened, perturbed
from perimetry.adapters.input_spec import InputSpec


def test_same(audit):
    assert audit(opened(net())).check("BASELINE").verdict.words == "not shown to differ"


def test_changed(audit):
    audit(opened(perturbed(0, 0.3))).check("BASELINE")


def test_changed_but_tolerated(audit):
    audit(opened(perturbed(0, 0.3))).check("BASELINE", tolerances="loose.toml")


def test_cannot_be_opened(audit):
    audit("timm:test_resnt@init").check("BASELINE", name="net")


def test_lacks_the_model(audit):
    audit("another").check("BASELINE")
"""


def pytest_in(folder, *arguments, **environment):
    """Run pytest in a process and a folder of their own, with the plugin, whether installed or not.

    The folder's own configuration counts, not this project's.
    """
    (folder / "pytest.ini").write_text("[pytest]\n")
    installed = any(entry.value == PLUGIN for entry in metadata.entry_points(group="pytest11"))
    plugin = [] if installed else ["-p", PLUGIN]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plugin, *arguments]
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": path, **environment},
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """One run of a zoo's test file."""
    folder = tmp_path_factory.mktemp("zoo")
    baseline(folder / "baseline")
    (folder / "loose.toml").write_text(
        'maps = "off"\nfingerprint = "off"\n[metrics."*"]\nabsolute = 1e9\n'
    )
    (folder / "test_zoo.py").write_text(TESTS.replace("BASELINE", str(folder / "baseline")))
    return pytest_in(folder, "-q", "--perimetry-device", "cpu")


def test_a_zoos_tests_pass_and_fail_as_their_models_do(done):
    """The same model and a tolerated change pass; a change and what cannot be measured fail."""
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "3 failed" in done.stdout
    for name in ("test_changed ", "test_cannot_be_opened ", "test_lacks_the_model "):
        assert f"FAILED test_zoo.py::{name}" in done.stdout


def test_a_failure_says_what_was_found_without_a_traceback_of_the_gate(done):
    """The report stands in the failure: verdict, detector, and near names where a name is wrong."""
    assert "FAIL net: regressed" in done.stdout
    assert "map deadpixel:energy.sensitivity" in done.stdout
    assert "could not measure" in done.stdout
    assert "did you mean test_resnet" in " ".join(done.stdout.split())
    assert "gate_judge.py" not in done.stdout


def test_torch_is_not_imported_when_pytest_starts(tmp_path):
    """A test file that uses no model waits for nothing heavy."""
    (tmp_path / "test_light.py").write_text(
        "import sys\n\n\ndef test_light():\n"
        "    assert 'perimetry.bench.pytest_plugin' in sys.modules\n"
        "    assert not {'torch', 'timm', 'numpy', 'pydantic'} & set(sys.modules)\n"
    )
    found = pytest_in(tmp_path, "-q")
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_entry_point_names_the_plugin():
    """What is installed for pytest to find is a module with the fixture."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (place,) = project["entry-points"]["pytest11"].values()
    assert place == PLUGIN
    assert hasattr(import_module(place), "audit")
