"""`--precision-goal`: images are taken until the interval is as narrow as asked for."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import save
from PIL import Image
from test_opaque import unknown
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.comparison.compatibility import incompatibilities
from perimetry.bench.execution.settings import RunOptions, Settings
from perimetry.bench.execution.sweep import Sweep

MODEL = "timm:test_resnet@init"
SUITES = ("deadpixel", "erf", "fidelity")
FEW = {"size": (96, 96), "count": 4}
GOAL = 0.1
"""Reached with 8 images as the network is, and with 32 with kernel padding `box`."""


def command(*words):
    return CliRunner().invoke(app, list(words))


def by_suite(records):
    return {(r.fill, r.suite): r for r in records}


def half_width(record):
    value = record.metrics["weakest"]
    return max(value.value - value.low, value.high - value.value)


@pytest.fixture(scope="module")
def reached():
    """All suites with and without kernel padding, with the images that the goal needs."""
    return audit(MODEL, (*SUITES, "erf:luo2016"), ("none", "box"), precision_goal=GOAL, **FEW)


def test_images_are_added_until_the_interval_is_narrow_enough():
    """The goal is reached with more images than `count`; no note is needed then."""
    loose = by_suite(audit(MODEL, SUITES, **FEW))["none", "deadpixel"]
    goal = half_width(loose) / 2
    tight = by_suite(audit(MODEL, SUITES, precision_goal=goal, **FEW))["none", "deadpixel"]
    assert half_width(tight) <= goal
    assert tight.images.count > loose.images.count == 4
    assert not any("precision goal" in note for note in tight.notes)


@pytest.mark.parametrize("fill", ["none", "box"])
def test_the_numbers_are_those_of_a_run_with_as_many_images(reached, fill):
    """A goal that is reached at n images gives the numbers of a run with n images."""
    own = {(r.suite, r.protocol): r for r in reached if r.fill == fill}
    (count,) = {r.images.count for r in own.values()}
    for same in audit(MODEL, SUITES, (fill,), size=(96, 96), count=count, members=count):
        if same.fill != fill:
            continue
        record = own[same.suite, same.protocol]
        assert same.metrics == record.metrics
        assert all((same.maps[name] == record.maps[name]).all() for name in record.maps)


def test_all_suites_of_a_variant_see_the_same_images(reached):
    """Gradient suites and suites of forward passes measure the same images."""
    found = [r for r in reached if r.fill == "box"]
    assert {r.suite for r in found} == set(SUITES)
    (count,) = {r.images.count for r in found}
    assert count > 4


def test_a_goal_that_is_not_reached_says_so():
    """The record keeps what was measured, with the half width that was reached."""
    records = audit(MODEL, SUITES, precision_goal=1e-4, most_images=6, **FEW)
    for record in records:
        assert record.images.count == 6
        assert any("after 6 images" in n and "--most-images" in n for n in record.notes)


def test_the_run_names_the_models_that_missed_the_goal(monkeypatch, tmp_path):
    """A line for each variant, with the half width that was reached, below the counts."""
    (record,) = audit(MODEL, SUITES[:1], ("none",), precision_goal=1e-4, most_images=6, **FEW)
    monkeypatch.setattr(Sweep, "_measure", lambda *_args: [record])
    lines = []
    settings = Settings(count=4, size=(96, 96), precision_goal=1e-4, most_images=6)
    Sweep([MODEL], ["deadpixel"], ["none"], settings, RunOptions("cpu"), tmp_path).carry_out(
        lines.append
    )
    (said,) = [line for line in lines if "precision goal" in line]
    assert said.startswith(f"perimetry: {MODEL} (none): the half width is ")


@pytest.mark.parametrize(
    ("members", "words"),
    [(1, "raise --most-images"), (4, "the 4 weight sets"), (3, "no interval below 4 samples")],
)
def test_a_goal_that_is_not_reached_names_what_the_samples_are(members, words):
    """Few weight sets are told: without an interval a goal is not reached, whatever the images."""
    few = {"members": members, "most_images": 6, "precision_goal": 1e-4}
    (record,) = audit(MODEL, SUITES[:1], ("none",), **few, **FEW)
    (note,) = [note for note in record.notes if "precision goal" in note]
    assert words in note
    assert ("--members" in note) == (members > 1)


def test_a_goal_is_not_reached_by_images_too_few_for_an_interval():
    """Two images have no interval; more are taken until there is one that meets the goal."""
    few = FEW | {"count": 2, "precision_goal": 0.3, "most_images": 64}
    (record,) = audit(MODEL, SUITES[:1], ("none",), members=1, **few)
    assert record.images.count >= 4
    assert half_width(record) <= 0.3


def test_a_model_without_the_metric_is_measured_with_the_first_images():
    """A map without a stride has no least sensitive phase, so nothing says how many suffice."""
    flat = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
    (record,) = audit(flat, ("deadpixel",), precision_goal=0.05, **FEW)
    assert record.metrics["weakest"].value is None
    assert record.images.count == 4
    assert any(record.metrics["weakest"].reason in note for note in record.notes)


def test_variants_that_took_different_numbers_of_images_compare(reached):
    """The set they were taken from and the goal are the same; another goal is another setting."""
    a, b = (r for r in reached if r.suite == "deadpixel")
    assert a.images.count != b.images.count
    assert incompatibilities(a, b) == []
    (other,) = audit(MODEL, SUITES[:1], precision_goal=0.5, **FEW)
    assert incompatibilities(a, other)


def test_the_first_images_of_a_folder_are_a_random_sample(tmp_path):
    """Files in the order of their names often lie by class; the order is seeded."""
    for i in range(12):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(tmp_path / f"{i:02}.png")
    opened = [Settings(str(tmp_path), 4, s, precision_goal=0.1).open_images() for s in (0, 0, 1)]
    names = [[p.name for p in images.files] for images in opened]
    assert names[0] == names[1] != names[2]
    assert names[0] != sorted(names[0])
    assert sorted(names[0]) == [f"{i:02}.png" for i in range(12)]
    assert [p.name for p in opened[0].first(3).files] == names[0][:3]


def test_a_file_without_gradients_takes_part(tmp_path):
    """A file without gradients is measured by forward passes on `count` images."""
    path = save(unknown(), tmp_path / "net.onnx")
    records = audit(str(path), SUITES, precision_goal=0.05, count=4)
    found = {f"{r.suite}:{r.protocol}": (r.status, r.images.count) for r in records}
    assert found["perturbation:forward"] == found["erf:blocks"] == ("ok", 4)
    assert found["deadpixel:energy"][0] == found["erf:energy"][0] == "skipped"


@pytest.mark.parametrize(
    "settings", [{"precision_goal": 0.0}, {"precision_goal": 0.1, "most_images": 3, "count": 4}]
)
def test_goals_that_cannot_be_reached_are_refused(settings):
    """A half width of 0 and a maximum of images below the initial number are refused."""
    with pytest.raises(InputError):
        Settings(**settings)


def test_a_goal_needs_the_suite_that_it_is_about():
    """A goal for a suite that is not run is an error."""
    with pytest.raises(InputError, match="deadpixel"):
        audit(MODEL, ("erf",), precision_goal=0.1)


def test_a_run_resumes_and_verifies(tmp_path):
    """The goal is part of the key; the same command measures nothing, `verify` finds the same."""
    out = str(tmp_path / "out")
    words = ("run", MODEL, "--out", out, "--size", "96", "--count", "4", "--suite", "deadpixel",
             "--precision-goal", f"{GOAL}", "--device", "cpu",
             "--kernel-padding", "none")  # fmt: skip
    assert command(*words).exit_code == 0
    counts = {r.images.count for r in load_records(out)}
    assert max(counts) > 4
    again = command(*words)
    assert again.exit_code == 0
    assert "precision goal" not in again.output
    assert "records made: none" in again.output
    assert command("verify", out).exit_code == 0
