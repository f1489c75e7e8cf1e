"""The sample files that ship with the package are what they say they are."""

from __future__ import annotations

import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from perimetry.adapters.load import load
from perimetry.bench.cli.main import app
from perimetry.bench.demo import sample_files
from perimetry.suites.training.data import open_training_set
from perimetry.suites.training.micro_object import Boxes, draw_boxes, limit_range, paint_boxes

ROOT = Path(__file__).resolve().parents[1]
LARGEST = 2_000_000
"""Bytes of all of them together."""
MICRO = [name for name in sample_files() if "micro-object" in name]


def rng():
    import numpy as np

    return np.random.default_rng(123)


def test_there_are_padded_and_unpadded_files_for_both_tasks_and_they_are_small():
    """Both tasks have models with and without padding, together under two megabytes."""
    names = set(sample_files())
    for task in ("micro-object", "classification"):
        fills = {name.split("-")[-2] for name in names if task in name}
        assert {"none", "zero"} <= fills
    assert sum(path.stat().st_size for path in sample_files().values()) < LARGEST


def test_the_wheel_takes_them_along():
    """The pattern in pyproject.toml matches every sample file."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["perimetry.bench"]
    for path in (ROOT / "bench" / "sample_models").iterdir():
        assert any(fnmatch(f"sample_models/{path.name}", pattern) for pattern in patterns)


@pytest.mark.parametrize("name", MICRO)
def test_micro_object_samples_tell_red_from_black_on_new_images(name):
    """At least 95 % right on boxes and dead leaves of a seed they were not trained on."""
    model = load(str(sample_files()[name]), device="cpu")
    data = open_training_set("dead-leaves", size=(40, 40), train=1, test=48, seed=77)
    boxes = draw_boxes(48, (40, 40), 3, rng())
    seen = paint_boxes(limit_range(data.test.images()), Boxes(boxes.places, boxes.red), 3)
    logits = model.run(model.spec.prepare(seen), target=False, logits=True).logits
    right = (logits.argmax(1) == torch.from_numpy(boxes.red).long()).float().mean()
    assert right >= 0.95


@pytest.mark.parametrize("name", sample_files())
def test_samples_state_their_input_and_give_gradients(name):
    """Nothing is guessed, and the interpreter of the graph is trusted."""
    model = load(str(sample_files()[name]), device="cpu")
    assert (model.spec.height, model.spec.width) == (40, 40)
    assert model.spec.guessed == ()
    assert model.why_no_gradients is None
    assert model.target is not None
    assert (model.target.height, model.target.width) == (5, 5)


def test_the_command_copies_them(tmp_path):
    """`perimetry samples DIR` writes every file and says where."""
    done = CliRunner().invoke(app, ["samples", str(tmp_path / "vendors")])
    assert done.exit_code == 0, done.output
    for name, path in sample_files().items():
        copied = tmp_path / "vendors" / path.name
        assert copied.read_bytes() == path.read_bytes()
        assert name in done.output


def test_the_demo_audits_a_pair_of_trained_files(tmp_path, monkeypatch):
    """Copies of the samples lie beside the exported file, and are among the references."""
    from perimetry.bench import demo

    monkeypatch.setattr(demo, "export", lambda *_args, **_settings: None)
    found = [Path(name) for name in demo.references(tmp_path, seed=0) if "micro-object" in name]
    assert {path.stem for path in found} == set(demo.SAMPLES)
    assert len(found) == 2
    assert all(path.parent == tmp_path / "models" and path.is_file() for path in found)


def test_training_with_padding_shows_in_its_dead_pixels():
    """The network trained with `box` is far more even than the one without padding."""
    from perimetry import audit

    imbalance = {}
    for fill in ("none", "box"):
        path = sample_files()[f"tiny-resnet-micro-object-{fill}-seed0"]
        (record,) = audit(str(path), ("deadpixel",), count=24, device="cpu")
        imbalance[fill] = record.metrics["imbalance"]
    assert imbalance["box"].high < imbalance["none"].low
