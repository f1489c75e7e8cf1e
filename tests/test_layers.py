"""The packages import downwards only, and the wheel holds what the folders hold."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
LAYERS = ("adapters", "suites", "bench")
ALLOWED = {"adapters": {"adapters"}, "suites": {"suites", "adapters"}, "bench": set(LAYERS)}
MODEL_SIDE = {"adapters.model", "adapters.device", "adapters.errors"}
HEAVY = {"timm", "onnxruntime", "onnx"}


def imported(path: Path):
    """Every imported module of a file: `adapters.model` for ours, the dotted name for others."""
    layer = path.parent.name
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.module or ""
        elif isinstance(node, ast.ImportFrom):
            base = [layer] if node.level == 1 else []
            stem = ".".join([*base, *([node.module] if node.module else [])])
            yield from (
                [stem] if node.module else [f"{stem}.{a.name}".strip(".") for a in node.names]
            )


def files(layer: str) -> list[Path]:
    found = sorted((ROOT / layer).glob("*.py"))
    assert found, f"no files in {layer}"
    return found


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_down_only(layer):
    """bench -> suites -> adapters, and bench -> adapters; never up."""
    for path in files(layer):
        for name in imported(path):
            top = name.partition(".")[0]
            assert top not in LAYERS or top in ALLOWED[layer], f"{path.name} imports {name}"
            assert top != "perimetry", f"{path.name} imports {name} absolutely"


def test_suites_know_models_only_through_their_contract():
    """Suites import nothing of adapters but the Model protocol and the errors."""
    for path in files("suites"):
        ours = {n for n in imported(path) if n.startswith("adapters")}
        assert ours <= MODEL_SIDE, f"{path.name} imports {ours - MODEL_SIDE}"


def test_suites_import_no_runtime():
    """No suite imports timm, onnx or onnxruntime, at the top or inside a function."""
    for path in files("suites"):
        tops = {name.partition(".")[0] for name in imported(path)}
        assert not tops & HEAVY, f"{path.name} imports {tops & HEAVY}"


def test_the_reader_of_imports_sees_every_form(tmp_path):
    """The check itself sees relative, absolute, nested and bare imports."""
    folder = tmp_path / "suites"
    folder.mkdir()
    path = folder / "x.py"
    path.write_text(
        "import os.path\nfrom ..bench import store\nfrom .. import adapters\n"
        "def f():\n    from . import maps\n    from timm.models import x\n"
    )
    assert set(imported(path)) == {"os.path", "bench", "adapters", "suites.maps", "timm.models"}


def test_every_folder_with_code_is_in_the_wheel():
    """The packages of the wheel are exactly the folders of code, and none of them is nested."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(settings["packages"]) == {f"perimetry.{layer}" for layer in LAYERS}
    assert settings["package-dir"] == {f"perimetry.{layer}": layer for layer in LAYERS}
    for layer in LAYERS:
        nested = list((ROOT / layer).glob("*/*.py"))
        assert not nested, f"{nested} would be missing from the wheel"
        assert (ROOT / layer / "py.typed").exists()


@pytest.mark.parametrize("layer", LAYERS)
def test_the_installed_package_has_every_module(layer):
    """What is installed as perimetry.X has the same modules as the folder X."""
    import importlib

    package = importlib.import_module(f"perimetry.{layer}")
    folder = next(p for p in map(Path, package.__path__) if p.is_dir())
    assert {p.name for p in folder.glob("*.py")} == {p.name for p in files(layer)}
    assert (folder / "py.typed").exists()
