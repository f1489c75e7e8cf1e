"""`timm:NAME@FILE` loads files as training scripts write them, or says what differs."""

import argparse
import pathlib

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.utils import CheckpointSaver, ModelEmaV3

from perimetry import audit
from perimetry.adapters.errors import ModelFileError, WeightsError
from perimetry.adapters.load import load
from perimetry.adapters.names import check_reference
from perimetry.adapters.trainable import open_trainable

NAME = "test_resnet"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return timm.create_model(NAME).state_dict()


def doubled(state):
    return {k: v * 2 if v.is_floating_point() else v for k, v in state.items()}


def saved(content, folder):
    path = folder / "a.pth"
    torch.save(content, path)
    return load(f"timm:{NAME}@{path}", device="cpu")


def holds(model, state):
    own = model.module().state_dict()
    return own.keys() == state.keys() and all(torch.equal(own[k], state[k]) for k in state)


@pytest.mark.parametrize("averaged", [False, True])
def test_a_checkpoint_of_timm_s_own_training_loads(averaged, tmp_path):
    """A checkpoint of timm's saver loads, with options and optimiser, by its averaged weights."""
    module = timm.create_model(NAME, num_classes=4)
    average = ModelEmaV3(module) if averaged else None
    if average is not None:
        average.module.load_state_dict(doubled(module.state_dict()))
    saver = CheckpointSaver(
        module,
        torch.optim.SGD(module.parameters(), 0.1),
        args=argparse.Namespace(model=NAME, lr=0.1, mean=(0.5,)),
        model_ema=average,
        checkpoint_dir=str(tmp_path),
        recovery_dir=str(tmp_path),
    )
    saver.save_checkpoint(0, metric=1.0)
    model = load(f"timm:{NAME}@{tmp_path / 'last.pth.tar'}", device="cpu")
    expected = module.state_dict()
    assert holds(model, doubled(expected) if averaged else expected)
    assert any("4 classes" in note for note in model.notes)
    assert any("'state_dict_ema' taken" in note for note in model.notes) == averaged
    assert model.run(model.spec.blank(), logits=True).logits.shape == (1, 4)


@pytest.mark.parametrize(
    ("plain", "average"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema")],
)
@pytest.mark.parametrize("first", [True, False])
def test_of_two_sets_of_weights_the_averaged_one_is_taken(plain, average, first, state, tmp_path):
    """Whatever their order in the file; the record names both."""
    content = {plain: state, average: doubled(state)}
    model = saved(content if first else dict(reversed(content.items())), tmp_path)
    assert holds(model, doubled(state))
    (record,) = audit(f"timm:{NAME}@{tmp_path / 'a.pth'}", ("structure",), device="cpu")
    assert any(repr(plain) in note and repr(average) in note for note in record.notes)


@pytest.mark.parametrize(
    ("plain", "average"), [("state_dict", "state_dict_ema"), ("model", "model_ema")]
)
def test_either_set_can_be_named_and_the_record_says_which(plain, average, state, tmp_path):
    """FILE#KEY takes that one, whose record has a key of its own; another name is refused."""
    saved({plain: state, average: doubled(state)}, tmp_path)
    found = {}
    for key, expected in ((plain, state), (average, doubled(state))):
        reference = f"timm:{NAME}@{tmp_path / 'a.pth'}#{key}"
        check_reference(reference)
        model = load(reference, device="cpu")
        assert holds(model, expected)
        (record,) = audit(reference, ("structure",), device="cpu")
        assert any(repr(key) in note and "named" in note for note in record.notes)
        assert record.model.source["sha256"]
        found[key] = record.key
    assert len(set(found.values())) == 2
    with pytest.raises(WeightsError, match="no weights 'other'"):
        load(f"timm:{NAME}@{tmp_path / 'a.pth'}#other", device="cpu")


def test_an_average_that_is_not_there_gives_the_plain_weights(state, tmp_path):
    """None in its place, as scripts write it that do not average; no note."""
    model = saved({"state_dict": state, "state_dict_ema": None}, tmp_path)
    assert holds(model, state)
    assert model.notes == []


@pytest.mark.parametrize(
    "prefix",
    ["module.", "model.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.module."],
)
def test_prefixes_of_wrappers_are_dropped(prefix, state, tmp_path):
    """Prefixes of wrappers are dropped, also beside entries that have none."""
    content = {"n_averaged": torch.tensor(3), **{prefix + k: v for k, v in state.items()}}
    model = saved({"model": content}, tmp_path)
    assert holds(model, state)
    assert any(repr(prefix) in note for note in model.notes)
    assert any("n_averaged" in note for note in model.notes)


def test_another_number_of_classes_and_of_channels_is_that_of_the_file(tmp_path):
    """Grey images of 7 classes: input, target and logits have them."""
    other = timm.create_model(NAME, num_classes=7, in_chans=1).state_dict()
    model = saved(other, tmp_path)
    assert holds(model, other)
    assert model.spec.channels == len(model.spec.mean) == 1
    for record in audit(f"timm:{NAME}@{tmp_path / 'a.pth'}", count=2, device="cpu"):
        assert record.status == "ok", record.error
        assert "7 classes, as in the file, instead of 1000" in record.notes


def test_a_file_without_a_classifier_gives_features(tmp_path):
    """A checkpoint without a classifier gives its weights and the features of its target."""
    features = timm.create_model(NAME, num_classes=0).state_dict()
    model = saved(features, tmp_path)
    assert holds(model, features)
    assert model.run(model.spec.blank()).target.shape[1] == model.target.channels


MISSING = "layer1.0.conv1.weight"


def without(state):
    return {k: v for k, v in state.items() if k != MISSING}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (without, [f"{MISSING} of the architecture is missing"]),
        (lambda s: {**s, "neck.weight": torch.ones(3)}, ["neck.weight of the file is not in"]),
        (
            lambda s: {**s, MISSING: torch.ones(5, 7, 3, 3)},
            [f"{MISSING} is 5 x 7 x 3 x 3 in the file and 32 x 32 x 3 x 3 in the architecture"],
        ),
        (
            lambda s: {**s, MISSING: s[MISSING].to(torch.int8)},
            [f"{MISSING} is int8 in the file and float32 in the architecture"],
        ),
        (
            lambda s: {**s, MISSING: s[MISSING].to(torch.cfloat)},
            [f"{MISSING} is complex64 in the file and float32 in the architecture"],
        ),
        (
            lambda s: {**without(s), "layer1.0.convolution.weight": torch.ones(1)},
            [f"{MISSING} of the architecture is missing", "layer1.0.convolution.weight of the"],
        ),
        (
            lambda s: {f"a.{i}": v for i, v in enumerate(s.values())} | {"b": torch.ones(1)},
            ["conv1.0"],
        ),
    ],
)
@pytest.mark.parametrize("kind", ["a.pth", "a.safetensors"])
def test_a_refusal_names_the_tensor_and_both_shapes(change, says, kind, state, tmp_path):
    """Nothing is filled in, cast or left out in silence."""
    path = tmp_path / kind
    (torch.save if kind == "a.pth" else save_file)(change(dict(state)), path)
    with pytest.raises(WeightsError) as shown:
        load(f"timm:{NAME}@{path}")
    assert all(text in str(shown.value) for text in says), shown.value
    (record,) = audit(f"timm:{NAME}@{path}", ("structure",), device="cpu")
    assert record.status == "failed"
    assert str(shown.value) in record.error.message


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_floats_of_another_width_load(kind, state, tmp_path):
    """Weights of float16, bfloat16 and float64 are converted exactly to the model's type."""
    narrow = {k: v.to(kind) if v.is_floating_point() else v for k, v in state.items()}
    assert holds(saved(narrow, tmp_path), {k: v.to(state[k].dtype) for k, v in narrow.items()})


def test_names_that_differ_are_matched_by_order_in_torch_files_alone(state, tmp_path):
    """A safetensors file is sorted by name: its order says nothing."""
    kept = [v for k, v in state.items() if not k.endswith("num_batches_tracked")]
    renamed = {f"t{i:03}": v for i, v in enumerate(kept)}
    model = saved(renamed, tmp_path)
    assert torch.equal(model.module().state_dict()[MISSING], state[MISSING])
    assert any("matched by order" in note for note in model.notes)
    save_file(renamed, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError):
        load(f"timm:{NAME}@{tmp_path / 'a.safetensors'}")


def test_two_tensors_with_exchanged_names_stay_exchanged(state, tmp_path):
    """Tensors are matched by their names and not by their order."""
    names = "layer1.0.bn1.weight", "layer1.0.bn1.bias"
    order = dict(state)
    for name in names:
        order[name] = order.pop(name)
    assert holds(saved(order, tmp_path), state)


def test_another_architecture_is_named(state, tmp_path):
    """A checkpoint of another architecture is refused with the name that its script gave."""
    torch.save({"arch": "resnet50", "state_dict": without(state)}, tmp_path / "a.pth")
    with pytest.raises(WeightsError, match="'resnet50'"):
        load(f"timm:{NAME}@{tmp_path / 'a.pth'}")


class Planted:
    """An object that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.write_text, (self.path, "unpickled")


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("thing", "name"),
    [
        (lambda folder: Planted(folder / "planted"), "write_text"),
        (lambda _folder: torch.nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        (lambda _folder: pathlib.PurePosixPath("/data"), "pathlib.PurePosixPath"),
    ],
)
def test_an_object_in_the_file_is_named_and_not_made(thing, name, zipped, state, tmp_path):
    """Whole modules, paths and code in a checkpoint are named and not created."""
    content = {"state_dict": state, "extra": thing(tmp_path)}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ModelFileError) as shown:
        load(f"timm:{NAME}@{tmp_path / 'a.pth'}")
    assert name in str(shown.value) or name == "write_text"
    assert not (tmp_path / "planted").exists()


def test_options_of_a_script_are_no_obstacle(state, tmp_path):
    """Weights beside an `argparse.Namespace` are loaded."""
    assert holds(saved({"model": state, "args": argparse.Namespace(lr=0.1)}, tmp_path), state)


def test_training_starts_from_a_wrapped_file_and_refuses_integers(state, tmp_path):
    """The prefix is dropped there, too, and int8 is not cast."""
    path = tmp_path / "a.pth"
    torch.save({"model": {f"module.{k}": v for k, v in state.items()}}, path)
    network = open_trainable(f"timm:{NAME}@{path}", 4, (32, 32)).module
    assert torch.equal(network.state_dict()[MISSING], state[MISSING])
    torch.save({**state, MISSING: state[MISSING].to(torch.int8)}, path)
    with pytest.raises(WeightsError, match=MISSING):
        open_trainable(f"timm:{NAME}@{path}", 4, (32, 32))
