"""One network, two runtimes: the same weights through torch and through ONNX."""

import pytest
import torch

from perimetry import audit
from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.images import open_images
from perimetry.suites.registry import SUITES

PROTOCOLS = ("erf", "erf:kim2023", "deadpixel", "deadpixel:kim2023")
TOLERANCE = 1e-3


def both_forms(name, folder):
    """A calibrated initial state as a model, and the ONNX file exported from it."""
    size = None if name == "test_vit" else (128, 128)
    model = load(f"timm:{name}@init", device="cpu", members=1, size=size)
    x = model.spec.prepare(open_images("dead-leaves", 4).load(model.spec))
    model.select(0, x)
    path = folder / f"{name}.onnx"
    export_onnx(model.module(), torch.zeros_like(x[:1]), path, spec=model.spec)
    return (
        wrap(model.module(), spec=model.spec, device="cpu", precision="float64"),
        load(str(path), device="cpu", precision="float64"),
    )


@pytest.mark.parametrize(
    ("name", "fills"), [("resnet18", ("none",)), ("test_resnet", ("box",)), ("test_vit", ("none",))]
)
def test_the_same_weights_give_the_same_metrics_within_a_thousandth(name, fills, tmp_path):
    """Every metric of a torch module and of its ONNX export agrees within 1/1000."""
    model, file = both_forms(name, tmp_path)
    ours = audit(model, PROTOCOLS, fills, count=4, draws=10, device="cpu")
    theirs = audit(file, PROTOCOLS, fills, count=4, draws=10, device="cpu")
    compared = 0
    for a, b in zip(ours, theirs, strict=True):
        assert (a.suite, a.protocol, a.fill, a.status) == (b.suite, b.protocol, b.fill, b.status)
        if a.status == "skipped":
            assert a.reason == b.reason
            continue
        for metric in SUITES[a.suite].metrics:
            first, second = a.metrics[metric.name].value, b.metrics[metric.name].value
            if first is None or second is None:
                assert first is second or metric.name == "erf_trf"
                continue
            # A position or a length in pixels is told on the scale of the image.
            scale = model.spec.height if metric.unit == "pixels" else 1.0
            assert first == pytest.approx(second, rel=TOLERANCE, abs=TOLERANCE * scale), metric
            compared += 1
    assert compared > 30
