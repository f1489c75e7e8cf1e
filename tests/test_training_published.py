"""results/training: the README is what its script makes of its data, and the data are whole."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from perimetry.bench.records.archive import open_records

FOLDER = Path(__file__).parents[1] / "results" / "training"


@pytest.fixture(scope="module")
def publish():
    spec = importlib.util.spec_from_file_location("publish_training", FOLDER / "publish.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_is_what_its_script_makes_of_its_data(publish):
    """Every table follows from the packed records; no mark is left over."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert publish.render() == text
    assert "@" not in text.replace("@init", "")


def test_every_variant_of_both_tasks_is_published_over_the_same_seeds(publish):
    """At least four seeds, so that every mean has its interval."""
    records = open_records(FOLDER / "records.jsonl.gz").records()
    assert {(r.protocol, r.fill) for r in records} == {
        (task, fill) for task in publish.SEEDS for fill in publish.FILLS
    }
    for task, count in publish.SEEDS.items():
        seeds = {tuple(r.settings["seeds"]) for r in records if r.protocol == task}
        assert seeds == {tuple(range(count))}
        assert count >= 4


def test_differences_are_those_of_a_paired_t_interval(publish):
    """Differences and intervals equal those of scipy's paired t-test."""
    from scipy.stats import ttest_rel

    records = open_records(FOLDER / "records.jsonl.gz").records()
    plain, *treated = publish.of_task(records, "classification")
    for record in treated:
        own, other = ([row["accuracy"] for row in r.tables["seeds"]] for r in (record, plain))
        interval = ttest_rel(own, other).confidence_interval(0.95)
        found = publish.change(record, plain, "accuracy")
        assert found[1:] == pytest.approx((interval.low, interval.high))


def test_pictures_are_there():
    """Curves and maps of both tasks, as the README shows them."""
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for task in ("micro_object", "classification"):
        for kind in ("curves", "maps"):
            assert f"({task}.{kind}.png)" in text
            assert (FOLDER / f"{task}.{kind}.png").stat().st_size > 10_000
