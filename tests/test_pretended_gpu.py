"""Every suite with its model on a GPU that is pretended: no step mixes devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from pretend_gpu import pretended_gpu
from torch import nn

from perimetry import audit
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.suites.measuring.step_size import SMALL_STEP_ERROR

SPEC = InputSpec(48, 48, mean=(0.5,) * 3, std=(0.25,) * 3)
BY_NAME = ("halo", "output", "shift", "frequency", "position", "objects")
SUITES = ("structure", "erf:all", "deadpixel:all", "perturbation", "padding", "fidelity", *BY_NAME)

TOLERANCES = {"perturbation": SMALL_STEP_ERROR}
"""Differences that rounding may make: that of the step's float noise, 1e-3 elsewhere."""

FEW = {
    "erf": {"block": 16, "block_images": 1},
    "perturbation": {
        "comb_draws": 2,
        "noise_draws": 2,
        "block": 2,
        "position_images": 1,
        "attack_images": 1,
    },
    "halo": {"overlaps": (0, 8)},
    "shift": {"shifts": 3},
    "position": {"weight_sets": 2},
    "objects": {"phases": 2, "images": 2},
}


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, 2, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


@pytest.fixture
def gpu(monkeypatch):
    with pretended_gpu(monkeypatch) as mode:
        yield mode


def test_the_pretended_gpu_refuses_what_a_real_one_refuses(gpu):
    """Mixed devices and numpy arrays of its tensors are errors; copies are not."""
    here, there = torch.ones(3), torch.ones(3).to("cuda")
    assert (here.device.type, there.device.type) == ("cpu", "cuda")
    assert (there * 2)[1:].view(2, 1).device.type == "cuda"
    with pytest.raises(RuntimeError, match="two devices"):
        here + there
    with pytest.raises(TypeError):
        there.numpy()
    with pytest.raises(TypeError):
        np.asarray(there)
    assert there.cpu().numpy().tolist() == [1, 1, 1]
    assert here.device.type == "cpu"
    net = convnet().to("cuda")
    assert net(torch.ones(2, 3, 48, 48, device="cuda")).device.type == "cuda"
    with pytest.raises(RuntimeError, match="two devices"):
        net(torch.ones(2, 3, 48, 48))


def outcome(records):
    return {(r.fill, r.suite, r.protocol): (r.status, r.error and r.error.trace) for r in records}


def numbers(records):
    return {
        (r.fill, r.suite, r.protocol): {n: v.value for n, v in r.metrics.items()} for r in records
    }


def compare(model, fills, request, **settings):
    """Audit on the CPU and on the pretended GPU; the same statuses and the same numbers."""
    here = audit(model, SUITES, fills, device="cpu", options=FEW, **settings)
    with pretended_gpu(request.getfixturevalue("monkeypatch")):
        there = audit(model, SUITES, fills, device="cuda", options=FEW, **settings)
    assert outcome(there) == outcome(here)
    assert {r.environment.device for r in there} == {"cuda"}
    found = numbers(there)
    for place, metrics in numbers(here).items():
        for name, value in metrics.items():
            other = found[place][name]
            assert (other is None) == (value is None), (place, name)
            if value is not None:
                allowed = TOLERANCES.get(place[1], 1e-3)
                assert other == pytest.approx(value, rel=allowed), (place, name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_module_is_audited_on_its_device(request, precision):
    """Every suite measures a module on its device, with every padding and precision."""
    fills = ("none", "fit") if precision == "float32" else ("none",)
    compare(convnet(), fills, request, count=2, precision=precision)


def test_a_recalibrated_module_is_audited_on_its_device(request):
    """A recalibrated module has its norms matched on its device."""
    compare(convnet(), ("none", "box"), request, count=2, recalibrate=True)


def test_weight_sets_of_timm_are_audited_on_their_device(request):
    """The weight sets of an `@init` model are calibrated and measured on its device."""
    compare("timm:test_resnet@init", ("none",), request, count=2, members=2, size=(64, 64))


def test_a_transformer_is_audited_on_its_device(request):
    """A transformer with prefix token, positions and attention is measured on its device."""
    compare("timm:test_vit@init", ("none",), request, count=2, members=2)


def test_a_file_with_gradients_is_audited_on_its_device(request, tmp_path):
    """The interpreter computes on the GPU, onnxruntime where it can."""
    path = tmp_path / "net.onnx"
    export_onnx(convnet(), torch.zeros(1, 3, 48, 48), path, spec=SPEC)
    compare(str(path), ("none", "box"), request, count=2)
