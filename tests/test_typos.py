"""A reference that cannot exist costs nothing: it is refused, with near names, before measuring."""

import pytest
from onnx_files import convnet, save
from typer.testing import CliRunner

from perimetry.bench.cli.main import app
from perimetry.bench.records.store import Store

NEAR = {
    "timm:resnett18@init": "resnet18",
    "timm:resnet18.a1_in1": "a1_in1k",
    "timm:test_resnett*@init": "timm:test_resnet",
    "tim:resnet18@init": "timm:resnet18@init",
    "test_resnet@init": "timm:test_resnet@init",
    "FOLDER/sonud.onnx": "sound.onnx",
    "timm:test_resnet@FOLDER/weihgts.pth": "weights.pth",
    "folder": "timm:NAME",
}


@pytest.fixture
def folder(tmp_path):
    save(convnet(size=8), tmp_path / "sound.onnx")
    (tmp_path / "weights.pth").touch()
    return tmp_path


def invoke(*words):
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--shard", "1/2")])
@pytest.mark.parametrize("typo", NEAR)
def test_a_typo_is_refused_with_a_near_name(typo, more, folder):
    """Beside a sound file; no folder is made, by a share that does not measure it, too."""
    words = [str(folder / "sound.onnx"), typo.replace("FOLDER", str(folder))]
    done = invoke("run", *words, "--out", str(folder / "out"), *more)
    assert done.exit_code == 1
    assert NEAR[typo] in done.output
    assert not (folder / "out").exists()


def test_compare_refuses_a_typo_before_it_measures(folder):
    """The near name is a file of the same folder."""
    done = invoke("compare", str(folder / "sound.onnx"), str(folder / "sonud.onnx"))
    assert done.exit_code == 1
    assert "sound.onnx" in done.output


def test_suites_of_repeated_options_add_up(folder):
    """Repeated `--suite` options add up in the order given, each suite once."""
    words = ["--suite", "structure", "--suite", "erf,structure", "--kernel-padding", "none"]
    out = folder / "out"
    done = invoke("run", str(folder / "sound.onnx"), "--out", str(out), "--count", "2", *words)
    assert done.exit_code == 0, done.output
    assert {record.suite for record in Store(out).records()} == {"structure", "erf"}
