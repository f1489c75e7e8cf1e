"""The published set of trained checkpoints: generated from its records, and to be had again."""

import importlib
import re
from pathlib import Path

import pytest

from perimetry import audit
from perimetry.bench.ranking.board import Board
from perimetry.bench.records.archive import RecordArchive

PUBLISHED = Path(__file__).parents[1] / "results" / "trained"
ROWS = {"as-is": 38, "recalibrated": 8}
LITE0 = "timm:tf_efficientnet_lite0@lite0.pth"
PLAIN = ("border_drop", "blind_weakest", "blind_cv", "constant_border_ratio", "uneven_layers")
"""Metrics of `padding` that no image takes part in."""


@pytest.fixture
def script(monkeypatch):
    """Import one of the set's scripts."""
    monkeypatch.syspath_prepend(PUBLISHED)
    return importlib.import_module


def packed(name):
    found = RecordArchive(PUBLISHED / f"{name}.jsonl.gz")
    assert found.read()[1] == []
    return {(r.model.reference, r.fill, r.suite): r for r in found.records()}


@pytest.mark.parametrize("name", ROWS)
def test_a_set_is_whole(name):
    """A published set has the stated number of rows, each ok, or skipped with a reason."""
    records = packed(name)
    assert len(Board(list(records.values())).rows) == ROWS[name]
    for record in records.values():
        assert record.status == "ok" or (record.status == "skipped" and record.reason)


def test_every_table_of_the_readme_is_generated_from_the_packed_records(script):
    """Filling in the tables of the README changes nothing and repairs an altered one."""
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    assert script("publish").filled(text) == text
    altered = text.replace("| trained ", "| Trained ", 1)
    assert altered != text
    assert script("publish").filled(altered) == text


def test_every_estimate_in_the_text_is_one_of_the_records():
    """The findings are written by hand: after a new measurement none may be left as it was."""
    text = (PUBLISHED / "README.md").read_text(encoding="utf-8")
    prose = " ".join(" ".join(p.split()) for p in text.split("\n\n") if not p.startswith("|"))
    number = r"-?\d+\.\d+"
    told = set(re.findall(rf"{number} \[{number}, {number}\]", prose))
    values = [v for name in ROWS for r in packed(name).values() for v in r.metrics.values()]
    known = {
        f"{v.value:.{n}f} [{v.low:.{n}f}, {v.high:.{n}f}]"
        for v in values
        if None not in (v.value, v.low, v.high)
        for n in (2, 3)
    }
    assert len(told) > 10
    assert told <= known, sorted(told - known)


def test_every_checkpoint_was_measured_from_the_file_that_is_named(script):
    """Torch files are taken as they are: their sha256 is that in the records."""
    checkpoints = script("checkpoints")
    for architecture, file in checkpoints.ARCHITECTURES.items():
        record = packed("as-is")[f"timm:{architecture}@{file}", "none", "deadpixel"]
        assert record.model.source["sha256"] == checkpoints.CHECKPOINTS[file].sha256


def imbalance(records, reference, fill):
    return records[reference, fill, "deadpixel"].metrics["imbalance"]


def test_what_the_readme_says_of_training_and_box_holds_in_the_records(script):
    """Trained lies below untrained, interval and all; `box` evens untrained nets alone."""
    records = packed("as-is")
    for architecture, file in script("checkpoints").ARCHITECTURES.items():
        untrained, trained = (f"timm:{architecture}@{state}" for state in ("init", file))
        assert imbalance(records, trained, "none").high < imbalance(records, untrained, "none").low
        assert imbalance(records, untrained, "box").low == 0
        assert imbalance(records, trained, "box").low > 0.03
        assert imbalance(records, trained, "box").high < imbalance(records, trained, "none").low


@pytest.mark.parametrize("file", ["lite0.pth", "ppocr-cls.onnx"])
def test_a_spot_of_the_set_comes_out_again_from_the_package(script, tmp_path, monkeypatch, file):
    """Blind spots, plain image and unread padding of one row are measured again as published."""
    checkpoints = script("checkpoints")
    checkpoints.write_checkpoint(checkpoints.CHECKPOINTS[file], tmp_path / file)
    monkeypatch.chdir(tmp_path)
    reference = LITE0 if file == "lite0.pth" else file
    record = packed("as-is")[reference, "none", "padding"]
    stored, target = record.metrics, record.model.target["name"]
    (found,) = audit(
        reference,
        ("padding",),
        kernel_padding=("none",),
        count=1,
        device="cpu",
        target=None if file == "lite0.pth" else target,  # the set is older than the present rule
        options={"padding": {"exchange": ()}},
    )
    known = [name for name in PLAIN if stored[name].value is not None]
    assert "border_drop" in known
    for name in PLAIN:
        value = found.metrics[name].value
        expected = pytest.approx(stored[name].value, rel=1e-3) if name in known else None
        assert value == expected, name


def test_a_file_that_is_another_than_the_measured_one_is_refused(script, tmp_path):
    """A checkpoint with another checksum than the recorded one is a ValueError."""
    checkpoints = script("checkpoints")
    other = checkpoints.CHECKPOINTS["centerface.onnx"].place
    wrong = checkpoints.Checkpoint("any", other, "any", "0" * 64, "any")
    with pytest.raises(ValueError, match=r"09189.*0000"):
        checkpoints.write_checkpoint(wrong, tmp_path / "a.onnx")


def test_a_file_that_is_no_checkpoint_is_refused_by_name(script, tmp_path: Path):
    """The names that there are follow; nothing is written."""
    with pytest.raises(ValueError, match=r"no checkpoint 'lite9\.pth'; there are lite0\.pth, "):
        script("checkpoints").write_checkpoints(tmp_path / "files", ["lite9.pth"])
    assert not (tmp_path / "files").exists()
