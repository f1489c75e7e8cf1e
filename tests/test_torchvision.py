"""Models of torchvision: three kinds of weights, the input that they state, and typos."""

import pytest
import torch
import torchvision
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters.errors import InputError, PerimetryError, UnknownNameError, WeightsError
from perimetry.adapters.load import load
from perimetry.adapters.names import check_reference, expand_wildcards
from perimetry.bench.cli.main import app
from perimetry.bench.pad_file import pad_file

NAME = "torchvision:mobilenet_v3_small"
INIT = f"{NAME}@init"


def invoke(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_initial_states_are_those_of_torchvision_with_the_input_of_its_transforms():
    """Member k is what torchvision builds from seed k; size, mean and std are its transforms'."""
    model = load(INIT, device="cpu", members=2)
    torch.manual_seed(1)
    expected = torchvision.models.mobilenet_v3_small(weights=None)
    model.select(1, torch.zeros(1, 3, 224, 224))
    kernels = dict(model.module().named_parameters())
    name = "features.1.block.0.0.weight"
    assert torch.equal(kernels[name], expected.get_parameter(name))
    assert (model.spec.height, model.spec.width, model.members) == (224, 224, 2)
    assert model.spec.mean == (0.485, 0.456, 0.406)
    assert model.spec.guessed == ()
    assert model.source["library"] == f"torchvision {torchvision.__version__}"


def test_a_run_measures_in_a_worker_and_finds_its_record_again(tmp_path):
    """The key of the record is the same in the next run, which measures nothing."""
    only = ("run", INIT, "--suite", "structure", "--out", tmp_path, "--kernel-padding", "none")
    assert invoke(*only).exit_code == 0
    (record,) = load_records(tmp_path)
    assert record.status == "ok"
    assert record.key == audit(INIT, ("structure",))[0].key
    assert invoke(*only).exit_code == 0
    assert load_records(tmp_path)[0].created == record.created


@pytest.mark.parametrize(
    ("name", "side"), [("lraspp_mobilenet_v3_large", 520), ("ssdlite320_mobilenet_v3_large", 320)]
)
def test_segmenters_and_detectors_open_at_the_size_that_they_state(name, side):
    """A detector normalises by itself, so it is given images in [0, 1]."""
    model = load(f"torchvision:{name}@init", device="cpu", members=1)
    assert (model.spec.height, model.spec.width) == (side, side)
    assert (model.spec.mean == (0.0, 0.0, 0.0)) == name.startswith("ssd")
    assert model.target is not None


@pytest.mark.parametrize("classes", [1000, 7])
def test_a_file_gives_the_weights_and_the_number_of_classes(tmp_path, classes):
    """The logits are those of torchvision's module with the same state dict."""
    made = torchvision.models.mobilenet_v3_small(weights=None, num_classes=classes).eval()
    torch.save(made.state_dict(), tmp_path / "w.pth")
    model = load(f"{NAME}@{tmp_path / 'w.pth'}", device="cpu")
    x = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model.select(0, x)
    logits = model.run(x, logits=True).logits
    torch.testing.assert_close(logits, made(x), rtol=1e-4, atol=1e-5)
    assert ("7 classes" in " ".join(model.notes)) == (classes == 7)


def test_a_pretrained_model_that_is_not_here_is_a_weights_error(tmp_path, monkeypatch):
    """Neither cached nor reachable: the message names the other two forms."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr("perimetry.adapters.torchvision.answers", lambda _url: False)
    with pytest.raises(WeightsError, match="torchvision:mobilenet_v3_small@init"):
        load(NAME, device="cpu")


def test_cached_weights_are_read_as_tensors_only(tmp_path, monkeypatch):
    """A cached file with a pickled object is refused, and nothing of it is executed."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    url = torchvision.models.MobileNet_V3_Small_Weights.DEFAULT.url
    torch.save({"net": torch.nn.Linear(1, 1)}, folder / url.rpartition("/")[2])
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load(NAME, device="cpu")
    assert "weights_only" in str(caught.value.__cause__).lower()


@pytest.mark.parametrize(
    ("reference", "kind", "near"),
    [
        ("torchvision:resnet_18@init", UnknownNameError, "resnet18"),
        ("torchvison:resnet18", UnknownNameError, "torchvision:resnet18"),
        ("torchvision:resnet18.IMAGENET1K_V3", UnknownNameError, "IMAGENET1K_V1"),
        ("torchvision:resnet18@nowhere.pth", WeightsError, "nowhere.pth"),
        ("torchvision:raft_small@init", InputError, "pairs of images"),
        ("torchvision:resmet*@init", UnknownNameError, "torchvision:resnet"),
    ],
)
def test_what_cannot_exist_is_refused_with_near_names(reference, kind, near):
    """Nothing is opened for a typo, and the error says what may have been meant."""
    with pytest.raises(kind) as caught:
        check_reference(reference)
    assert near in str(caught.value)


def test_wildcards_stand_for_models_of_torchvision():
    """Only models of single images match."""
    found = expand_wildcards("torchvision:*resnet18@init")
    assert found == ["torchvision:resnet18@init"]


def test_a_file_is_padded_and_nothing_else(tmp_path):
    """`pad` writes ONNX files, so other forms are refused before anything is opened."""
    with pytest.raises(InputError):
        pad_file(INIT, tmp_path / "out.onnx")
    assert not list(tmp_path.iterdir())
    done = invoke("train", INIT, "--out", tmp_path / "t")
    assert done.exit_code != 0
    with pytest.raises(PerimetryError):
        load("torchvision:")
