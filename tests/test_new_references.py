"""Every kind of reference works in every command: run, dry run, shard, check, verify, compare."""

import warnings

import pytest
import timm
import torch
from onnx_files import convnet, save
from torch import nn
from typer.testing import CliRunner

from perimetry import check, compare, load_records
from perimetry.bench.cli.main import app
from perimetry.bench.execution.settings import RunOptions
from perimetry.bench.regression.reproduce import reproduce
from perimetry.bench.regression.result import RegressionVerdict

CODE = """
from torch import nn

def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1), nn.ReLU())

net.input_size = 64
"""
FORMS = {
    "py": "py:zoo_of_forms:net",
    "torchvision": "torchvision:squeezenet1_1@init",
    "pt2": "program.pt2",
    "timm": "timm:test_resnet@weights.pth",
    "hf": "hf:./tiny@init",
    "onnx": "file.onnx",
}
CPU = RunOptions(device="cpu")
ONLY = ("--suite", "structure,deadpixel", "--count", "2", "--kernel-padding", "none")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with one model of each form, and the records of one run over all of them."""
    folder = tmp_path_factory.mktemp("forms")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        _write(folder)
        words = ["run", *references(), *ONLY, "--size", "64", "--members", "2", "--out", "out"]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        yield folder


def _write(folder):
    (folder / "zoo_of_forms.py").write_text(CODE)
    save(convnet(size=64), folder / "file.onnx")
    torch.save(timm.create_model("test_resnet").state_dict(), folder / "weights.pth")
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(net, (torch.rand(1, 3, 64, 64),)), "program.pt2")
    if transformers is not None:
        config = transformers.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
        config.save_pretrained(folder / "tiny")


try:
    import transformers
except ImportError:
    transformers = None


def references():
    """All references, without transformers those of the others."""
    return [text for form, text in FORMS.items() if form != "hf" or transformers is not None]


def test_one_run_measures_them_all(place):
    """Each has both records, and the same command finds them again."""
    records = load_records("out")
    assert sorted(r.model.reference for r in records) == sorted(references() * 2)
    left = [r for r in records if r.status != "ok"]  # programs have operators of their own
    assert {(r.model.reference, r.suite, r.status) for r in left} <= {
        ("program.pt2", "structure", "skipped")
    }
    words = ["run", *references(), *ONLY, "--size", "64", "--members", "2", "--out", "out"]
    shown = CliRunner().invoke(app, [*words, "--dry-run"]).output
    assert f"0 records of 0 models to make; {len(records)} already present" in shown


def test_shards_share_them_out(place):
    """Two shards name different models, together all."""
    counts = []
    for shard in ("1/2", "2/2"):
        words = ["run", *references(), *ONLY, "--shard", shard, "--dry-run", "--out", "none"]
        done = CliRunner().invoke(app, words)
        counts.append(int(done.output.partition(" records of ")[2].partition(" ")[0]))
    assert sum(counts) == len(references())
    assert min(counts) > 0


def test_the_gate_passes_all_of_them(place):
    """Unchanged, by the references in the baseline."""
    found = check("out", run=CPU)
    assert found.verdict is RegressionVerdict.same, found.problems
    assert {report.reference for report in found.reports} == set(references())


def test_all_of_them_are_reproduced(place):
    """`verify` measures each again."""
    found = reproduce("out", run=CPU)
    assert len(found.reports) == len(references())
    assert {f.verdict.value for report in found.reports for f in report.findings} == {0}


@pytest.mark.parametrize("form", FORMS)
def test_a_stored_model_compares_with_the_same_measured_now(form, place):
    """No metric differs."""
    if FORMS[form] not in references():
        pytest.skip("transformers is not installed")
    found = compare(f"out:{FORMS[form]}", FORMS[form], run=CPU, stages=False)
    assert found.pairs[0].differing == []


@pytest.mark.parametrize("form", [form for form in FORMS if form != "onnx"])
def test_only_files_of_onnx_are_padded_as_files(form, place):
    """The others are refused by name, and nothing is written."""
    done = CliRunner().invoke(app, ["pad", FORMS[form], "-o", "padded.onnx"])
    assert done.exit_code != 0
    assert "is not an ONNX file" in " ".join(done.output.split())
    assert not (place / "padded.onnx").exists()
