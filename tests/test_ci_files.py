"""The composite action, the pre-commit hook and the Dockerfile: what they run, run as it stands."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import onnx_files
import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

from perimetry.bench.cli.main import app

ROOT = Path(__file__).parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text())
SHELL = ["bash", "--noprofile", "--norc", "-eo", "pipefail"]
"""What GitHub runs for `shell: bash`."""
PERIMETRY = """#!{python}
import json, os, sys
json.dump(sys.argv[1:], open(os.environ["SEEN"], "w"))
sys.exit(int(os.environ["CODE"]))
"""


def step(place, tmp_path, *, code=0, **inputs):
    """Run one step with the defaults of the action, `inputs`, and a `perimetry` that notes them."""
    values = {name: one.get("default", "") for name, one in ACTION["inputs"].items()} | inputs
    own = ACTION["runs"]["steps"][place]
    environment = {
        name: values[text.removeprefix("${{ inputs.").removesuffix(" }}")]
        for name, text in own["env"].items()
    }
    for name in ("perimetry", "python"):
        program = tmp_path / name
        program.write_text(PERIMETRY.format(python=sys.executable))
        program.chmod(0o755)
    script = tmp_path / "step.sh"
    script.write_text(own["run"])
    done = subprocess.run(
        [*SHELL, str(script)],
        env={
            "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}",
            "SEEN": str(tmp_path / "seen.json"),
            "CODE": str(code),
            "GITHUB_OUTPUT": str(tmp_path / "output"),
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
    )
    seen = tmp_path / "seen.json"
    return done, json.loads(seen.read_text()) if seen.exists() else None


@pytest.mark.parametrize(("code", "verdict"), [(0, "PASS"), (1, "FAIL"), (2, "ERROR")])
def test_the_step_ends_with_the_exit_code_of_the_check_and_says_its_verdict(
    code, verdict, tmp_path
):
    """Under `bash -e` codes 1 and 2 would end the step before it wrote its outputs."""
    done, _ = step(1, tmp_path, code=code, baseline="base")
    assert done.returncode == code, done.stderr
    written = (tmp_path / "output").read_text().splitlines()
    assert written == [f"verdict={verdict}", f"exit-code={code}"]


def test_the_inputs_of_the_action_become_options_and_nothing_else(tmp_path):
    """Names with spaces and quotes are single arguments, and no text is run by the shell."""
    _, plain = step(1, tmp_path, baseline="base")
    assert plain == [
        *("check", "--baseline", "base", "--workers", "1", "--junit", "perimetry.xml", "--"),
    ]
    hostile = "a b'\"$(touch planted)`.onnx"
    _, seen = step(
        1,
        tmp_path,
        baseline="my base",
        models=f"timm:test_resnet@init\n\n{hostile}\n",
        tolerances="t.toml",
        images="pictures",
        workers="2",
        junit="j.xml",
    )
    assert seen == [
        *("check", "--baseline", "my base", "--workers", "2", "--junit", "j.xml"),
        *("--tolerances", "t.toml", "--images", "pictures", "--"),
        *("timm:test_resnet@init", hostile),
    ]
    assert not list(tmp_path.glob("**/planted"))


@pytest.mark.parametrize(("wanted", "seen"), [("perimetry==1", True), ("", False)])
def test_the_package_is_installed_unless_that_is_left_empty(wanted, seen, tmp_path):
    """One argument of pip."""
    done, arguments = step(0, tmp_path, install=wanted)
    assert done.returncode == 0, done.stderr
    assert arguments == (["-m", "pip", "install", wanted] if seen else None)


@pytest.fixture(scope="module")
def baseline(tmp_path_factory):
    """A folder with a model, and the folder `baseline` with its records."""
    folder = tmp_path_factory.mktemp("zoo")
    onnx_files.save(onnx_files.convnet(), folder / "a.onnx")
    common = ["--suite", "structure", "--kernel-padding", "none", "--device", "cpu"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        made = CliRunner().invoke(app, ["run", "a.onnx", "--out", "baseline", *common])
    assert made.exit_code == 0, made.output
    return folder


@pytest.fixture
def zoo(baseline, monkeypatch):
    """The folder with model and baseline as the working folder."""
    monkeypatch.chdir(baseline)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)


def test_the_step_passes_with_the_installed_program(zoo, tmp_path):
    """The arguments that it makes are those of the command, on a real baseline and model."""
    program = [str(Path(sys.executable).parent / "perimetry")]
    report = tmp_path / "j.xml"
    _, arguments = step(1, tmp_path, baseline="baseline", junit=str(report), models="a.onnx")
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("PASS a.onnx")
    assert report.exists()


def test_the_hook_checks_changed_files_and_says_of_a_new_one_how_to_add_it(zoo):
    """As pre-commit calls it: entry, arguments, names of files."""
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    program, *words = [*shlex.split(hook["entry"]), *hook["args"]]
    assert program in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    shutil.copy("a.onnx", "b.onnx")
    done = CliRunner().invoke(app, [*words, "a.onnx", "b.onnx"])
    assert done.exit_code == 2
    assert "ERROR b.onnx" in done.output
    assert "PASS a.onnx" in done.output


def test_the_dockerfile_starts_the_program_with_a_command_that_it_has():
    """Ten lines at most, of known instructions; not run as root."""
    lines = (ROOT / "examples" / "Dockerfile").read_text().splitlines()
    assert len(lines) <= 10
    found = dict(line.split(" ", 1) for line in lines if not line.startswith("#"))
    assert list(found) == ["FROM", "RUN", "USER", "WORKDIR", "ENTRYPOINT", "CMD"]
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    (program,) = json.loads(found["ENTRYPOINT"])
    assert program in scripts
    (command,) = json.loads(found["CMD"])
    assert command in get_command(app).commands
    assert found["USER"] != "root"
