"""One network three times: torch, its ONNX file with gradients, and the file as a black box."""

import numpy as np
import pytest

from perimetry import audit
from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.gradient_check.subject import GradientVerdict
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.images import open_images

REASON = "no gradient route: as if it were opaque"
SUITES = ("perturbation", "deadpixel")
SETTINGS = {
    "count": 6,
    "draws": 50,
    "device": "cpu",
    "options": {"perturbation": {"block": 2, "position_images": 1}},
}


@pytest.fixture(scope="module")
def three(tmp_path_factory):
    """Records by suite of the three."""
    model = load("timm:test_resnet@init", device="cpu", members=1)
    x = model.spec.prepare(open_images("dead-leaves", 8).load(model.spec))
    model.select(0, x)
    path = tmp_path_factory.mktemp("three") / "model.onnx"
    export_onnx(model.module(), x[:1], path, spec=model.spec)
    blind = open_onnx(path, device="cpu")
    blind.__dict__ |= {"verdict": GradientVerdict(REASON), "why_no_gradients": REASON}
    native = wrap(model.module(), spec=model.spec, device="cpu")
    things = {"torch": native, "onnx": open_onnx(path, device="cpu"), "black box": blind}
    return {
        name: {r.suite: r for r in audit(thing, SUITES, **SETTINGS)}
        for name, thing in things.items()
    }


def value(record, name):
    return record.metrics[name].value


def test_gradients_of_torch_and_of_the_file_give_the_same_numbers(three):
    """Three metrics of both agree to 0.1 %."""
    for name in ("weakest", "imbalance", "relL1"):
        first, second = (value(three[side]["deadpixel"], name) for side in ("torch", "onnx"))
        assert second == pytest.approx(first, rel=1e-3)


def test_forward_passes_of_all_three_give_the_same_numbers(three):
    """Torch's and onnxruntime's rounding apart; the black box is the file, bit for bit."""
    for name in ("comb_weakest", "comb_imbalance", "comb_ratio"):
        torch_, file, blind = (value(three[side]["perturbation"], name) for side in three)
        assert file == pytest.approx(torch_, rel=1e-2)
        assert blind == file


def test_the_black_box_reaches_the_gradients_profile_within_its_stated_error(three):
    """The profile without gradients is within three stated errors of that with them."""
    record = three["onnx"]["perturbation"]
    assert value(record, "agreement_gradient_z") < 2
    blind = three["black box"]["perturbation"]
    apart = blind.maps["comb_profile"] - record.maps["gradient_profile"]
    stated = max(value(blind, "comb_error"), 0.05)
    assert float(np.sqrt(np.mean(np.square(apart, dtype=np.float64)))) < 3 * stated


def test_what_needs_gradients_says_why_it_has_none(three):
    """The skipped suite and the missing metric have the same reason."""
    assert three["black box"]["deadpixel"].status == "skipped"
    assert three["black box"]["deadpixel"].reason == REASON
    assert three["black box"]["perturbation"].metrics["leverage"].reason == REASON
