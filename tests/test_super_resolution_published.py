"""results/super-resolution: README and records agree, and the records bear it out."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from perimetry import load_records

FOLDER = Path(__file__).parents[1] / "results" / "super-resolution"


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish_super_resolution", FOLDER / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_what_its_script_makes_of_its_data(publish):
    """Every number of the table follows from the packed records."""
    assert publish.render() == (FOLDER / "README.md").read_text(encoding="utf-8")


def test_what_the_readme_says_holds_in_the_records(publish):
    """Even outputs to two percent, an overlap below half of the exact one, a little position."""
    networks = publish.by_name(load_records(FOLDER / "records.jsonl.gz"))
    assert sorted(networks) == ["x2", "x3", "x4", "x8"]
    for own in networks.values():
        output, halo, position = (own[s].metrics for s in ("output", "halo", "position"))
        assert output["expected_weakest"].value == pytest.approx(1)
        assert output["weakest"].low > 0.98
        assert halo["smallest_overlap"].value < halo["exact_overlap"].value / 2
        assert position["row_r2"].low > 0
        assert position["column_r2"].low > 0
        assert own["deadpixel"].metrics["weakest"].value is None
