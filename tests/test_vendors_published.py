"""results/vendors: the README is what its script makes of its data, and says what they say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "results" / "vendors"


@pytest.fixture(scope="module")
def found():
    return json.loads((FOLDER / "decision.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def rows(found):
    return {row["row"]: row["cells"] for row in found["side_by_side"]}


def test_the_readme_is_what_its_script_makes_of_its_data():
    """Every sentence and table of the comparison follows from decision.json."""
    spec = importlib.util.spec_from_file_location("publish_vendors", FOLDER / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert module.render() == text
    assert "@" not in text


def test_the_planted_hole_is_placed_to_the_pixel(found):
    """40 x 40 pixels of b.onnx, and none of another file."""
    said = {one["topic"]: one["text"] for one in found["decision"]}["Dead regions"]
    assert "b.onnx (dead: 1600 pixels in rows 60 to 99, columns 120 to 159" in said
    assert "a.onnx, c.onnx and d.onnx have none" in said


def test_the_broken_file_is_told_from_the_sound_one(rows):
    """d.onnx is further off than c.onnx, at the border above all; b.onnx by a fifth."""
    _, holed, sound, broken = (
        float(cell.rstrip(" %")) if "%" in cell else 0.0
        for cell in rows["outputs against the first"]
    )
    assert 15 < holed < 25
    assert broken > 3 * sound
    drop = [float(cell) for cell in rows["padding.border_drop"]]
    assert drop[3] > 5 * max(drop[:3])


def test_the_page_says_which_stages_have_other_sizes():
    """27 x 27 and 6 x 6 units in place of 28 x 28 and 7 x 7."""
    page = (FOLDER / "report.html").read_text(encoding="utf-8")
    assert "1280 x 7 x 7 against" in page
    for size in ("240 x 28 x 28", "240 x 27 x 27", "1280 x 6 x 6"):
        assert size in page
