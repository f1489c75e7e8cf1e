"""A network and its static int8 file: the gradient check, and the black box behind the rounding."""

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, quantize_static

from perimetry.adapters.export import export_onnx
from perimetry.adapters.load import load
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.suites.base import Context
from perimetry.suites.erf.blocks import block_maps
from perimetry.suites.images import open_images
from perimetry.suites.measuring.forward import each_member
from perimetry.suites.measuring.phases import divide_by_mean
from perimetry.suites.perturbation.comb_responses import CombTest
from perimetry.suites.perturbation.directional import DirectionalDerivatives
from perimetry.suites.perturbation.phase_comb import choose_comb

COUNT = 4


class Images(CalibrationDataReader):
    """Gives the calibration its images one by one."""

    def __init__(self, x):
        self.rest = iter([{"image": x[i : i + 1].numpy()} for i in range(len(x))])

    def get_next(self):
        return next(self.rest, None)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """timm's smallest ResNet, calibrated: float32 and QDQ int8 files, opened."""
    folder = tmp_path_factory.mktemp("int8")
    model = load("timm:test_resnet@init", device="cpu", members=1)
    x = model.spec.prepare(open_images("dead-leaves", 8).load(model.spec))
    model.select(0, x)
    path = export_onnx(model.module(), x[:1], folder / "float.onnx", spec=model.spec)
    quantize_static(str(path), str(folder / "int8.onnx"), Images(x))
    made = onnx.load_model(folder / "int8.onnx")
    assert any(n.op_type == "QuantizeLinear" for n in made.graph.node)
    return [
        open_onnx(folder / f"{n}.onnx", device="cpu", spec=model.spec) for n in ("float", "int8")
    ]


def comb_of(model):
    images = open_images("dead-leaves", COUNT).load(model.spec)
    derivatives = DirectionalDerivatives("not asked for", COUNT, 0, 0)
    test = CombTest(choose_comb(model, 4, []), COUNT, COUNT, 1 / 255, 2, 0, derivatives)
    for member in each_member(model, images, 8, []):
        test.observe(member)
    return divide_by_mean(np.mean(list(test.energies.values()), axis=0)), test


def test_the_gradient_check_accepts_a_flipped_rounding(pair):
    """onnxruntime's own output moves by 1.5e-2 when the image moves by 1e-6."""
    _, rounded = pair
    assert rounded.why_no_gradients is None
    assert rounded.verdict.forward < 0.02
    assert rounded.verdict.gradient < 1e-3
    assert any("straight-through" in note for note in rounded.notes)


def test_the_comb_of_an_int8_file_has_the_profile_of_its_float_file(pair):
    """Squared responses alone gave an imbalance of 0.22 for 0.57: rounding is even."""
    (exact, fine), (found, rounded) = (comb_of(model) for model in pair)
    assert not fine.step.rounded
    assert rounded.step.rounded
    assert np.sqrt(((found - exact) ** 2).mean()) < rounded.steps_differ.relative
    assert abs(found.std() - exact.std()) < 0.1 * exact.std()


def test_the_blocks_of_an_int8_file_have_the_map_of_its_float_file(pair):
    """The maps of both files correlate by more than 0.9."""
    maps = []
    for model in pair:
        images = open_images("dead-leaves", COUNT).load(model.spec)
        context = Context(images, batch=8)
        found = block_maps(model, context, [(2, 2)], block=20, images=COUNT)
        maps.append(found.maps[2, 2].mean(0))
    assert np.corrcoef(maps[0].ravel(), maps[1].ravel())[0, 1] > 0.9
