"""`hf:` references: models of transformers from a folder, with their processor's input."""

import json

import pytest
import torch
from typer.testing import CliRunner

from perimetry import audit, load_records
from perimetry.adapters import hub
from perimetry.adapters.errors import UnknownNameError, WeightsError
from perimetry.adapters.load import load
from perimetry.adapters.names import check_reference
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


def config_of(kind):
    """A tiny network of each kind, with its head, as its checkpoint would have it."""
    t = transformers
    tiers = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
    heads = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 32}
    basic = {"embedding_size": 8, "layer_type": "basic", **tiers}
    body = t.ResNetConfig(**basic, out_features=["stage4"])
    three = t.RTDetrResNetConfig(**basic, out_features=["stage2", "stage3", "stage4"])
    attention = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "d_model": 32}
    sizes = {"encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_queries": 10, "decoder_layers": 1}
    return {
        "ViT": lambda: t.ViTForImageClassification(
            t.ViTConfig(**heads, intermediate_size=64, image_size=128, patch_size=16)
        ),
        "DINOv2": lambda: t.Dinov2Model(t.Dinov2Config(**heads, image_size=56, patch_size=14)),
        "ConvNeXt": lambda: t.ConvNextForImageClassification(t.ConvNextConfig(**tiers)),
        "SegFormer": lambda: t.SegformerForSemanticSegmentation(
            t.SegformerConfig(**tiers, decoder_hidden_size=16, num_attention_heads=[1, 2, 2, 4])
        ),
        "UperNet": lambda: t.UperNetForSemanticSegmentation(
            t.UperNetConfig(
                backbone_config=t.ConvNextConfig(
                    **tiers, out_features=["stage1", "stage2", "stage3", "stage4"]
                ),
                hidden_size=16,
                auxiliary_channels=8,
                auxiliary_in_channels=24,
            )
        ),
        "DETR": lambda: t.DetrForObjectDetection(
            t.DetrConfig(
                backbone_config=body,
                use_timm_backbone=False,
                backbone=None,
                encoder_layers=1,
                **attention,
                **sizes,
            )
        ),
        "RT-DETR": lambda: t.RTDetrForObjectDetection(
            t.RTDetrConfig(
                backbone_config=three,
                encoder_hidden_dim=32,
                encoder_in_channels=[16, 24, 32],
                decoder_in_channels=[32, 32, 32],
                **attention,
                **sizes,
            )
        ),
    }[kind]


SCALES = {
    "ViT": ("vit.layernorm", [8]),
    "DINOv2": ("layernorm", [9]),
    "ConvNeXt": ("convnext.encoder.stages.3", [32, 16, 8, 4]),
    "SegFormer": ("decode_head.linear_projections.3", [32, 16, 8, 4]),
    "UperNet": ("decode_head.bottleneck", [32, 16, 8, 4]),
    "DETR": ("model.encoder.layers.0", [64, 32, 16, 8, 4]),
    "RT-DETR": ("model.decoder_input_proj.2", [64, 32, 16, 8, 4]),
}
"""The target by the rule, and the rows of units of all scales, for 128 x 128 pixels."""


@pytest.mark.parametrize("kind", SCALES)
def test_detectors_segmenters_and_encoders_have_their_target_and_scales(kind, tmp_path):
    """Opened with the head that the configuration names, without a question to any server."""
    torch.manual_seed(0)
    config_of(kind)().eval().save_pretrained(tmp_path / "net")
    opened = load(f"hf:{tmp_path / 'net'}", device="cpu", size=(128, 128))
    target, rows = SCALES[kind]
    assert opened.target.name == target
    assert [grid.height for grid in opened.scales()] == rows
    records = audit(opened, ("erf", "deadpixel"), target="all-scales", count=2, device="cpu")
    assert [record.status for record in records] == ["ok", "ok"]
    assert [row["units"][0] for row in records[0].tables["scales"]] == rows


def test_the_hub_is_asked_once_for_a_name_and_never_for_a_folder(model, monkeypatch):
    """Configuration, weights and processor share the answer."""
    asked = []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "answers", lambda address: asked.append(address))
    load("hf:./net", device="cpu")
    assert asked == []
    with pytest.raises(WeightsError):
        load("hf:nobody/nothing", device="cpu")
    assert len(asked) == 1


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
