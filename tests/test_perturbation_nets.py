"""Differences against gradients and structure on real architectures, and on an ONNX file."""

import numpy as np
import pytest
import torch
from planted import measure_model

from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.suites.images import open_images
from perimetry.suites.perturbation.suite import PERTURBATION

FEW = {"position_images": 1, "block": 3, "noise_draws": 2, "attack_images": 1, "comb_draws": 8}


@pytest.mark.parametrize(
    ("name", "size", "period"),
    [
        ("resnet18", (96, 96), 4),
        ("mobilenetv3_small_100", (128, 128), 4),
        ("convnext_atto", (96, 96), 2),
        ("vit_tiny_patch16_224", (224, 224), 2),
    ],
)
def test_differences_agree_with_gradients_within_their_stated_errors(name, size, period):
    """On real architectures differences and gradients agree within their stated errors."""
    model = load(f"timm:{name}@init", device="cpu", members=8, size=size)
    found = measure_model(model, count=8, batch=16, period=period, **FEW)
    value = {key: estimate.value for key, estimate in found.metrics.items()}
    assert value["comb_error"] < 0.1
    assert value["agreement_direction"] < 1.5 * value["comb_error"] + 1e-3
    assert value["agreement_gradient_z"] < 3
    assert found.metrics["agreement_gradient"].low == 0
    assert value["agreement_gradient"] < 0.1


def test_the_profile_of_random_weights_is_the_one_that_structure_expects():
    """Measured profiles of random weights correlate by over 0.95 with the expected one."""
    model = load("timm:test_resnet@init", device="cpu", members=8)
    found = measure_model(model, count=8, **FEW)
    profiles = [found.maps[f"{route}_profile"] for route in ("comb", "gradient", "structure")]
    for one in profiles[:2]:
        assert np.corrcoef(one.ravel(), profiles[2].ravel())[0, 1] > 0.95
    assert found.metrics["agreement_structure"].value < 0.2


def test_an_onnx_file_gives_the_numbers_of_the_module_it_came_from(tmp_path):
    """An exported file has the module's maps within 5 % and the same metrics missing."""
    model = load("timm:test_resnet@init", device="cpu", members=1)
    x = model.spec.prepare(open_images("dead-leaves", 4).load(model.spec))
    model.select(0, x)
    path = tmp_path / "model.onnx"
    export_onnx(model.module(), torch.zeros_like(x[:1]), path, spec=model.spec)
    few = {**FEW, "comb_draws": 4, "period": 2}
    file = load(str(path), device="cpu")
    ours, theirs = (measure_model(m, count=4, **few) for m in (model, file))
    for metric in PERTURBATION.metrics:
        one, other = ours.metrics[metric.name].value, theirs.metrics[metric.name].value
        assert (one is None) == (other is None), metric.name
    for name in ("comb_profile", "gradient_profile", "positions"):
        np.testing.assert_allclose(theirs.maps[name], ours.maps[name], rtol=0.05)
