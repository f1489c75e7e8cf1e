"""`--target all-scales`: field, effective field, evenness and dead pixels at every resolution."""

from dataclasses import replace

import pytest
import torch
from corpus import CORPUS, built, exported
from torch import nn
from typer.testing import CliRunner

from perimetry import audit, leaderboard
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.model import ModelOfScales
from perimetry.adapters.onnx.model import OnnxModel
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import TorchModel, wrap
from perimetry.bench.cli.main import app
from perimetry.bench.execution.all_scales import split_scale

SUITES = ("structure", "erf:luo2016", "deadpixel")
QUICK = {"count": 4, "draws": 30, "device": "cpu"}
LAYERS = {
    "classifier": ["body.stem", "body.stages.0", "body.stages.1", "body.stages.2"],
    "U-Net": [":interpolate#4", "ups.2", "ups.1", "ups.0", "encoder.stages.2"],
    "YOLO with a neck": ["body.stem", "down3", "up4", "up5"],
    "feature pyramid": ["body.stem", "smooth.0", "smooth.1", "smooth.2"],
    "pyramid with towers": ["body.stem", "smooth.0", "smooth.1", "smooth.2"],
    "SegFormer": ["fuse", "mix.1", "mix.2"],
    "ViT": ["norm"],
    "text reader": ["body.0", "body.1", "body.2", "body.3", "lstm:lstm"],
}


def opened(name):
    return wrap(built(name), name=name, spec=InputSpec(*CORPUS[name].size), device="cpu")


@pytest.mark.parametrize("name", LAYERS)
def test_the_scales_are_the_last_maps_of_each_resolution(name, tmp_path):
    """Before heads split, behind the neck; the file of the module has the same."""
    model = opened(name)
    assert isinstance(model, ModelOfScales)
    scales = model.scales()
    file = open_onnx(exported(name, tmp_path), device="cpu", spec=model.spec).scales()
    units = [(g.height, g.width) for g in scales]
    assert units == [(g.height, g.width) for g in file]
    if name == "pyramid with towers":  # a tower of the boxes alone is no part of the scores
        assert [g.name.partition(".")[0] for g in scales[1:]] == ["boxes"] * 3
    else:
        assert [g.name for g in scales] == LAYERS[name]


def test_detectors_of_torchvision_have_the_levels_of_their_pyramid():
    """A RetinaNet has the scales P3 to P6 behind the stages of its backbone."""
    from torchvision.models.detection import retinanet_resnet50_fpn

    torch.manual_seed(0)
    options = {"weights": None, "weights_backbone": None, "min_size": 128, "max_size": 128}
    model = wrap(retinanet_resnet50_fpn(**options), spec=InputSpec(128, 128), device="cpu")
    names = [grid.name for grid in model.scales()]
    assert names[2:5] == [f"backbone.fpn.layer_blocks.{i}" for i in range(3)]
    assert names[5:] == ["backbone.fpn.extra_blocks.p6"]  # a single unit is no map
    assert model.target.name == "backbone.fpn.inner_blocks.2"


@pytest.fixture(scope="module")
def records():
    """The U-Net at all scales, with and without kernel padding."""
    model = opened("U-Net")
    return audit(model, SUITES, ("none", "box"), target="all-scales", **QUICK)


def test_each_scale_has_the_numbers_of_its_own_audit(records):
    """A row of the table and its metrics equal an audit with that layer as the target."""
    named = audit(
        wrap(built("U-Net"), spec=InputSpec(64, 64), device="cpu", target="ups.0"),
        SUITES,
        ("none", "box"),
        **QUICK,
    )
    for one, other in zip(records, named, strict=True):
        assert one.status == "ok"
        if one.suite == "fidelity":
            continue
        row = next(r for r in one.tables["scales"] if r["scale"] == "s8")
        assert row["layer"] == "ups.0"
        for name, value in other.metrics.items():
            found = one.metrics[f"{name}@s8"]
            assert (found.value is None) == (value.value is None)
            if value.value is not None:
                assert found.value == pytest.approx(value.value, rel=1e-4, abs=1e-6)
        for name, values in other.maps.items():
            assert one.maps[f"{name}@s8"].shape == values.shape


def test_the_target_of_all_scales_is_that_of_the_rule(records):
    """With all scales, the metrics of the target are those measured without a scale."""
    plain = audit(opened("U-Net"), SUITES, ("none",), **QUICK)
    for one, other in zip(records, plain, strict=False):
        assert one.model.target == other.model.target
        for name, value in other.metrics.items():
            assert one.metrics[name] == value


def test_a_board_ranks_one_scale():
    """A board sorted by `SUITE.METRIC@SCALE` ranks in the direction of the metric."""
    found = [
        record
        for name in ("U-Net", "classifier")
        for record in audit(opened(name), ("structure",), target="all-scales", device="cpu")
    ]
    frame = leaderboard(found, sort="structure.imbalance@s2")
    assert list(frame["model"]) == ["classifier", "U-Net"]
    assert list(frame["rank"]) == [1, 2]
    assert frame["structure.imbalance@s2"].is_monotonic_increasing


def test_a_name_with_an_at_sign_is_no_scale():
    """`dead@0.1` is a share of phases, `dead@0.1@s8` that at stride 8."""
    assert split_scale("dead@0.1") == ("dead@0.1", None)
    assert split_scale("dead@0.1@s8") == ("dead@0.1", "s8")
    assert split_scale("weakest@s8x4") == ("weakest", "s8x4")


def test_a_scale_that_cannot_be_measured_costs_no_other():
    """A constant first map: its metrics have the reason, the others their values."""

    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.fine, self.coarse = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(3, 4, 3, 4, 1)
            nn.init.zeros_(self.fine.weight)

        def forward(self, x):
            small = torch.nn.functional.max_pool2d(self.fine(x).relu(), 2)
            return (small + self.coarse(x).relu()).mean((2, 3))

    model = wrap(Half(), spec=InputSpec(32, 32), device="cpu")
    (record,) = audit(model, ("erf:luo2016",), target="all-scales", **QUICK)
    assert record.status == "ok"
    rows = {row["scale"]: row for row in record.tables["scales"]}
    assert "zero everywhere" in rows["s2"]["reason"]
    assert record.metrics["luo_size@s2"].value is None
    assert record.metrics["luo_size@s4"].value > 0


def test_the_command_line_measures_and_shows_scales(tmp_path):
    """`run`, `show` and `board` measure and show the scales of an ONNX file."""
    path, out = exported("YOLO of 5 classes", tmp_path), tmp_path / "out"
    words = ["run", str(path), "--target", "all-scales", "--suite", "structure,erf", "--count", "4"]
    ran = CliRunner().invoke(app, [*words, "--kernel-padding", "none", "--out", str(out)])
    assert ran.exit_code == 0, ran.output
    shown = CliRunner().invoke(app, ["show", str(out), str(path)])
    assert "every resolution" in shown.output
    assert "--target all-scales" in " ".join(shown.output.split())
    board = CliRunner().invoke(app, ["board", str(out), "--sort", "structure.weakest@s8"])
    assert board.exit_code == 0, board.output


@pytest.mark.parametrize("name", ["U-Net", "SegFormer", "YOLO with a neck", "text reader"])
def test_gradients_of_all_scales_take_one_forward_pass(name, monkeypatch, tmp_path):
    """As many passes with gradients as for the target alone, of the module and of its file.

    A pass over one image looks for what the output does not read, at the target alone.
    """
    counts = []
    for kind, method in ((TorchModel, "_run"), (OnnxModel, "_differentiable")):
        original = getattr(kind, method)

        def counted(self, x, *args, original=original, **options):
            counts[-1][len(x) == 1] += x.requires_grad
            return original(self, x, *args, **options)

        monkeypatch.setattr(kind, method, counted)
    model = opened(name)
    for thing in (model, open_onnx(exported(name, tmp_path), device="cpu", spec=model.spec)):
        for target in (None, "all-scales"):
            counts.append([0, 0])
            made = audit(thing, ("erf:luo2016", "deadpixel"), target=target, batch=4, **QUICK)
            assert all(record.status == "ok" for record in made)
            assert target is None or made[0].tables["scales"]
    assert counts == [[1, 1]] * 4


def test_the_features_of_a_timm_model_and_its_stages_are_scales_of_one_pass():
    """`forward_features`, which is no layer, beside layers: each as with that target alone."""
    model = load("timm:test_vit@init", device="cpu", size=(64, 64), members=1)
    block = replace(model.target, name="blocks.0")
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    model.select(0, x)
    found = model.run_each(x, [model.target, block], logits=True)
    assert torch.equal(found[0].target, model.run(x, logits=True).target)
    assert torch.equal(found[1].target, model.at(block).run(x).target)
    assert torch.equal(found[1].logits, model.run(x, target=False, logits=True).logits)
    assert not torch.equal(found[0].target, found[1].target)
