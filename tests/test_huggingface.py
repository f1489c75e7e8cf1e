"""`hf:` references: models of transformers from a folder, with their processor's input."""

import json

import pytest
import torch
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import UnknownNameError, WeightsError
from perimetry.adapters.load import check_reference, load
from perimetry.bench.cli.main import app

transformers = pytest.importorskip("transformers", reason="transformers is not installed")


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A small ResNet, saved with a processor in the folder `net`, which the tests stand beside."""
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic"
    )
    torch.manual_seed(0)
    made = transformers.ResNetForImageClassification(config).eval()
    made.save_pretrained(tmp_path / "net")
    processor = {
        "size": {"height": 64, "width": 48},
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    (tmp_path / "net" / "preprocessor_config.json").write_text(json.dumps(processor))
    monkeypatch.chdir(tmp_path)
    return made


def test_a_folder_gives_the_weights_and_the_input_of_its_processor(model):
    """Logits are the model's own; size, mean and deviation are the processor's."""
    opened = load("hf:./net", device="cpu")
    assert (opened.spec.height, opened.spec.width) == (64, 48)
    assert (opened.spec.mean, opened.spec.std) == ((0.5,) * 3, (0.25,) * 3)
    x = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    opened.select(0, x)
    logits = opened.run(x, logits=True).logits
    torch.testing.assert_close(logits, model(x).logits, rtol=1e-4, atol=1e-5)


def test_initial_states_are_measured_in_a_worker_and_the_key_is_stable(model):
    """A run and an audit have the same key."""
    only = ["--suite", "structure", "--kernel-padding", "none", "--out", "out"]
    assert CliRunner().invoke(app, ["run", "hf:./net@init", *only]).exit_code == 0
    (record,) = load_records("out")
    (here,) = audit("hf:./net@init", ("structure",))
    assert (record.status, record.key) == ("ok", here.key)
    assert here.model.library.startswith("transformers ")


def test_what_is_not_there_is_told(model):
    """A folder without a configuration is refused; a name that is not cached is a weights error."""
    with pytest.raises(UnknownNameError):
        check_reference("hf:./ney@init")
    with pytest.raises(WeightsError):
        load("hf:./net@weights.pth", device="cpu")


def test_a_missing_library_is_told_with_the_line_that_installs_it(monkeypatch):
    """The reference is refused before anything is measured."""
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(UnknownNameError, match="pip install transformers"):
        check_reference("hf:some/model")
