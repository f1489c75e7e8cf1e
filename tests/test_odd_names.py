"""Names that are empty, odd or not UTF-8, and settings out of range cost no other row."""

import os

import pytest
from onnx_files import convnet, save
from PIL import Image
from typer.testing import CliRunner

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.bench.cli.main import app
from perimetry.bench.execution.settings import LEAST_MEMORY_MIB, RunOptions, Settings
from perimetry.bench.records.parts import to_utf8
from perimetry.bench.records.store import Store

NOT_UTF8 = os.fsdecode(b"\xff\xfe")
WEIGHTS = ("", ".", "/", "a\0b", f"{NOT_UTF8}.pth", "/dev/zero", "y" * 5000)
ODD = (
    *("", ".", "..", "/", "@", "timm:", "timm:@", "/dev/zero"),
    *(".onnx", "a\0b.onnx", f"{NOT_UTF8}.onnx", "x" * 5000 + ".onnx"),
    *(f"timm:test_resnet@{weights}" for weights in WEIGHTS),
)
COMMON = ("--kernel-padding", "none", "--device", "cpu", "--count", "2")


def run(folder, *arguments, suite="structure"):
    out = str(folder / "out")
    return CliRunner().invoke(app, ["run", *arguments, "--out", out, "--suite", suite, *COMMON])


@pytest.fixture
def sound(tmp_path):
    """Two sound files, one of which has an odd name."""
    names = ("sound.onnx", f"{NOT_UTF8}ok.onnx")
    return [save(convnet(size=8), tmp_path / name) for name in names]


@pytest.mark.parametrize("odd", ODD)
def test_a_reference_that_cannot_exist_is_refused_before_anything_is_measured(odd, sound, tmp_path):
    """Beside sound files, too: the command says which, and leaves no folder."""
    done = run(tmp_path, odd, *map(str, sound))
    assert done.exit_code == 1
    assert isinstance(done.exception, SystemExit)
    assert "nothing was measured" in done.output
    assert not (tmp_path / "out").exists()


def test_sound_files_of_any_name_have_their_numbers(sound, tmp_path):
    """A name that is not UTF-8 is escaped in its record."""
    done = run(tmp_path, *map(str, sound))
    assert done.exit_code == 0, done.output
    records = Store(tmp_path / "out").records()
    assert {r.model.reference for r in records} == {to_utf8(str(path)) for path in sound}


@pytest.mark.parametrize("arguments", [("--target", NOT_UTF8), ("--exclude", NOT_UTF8)])
def test_a_setting_that_is_not_utf8_costs_no_more_than_its_row(arguments, tmp_path):
    """A target that is not UTF-8 fails its record, and an exclusion that is not excludes none."""
    path = save(convnet(size=8), tmp_path / "sound.onnx")
    done = run(tmp_path, path, *arguments)
    assert isinstance(done.exception, SystemExit | None)
    (record,) = Store(tmp_path / "out").records()
    assert record.status == ("failed" if arguments[0] == "--target" else "ok")


def test_a_folder_of_images_and_its_files_may_have_any_name(tmp_path):
    """Images are read from a folder whose name is not UTF-8, and the record escapes the name."""
    path = save(convnet(size=8), tmp_path / "sound.onnx")
    folder = tmp_path / f"images{NOT_UTF8}"
    folder.mkdir()
    for name, colour in (("a.png", "red"), (f"{NOT_UTF8}.png", "green")):
        Image.new("RGB", (8, 8), colour).save(folder / name)
    done = run(tmp_path, path, "--images", str(folder), suite="deadpixel")
    assert done.exit_code == 0, done.output
    (record,) = Store(tmp_path / "out").records()
    assert record.status == "ok"
    assert record.images.name == "images\\udcff\\udcfe"
    assert record.images.count == 2


@pytest.mark.parametrize("seed", [-1, -(2**70), 2**70])
def test_a_seed_that_no_generator_takes_is_refused_at_once(seed):
    """A seed below 0 or above the range of the generator is an InputError."""
    with pytest.raises(InputError):
        Settings(seed=seed)
    with pytest.raises(InputError):
        audit("timm:test_resnet@init", seed=seed)


@pytest.mark.parametrize("limit", [1e-9, 1.0, LEAST_MEMORY_MIB - 1, -5.0, float("nan")])
def test_a_memory_limit_under_which_nothing_runs_is_refused_at_once(limit, tmp_path):
    """A memory limit below the minimum is an InputError, and no folder is created."""
    with pytest.raises(InputError):
        RunOptions(memory_limit_mib=limit)
    done = run(tmp_path, "timm:test_resnet@init", "--memory-limit", "0.001")
    assert done.exit_code == 1
    assert not (tmp_path / "out").exists()
