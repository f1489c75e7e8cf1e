"""The published sets: their READMEs, and the root README's tables, are what their data say."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

RESULTS = Path(__file__).parents[1] / "results"
SETS = ["timm-structure", "timm-init", "fit", "accuracy", "openerf"]


def script(path, monkeypatch):
    """The script at `path` as a module; what it puts on the path for itself is taken back."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    spec = importlib.util.spec_from_file_location(f"script_{abs(hash(path))}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SETS)
def test_a_sets_readme_is_what_its_script_makes_of_its_data(name, monkeypatch):
    """`python results/NAME/publish.py` would change nothing."""
    made = script(RESULTS / name / "publish.py", monkeypatch).render()
    assert (RESULTS / name / "README.md").read_text(encoding="utf-8") == made


def test_the_root_readmes_tables_are_those_of_the_published_sets(monkeypatch):
    """`python results/readme.py` would change nothing."""
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert script(RESULTS / "readme.py", monkeypatch).render(text) == text


def test_a_readme_without_its_marks_is_refused(monkeypatch):
    """A table that has no place would go stale unseen."""
    with pytest.raises(ValueError, match="marks 'board' 0 times"):
        script(RESULTS / "readme.py", monkeypatch).render("# nothing here")
