"""One rule for the target: a corpus of models as modules of torch and as ONNX files."""

import pytest
import torch
from corpus import CORPUS, built, export, exported
from corpus_nets import Backbone
from onnxruntime.quantization import QuantType, quantize_dynamic

from perimetry import audit
from perimetry.adapters.feature_grid import Grid, TargetChoice
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.bench.records.parts import target_data
from perimetry.suites.measuring.output_view import at_output

SUITES = ("structure", "erf:luo2016", "deadpixel")


@pytest.mark.parametrize("name", CORPUS)
def test_the_target_of_a_module_is_the_one_that_the_corpus_names(name):
    """Layer and size are right, and the reason names what leads around it."""
    case = CORPUS[name]
    target = wrap(built(name), spec=InputSpec(*case.size), device="cpu").target
    assert (target.name, target.height, target.width) == (case.module, *case.units)
    assert case.remark in target.reason
    assert bool(case.remark) == (";" in target.reason)
    choices = (TargetChoice.DETOUR, TargetChoice.BRANCH) if case.remark else (TargetChoice.RULE,)
    assert target.choice in choices


def test_a_target_knows_how_it_was_chosen_at_every_size(tmp_path):
    """A named one is measured by suites about outputs, one by the rule gives way to the output."""
    spec = InputSpec(64, 64)
    net = built("U-Net")
    name = wrap(net, spec=spec, device="cpu").target.name
    path = exported("U-Net", tmp_path)
    tensor = open_onnx(path, device="cpu", spec=spec).target.name
    opened = {
        choice: [
            wrap(net, spec=spec, device="cpu", target=layer),
            open_onnx(path, device="cpu", spec=spec, target=layer and tensor),
        ]
        for choice, layer in ((TargetChoice.NAMED, name), (TargetChoice.DETOUR, None))
    }
    for choice, models in opened.items():
        for model in models:
            for one in (model, model.resized(96, 64), model.padded("box")):
                assert one.target.choice is choice
                shown = choice if choice is TargetChoice.NAMED else TargetChoice.OUTPUT
                assert at_output(one).target.choice is shown
        assert models[0].padded("kim2023").target.choice is choice  # its target is found again
        assert {grid.choice for model in models for grid in model.scales()} == {TargetChoice.SCALE}


@pytest.mark.parametrize("choice", [None, *TargetChoice])
def test_how_a_target_was_chosen_is_in_no_record_and_in_no_key(choice):
    """Records keep the reason in words; records and keys of earlier versions stay what they are."""
    grid = Grid("x", "NLC", 8, 3, 4, prefix=1, reason="why", choice=choice)
    words = "name='x', kind='NLC', channels=8, height=3, width=4, prefix=1, reason='why'"
    assert str(grid) == f"Grid({words})"
    assert grid == Grid("x", "NLC", 8, 3, 4, prefix=1)
    kept = {"name": "x", "kind": "NLC", "channels": 8, "height": 3, "width": 4, "prefix": 1}
    assert target_data(grid) == {**kept, "reason": "why"}


@pytest.mark.parametrize("name", CORPUS)
def test_the_file_of_a_module_has_the_same_target(name, tmp_path):
    """Both give the same numbers at the target, and say the same of it."""
    spec = InputSpec(*CORPUS[name].size)
    module = wrap(built(name), spec=spec, device="cpu")
    file = open_onnx(exported(name, tmp_path), device="cpu", spec=spec)
    if module.target.name != "forward_features":
        assert file.target.reason == module.target.reason
    x = torch.randn(2, 3, *CORPUS[name].size)
    torch.testing.assert_close(file.run(x).target, module.run(x).target, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["U-Net", "DETR", "YOLO of 5 classes", "text reader"])
def test_the_file_of_a_module_gets_the_same_records(name, tmp_path):
    """Field, effective field and evenness are equal, and every record says why."""
    spec = InputSpec(*CORPUS[name].size)
    file = open_onnx(exported(name, tmp_path), device="cpu", spec=spec)
    options = {"count": 4, "device": "cpu", "draws": 50}
    ours, theirs = (
        audit(m, SUITES, **options) for m in (wrap(built(name), spec=spec, device="cpu"), file)
    )
    for one, other in zip(ours, theirs, strict=True):
        assert one.status == other.status, (one.reason, other.reason, other.error)
        assert one.status == "ok" or "recurrent" in one.reason
        assert "coarsest" in one.model.target["reason"]
        for metric in ("receptive_field", "luo_size", "weakest", "imbalance"):
            if metric in one.metrics and one.metrics[metric].value is not None:
                value = one.metrics[metric].value
                assert other.metrics[metric].value == pytest.approx(value, rel=2e-3)


@pytest.mark.parametrize("name", ["classifier", "U-Net", "feature pyramid", "HRNet", "ViT"])
def test_the_file_in_eight_bits_has_the_same_target(name, tmp_path):
    """Integers between the layers, and the scales that a file finds at run time, are no detours."""
    spec = InputSpec(*CORPUS[name].size)
    path = exported(name, tmp_path)
    quantize_dynamic(str(path), str(tmp_path / "int8.onnx"), weight_type=QuantType.QUInt8)
    whole, eight = (
        open_onnx(p, device="cpu", spec=spec).target for p in (path, tmp_path / "int8.onnx")
    )
    assert (eight.name, eight.reason) == (whole.name, whole.reason)


def test_a_tensor_whose_shape_alone_is_read_is_no_path_around_the_target():
    """`view_as` takes the shape of a map, which then does not lead around the layer between."""

    class Tokens(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = torch.nn.Conv2d(3, 6, 4, 4)
            self.tokens = torch.nn.Conv1d(6, 6, 3, 1, 1)
            self.head = torch.nn.Conv2d(6, 4, 3, 1, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.head(self.tokens(x.flatten(2)).view_as(x))

    target = wrap(Tokens(), spec=InputSpec(48, 48), device="cpu").target
    assert ";" not in target.reason


JOINS = {
    "stack, weighted sum": (lambda t: (torch.stack(t) * torch.ones(3, 1, 1)).sum(0), True),
    "stack, mean": (lambda t: torch.stack(t, 1).mean(1), True),
    "stack, maximum": (lambda t: torch.stack(t, -1).max(-1).values, True),
    "concatenation, view, sum": (lambda t: torch.cat(t, 1).view(-1, 3, 5).sum(1), True),
    "sum": (lambda t: t[0] + t[1] + t[2], True),
    "stack": (torch.stack, False),
    "concatenation": (lambda t: torch.cat(t, 1), False),
    "concatenation, squared": (lambda t: torch.cat(t, 1).pow(2), False),
}


class HeadsAtEveryDepth(torch.nn.Module):
    """A classifier at each of three stages; `join` makes one output of their scores."""

    def __init__(self, join):
        super().__init__()
        self.body, self.join = Backbone(), join
        self.heads = torch.nn.ModuleList(torch.nn.Linear(c, 5) for c in (12, 16, 24))

    def forward(self, x):
        maps = self.body(x)
        return self.join([h(m.mean((2, 3))) for h, m in zip(self.heads, maps[1:], strict=True)])


@pytest.mark.parametrize("route", ["module", "file"])
@pytest.mark.parametrize("join", JOINS)
def test_scores_of_several_depths_that_are_added_up_count_together(join, route, tmp_path):
    """However they are added; side by side each counts by itself, and the first stage is shared."""
    how, together = JOINS[join]
    module, spec = HeadsAtEveryDepth(how).eval(), InputSpec(64, 64)
    if route == "module":
        target = wrap(module, spec=spec, device="cpu").target
    else:
        path = export(module, (64, 64), tmp_path / "heads.onnx")
        target = open_onnx(path, device="cpu", spec=spec).target
    assert (target.height, target.width) == ((4, 4) if together else (16, 16))
