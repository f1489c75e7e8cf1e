"""results/fine-tuning: the README is what its script makes of its records, over the same seeds."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from perimetry.bench.records.archive import open_records

FOLDER = Path(__file__).parents[1] / "results" / "fine-tuning"


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish_fine_tuning", FOLDER / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def records():
    return open_records(FOLDER / "records.jsonl.gz").records()


def test_the_readme_is_what_its_script_makes_of_its_data(publish):
    """Every table and finding follows from the packed records; no mark is left over."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert publish.render() == text
    assert "@" not in text


def test_both_networks_and_tasks_have_at_least_three_paired_seeds(publish, records):
    """With and without kernel padding the seeds are the same."""
    pairs = publish.pairs(records)
    assert len(pairs) == 4
    for padded, plain in pairs.values():
        seeds = [[row["seed"] for row in r.tables["seeds"]] for r in (padded, plain)]
        assert seeds[0] == seeds[1]
        assert len(seeds[0]) >= 3


def test_the_pictures_are_there(publish, records):
    """One of curves for each network, as the README shows it."""
    for name, _ in publish.pairs(records):
        assert (FOLDER / f"{name}.png").is_file()
