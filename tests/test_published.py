"""The published sets: their READMEs, and the root README's tables, are what their data say."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest
import yaml

RESULTS = Path(__file__).parents[1] / "results"
SETS = ["timm-structure", "timm-init", "fit", "accuracy", "openerf", "by-name"]


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


def test_a_template_that_names_an_unknown_part_is_refused(monkeypatch, tmp_path):
    """A name with a typing error would stay in the text; addresses with one @ do stay."""
    made = script(RESULTS / "publishing.py", monkeypatch)
    template = tmp_path / "README.md.in"
    template.write_text("timm:a@FILE has @a 1 weakest@, @b.c@")
    assert made.filled(tmp_path, {"a 1 weakest": "0.5", "b.c": "2"}) == "timm:a@FILE has 0.5, 2"
    with pytest.raises(KeyError, match=r"b\.c"):
        made.filled(tmp_path, {"a 1 weakest": "0.5"})


def test_the_root_readmes_tables_are_those_of_the_published_sets(monkeypatch):
    """`python results/readme.py` would change nothing."""
    text = (RESULTS.parent / "README.md").read_text(encoding="utf-8")
    assert script(RESULTS / "readme.py", monkeypatch).render(text) == text


def test_the_list_of_sets_names_every_set_with_its_protocol_versions(monkeypatch):
    """`results/README.md` is what `python results/readme.py` makes of the packed records."""
    made = script(RESULTS / "readme.py", monkeypatch)
    text = (RESULTS / "README.md").read_text(encoding="utf-8")
    assert made.render_index(text) == text
    rows = [line for line in text.splitlines() if line.startswith("| [")]
    assert len(rows) == len([path for path in RESULTS.iterdir() if (path / "README.md").exists()])


def test_a_stale_table_is_named_and_ends_with_1(monkeypatch, tmp_path, capsys):
    """With `--check` nothing is written."""
    made = script(RESULTS / "readme.py", monkeypatch)
    stale = tmp_path / "README.md"
    marks = ("board", "seeds", "structure", "measured")
    stale.write_text("".join(f"<!-- {name} -->old<!-- / -->" for name in marks))
    monkeypatch.setattr(made, "README", stale)
    assert made.main(check=True) == 1
    assert str(stale) in capsys.readouterr().out
    assert "old" in stale.read_text()


def test_the_workflow_of_the_sets_runs_commands_that_exist():
    """Every script that the workflow names is there, and the sets of its matrix have records."""
    workflow = yaml.safe_load((RESULTS.parent / ".github/workflows/published.yml").read_text())
    named = re.findall(r"\S+\.py", str(workflow))
    assert named
    assert all((RESULTS.parent / name).exists() for name in named)
    for name in workflow["jobs"]["sample"]["strategy"]["matrix"]["set"]:
        assert (RESULTS / name / "records.jsonl.gz").exists()


def test_a_readme_without_its_marks_is_refused(monkeypatch):
    """A table that has no place would go stale unseen."""
    with pytest.raises(ValueError, match="'board'"):
        script(RESULTS / "readme.py", monkeypatch).render("# nothing here")
