"""The public interface: what `perimetry` exports, its page of examples, a user's typed program."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

import perimetry
from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.records.archive import pack_records
from perimetry.bench.records.store import Store

ROOT = Path(__file__).resolve().parents[1]
REFERENCE = "timm:test_resnet@init"
PROGRAM = Path(__file__).with_name("user_program.py")
FUNCTIONS = ("audit", "check", "compare", "leaderboard", "load_records")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Records of two models, from the command line."""
    folder = tmp_path_factory.mktemp("public") / "mine"
    done = CliRunner().invoke(
        app,
        ["run", "timm:test_resnet@init", "timm:test_vit@init", "--suite", "structure",
         "--kernel-padding", "none", "--device", "cpu", "--out", str(folder)],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    return folder


def run(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_package_loads_no_runtime():
    """Importing perimetry loads neither torch, nor another heavy package, nor its folders."""
    loaded = set(run("import sys, perimetry; dir(perimetry); print(*sys.modules)"))
    assert not {"torch", "timm", "onnx", "numpy", "pandas", "pydantic", "perimetry.bench"} & loaded


def test_the_functions_are_functions_whatever_was_imported_before():
    """No module of the package has the name of one of them."""
    code = (
        "import perimetry.bench.cli.main, perimetry.bench.execution.audit, perimetry\n"
        "import perimetry.bench.comparison.compare, perimetry.bench.regression.check\n"
        f"print(*(type(getattr(perimetry, name)).__name__ for name in {FUNCTIONS}))"
    )
    assert run(code) == ["function"] * len(FUNCTIONS)


def test_the_exported_names_are_listed_and_no_other_exists():
    """`dir` lists them; an unknown name raises AttributeError."""
    assert set(perimetry.__all__) == {*FUNCTIONS, "Record", "__version__"}
    assert set(perimetry.__all__) <= set(dir(perimetry))
    assert all(getattr(perimetry, name) is not None for name in perimetry.__all__)
    with pytest.raises(AttributeError, match="no attribute 'judge'"):
        perimetry.judge  # noqa: B018


def test_the_version_is_that_of_the_project():
    """`__version__` is the version in pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert perimetry.__version__ == project["version"]


def test_records_are_loaded_from_a_folder_and_from_a_packed_file(folder, tmp_path):
    """Both have the same keys, and the leaderboard of either path is that of the records."""
    records = perimetry.load_records(folder)
    assert {r.model.reference for r in records} == {"timm:test_resnet@init", "timm:test_vit@init"}
    pack_records(Store(folder), tmp_path / "mine.jsonl.gz")
    packed = perimetry.load_records(str(tmp_path / "mine.jsonl.gz"))
    assert {r.key for r in packed} == {r.key for r in records}
    frame = perimetry.leaderboard(records)
    assert frame.equals(perimetry.leaderboard(folder))
    assert list(frame["model"]) == list(perimetry.leaderboard(tmp_path / "mine.jsonl.gz")["model"])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"suites": "structure"}, r"suites='structure' was given.*\('structure',\)"),
        ({"kernel_padding": "box"}, r"kernel_padding='box' was given.*\('box',\)"),
        ({"size": 48}, r"size 48 was given; expected \(height, width\)"),
        ({"size": (48,)}, r"size \(48,\) was given"),
        ({"size": (48, 0)}, r"size \(48, 0\) was given"),
    ],
)
def test_one_name_or_number_in_place_of_several_is_told(wrong, said):
    """A text is no sequence of names, and a side no size: what to write is in the error."""
    with pytest.raises(InputError, match=said):
        perimetry.audit(REFERENCE, **({"suites": ("structure",)} | wrong))
    if "suites" in wrong:
        with pytest.raises(InputError, match=said):
            perimetry.compare(REFERENCE, REFERENCE, **wrong)


def test_an_unreadable_record_is_a_warning_and_an_empty_folder_an_error(folder, tmp_path):
    """An unreadable record is a warning beside the others; no readable record is an InputError."""
    for path in (folder / "records").iterdir():
        (tmp_path / "records").mkdir(exist_ok=True)
        (tmp_path / "records" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "records" / "broken.json").write_text("{")
    with pytest.warns(UserWarning, match=r"broken\.json"):
        found = perimetry.load_records(tmp_path)
    assert len(found) == len(perimetry.load_records(folder))
    with pytest.raises(InputError):
        perimetry.load_records(tmp_path / "nothing")


def test_every_example_of_the_page_runs(tmp_path, monkeypatch):
    """Every command and every Python example of docs/python.md runs, from top to bottom."""
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```", text, flags=re.M | re.S)
    names = {}
    for kind, block in blocks:
        if kind == "python":
            exec(compile(block, "docs/python.md", "exec"), names)  # noqa: S102
            continue
        for line in block.splitlines():
            done = CliRunner().invoke(app, line.split()[1:])
            assert done.exit_code == 0, done.output
    used = {name for name in perimetry.__all__ if name in names}
    assert used == set(FUNCTIONS)


def test_a_users_program_runs(folder):
    """It ends with the exit code of its check: 0, the model is what it was."""
    command = [sys.executable, PROGRAM, folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.rstrip().endswith("not shown to differ")


def test_a_users_program_type_checks(tmp_path):
    """`mypy --strict` on the program finds the installed package's types and no error."""
    pytest.importorskip("mypy")
    links = {"MYPYPATH": str(linked(tmp_path))} if editable() else {}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--warn-unused-ignores", str(PROGRAM)],
        capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **links},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def editable():
    """Whether the package is imported from the checkout, by a hook that mypy cannot follow."""
    return Path(perimetry.__file__).is_relative_to(ROOT)


def linked(folder):
    """A folder with the package in one piece."""
    package = folder / "perimetry"
    package.mkdir()
    for name in ("adapters", "suites", "bench"):
        (package / name).symlink_to(ROOT / name)
    for path in (ROOT / "src" / "perimetry").iterdir():
        (package / path.name).symlink_to(path)
    return folder
