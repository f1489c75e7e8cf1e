"""Resize and Upsample of ONNX files give what onnxruntime gives, for fractional scales too."""

import itertools

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, weights
from torch import nn

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.export import export_onnx
from perimetry.adapters.onnx.graph import Mode
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.suites.architecture.propagate import energy_map

TRANSFORMS = (
    *("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"),
    *("align_corners", "asymmetric"),
)
ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
MODES = [("nearest", rounding) for rounding in ROUNDINGS] + [("linear", ""), ("cubic", "")]
SIDES = ((20, 13), (12, 40), (50, 31))
SCALES = (0.7, 1 / 3, 2 / 3, 1.5, 1.9, 2.3, 0.49, 0.3, 1.0, 1.04, 2.0, 0.6)


def session(proto):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def both(proto, sides, dtype=torch.float32):
    """What onnxruntime and the interpreter give for one random image."""
    x = weights(1, 2, *sides, seed=3)
    (expected,) = session(proto).run(None, {"image": x})
    feeds = {"image": torch.from_numpy(x)}
    return expected, Interpreter(proto, Mode(dtype=dtype))(feeds, ["out"])["out"].numpy()


def graph(inputs, constants, sides, *, op="Resize", opset=19, **attributes):
    nodes = [node(op, inputs, ["out"], **attributes)]
    return model(nodes, constants, dims=[1, 2, *sides], outputs=["out"], opset=opset)


def by_scales(sides, scales, **attributes):
    held = {"scales": np.array([1, 1, *scales], np.float32)}
    return graph(["image", "", "scales"], held, sides, **attributes)


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("mode", "rounding"), MODES)
def test_scales_give_the_elements_that_onnxruntime_takes(mode, rounding, transform):
    """Every fraction, enlarging and shrinking, of sides that it does not divide."""
    options = {"mode": mode, "coordinate_transformation_mode": transform}
    options |= {"nearest_mode": rounding} if rounding else {}
    for sides, (i, rows) in itertools.product(SIDES, enumerate(SCALES)):
        scales = (rows, SCALES[i - 4])
        for dtype in (torch.float32, torch.float64):
            expected, got = both(by_scales(sides, scales, **options), sides, dtype)
            np.testing.assert_allclose(got, expected, 1e-4, 2e-5, err_msg=f"{sides} {scales}")


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(("mode", "rounding"), MODES)
def test_sizes_give_the_elements_that_onnxruntime_takes(mode, rounding, transform):
    """Sizes of one row or column among them."""
    options = {"mode": mode, "coordinate_transformation_mode": transform}
    options |= {"nearest_mode": rounding} if rounding else {}
    wanted = ((1, 9), (5, 21), (1, 1), (33, 1), (14, 27), (100, 61))
    for sides, size in itertools.product(SIDES, wanted):
        held = {"sizes": np.array([1, 2, *size])}
        expected, got = both(graph(["image", "", "", "sizes"], held, sides, **options), sides)
        np.testing.assert_allclose(got, expected, 1e-4, 2e-5, err_msg=f"{sides} {size}")


@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [3], [-1]])
def test_scales_of_named_axes_are_those_of_onnxruntime(axes):
    """Each scale belongs to the axis at the same place in the list."""
    held = {"scales": np.array([0.7, 1.9][: len(axes)], np.float32)}
    for mode in ("nearest", "linear"):
        proto = graph(["image", "", "scales"], held, (20, 13), mode=mode, axes=axes)
        expected, got = both(proto, (20, 13))
        np.testing.assert_allclose(got, expected, 1e-4, 2e-5)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
def test_the_older_operators_are_those_of_onnxruntime(op, opset, mode):
    """They round down where they enlarge; where Resize 10 shrinks, it rounds up."""
    compared = 0
    for sides, (i, rows) in itertools.product(SIDES, enumerate(SCALES)):
        scales = [1.0, 1.0, rows, SCALES[i - 4]]
        if op == "Upsample" and min(scales) < 1:
            continue
        if opset < 9:
            proto = graph(["image"], {}, sides, op=op, opset=opset, mode=mode, scales=scales)
        else:
            held = {"scales": np.array(scales, np.float32)}
            proto = graph(["image", "scales"], held, sides, op=op, opset=opset, mode=mode)
        expected, got = both(proto, sides)
        np.testing.assert_allclose(got, expected, 1e-4, 2e-5, err_msg=f"{sides} {scales}")
        compared += 1
    assert compared >= 6


@pytest.mark.parametrize(
    "variant",
    [
        {"antialias": 1, "mode": "linear"},
        {"exclude_outside": 1, "mode": "cubic"},
        {"coordinate_transformation_mode": "tf_crop_and_resize", "mode": "linear"},
    ],
)
def test_variants_without_a_rule_are_declined_by_name(variant):
    """Nothing is computed for them that onnxruntime would compute otherwise."""
    proto = by_scales((20, 13), (0.7, 1.9), **variant)
    with pytest.raises(NotApplicableError, match=r"Resize node 'out': .* is not implemented"):
        Interpreter(proto)({"image": torch.zeros(1, 2, 20, 13)}, ["out"])


class Net(nn.Module):
    """A patch layer, an interpolation, and a layer of one tap that is the target."""

    def __init__(self, **options):
        super().__init__()
        self.patch, self.point = nn.Conv2d(3, 8, 4, 4), nn.Conv2d(8, 4, 1)
        self.head, self.options = nn.Linear(4, 3), options

    def forward(self, x):
        return self.head(self.point(F.interpolate(self.patch(x), **self.options)).mean((2, 3)))


@pytest.mark.parametrize("side", [20, 21])
@pytest.mark.parametrize(
    "options",
    [
        {"scale_factor": 1 / 3, "mode": "nearest"},
        {"scale_factor": 0.7, "mode": "nearest"},
        {"scale_factor": 0.7, "mode": "bilinear"},
        {"scale_factor": 0.7, "mode": "bilinear", "align_corners": True},
        {"scale_factor": 0.3, "mode": "bicubic", "align_corners": True},
        {"scale_factor": 1.9, "mode": "nearest"},
    ],
    ids=str,
)
def test_the_file_of_an_interpolation_by_a_fraction_is_expected_as_torch_computes_it(
    options, side, tmp_path
):
    """The gradients are verified; the map is the squared coefficients of `F.interpolate`."""
    torch.manual_seed(0)
    path = tmp_path / "m.onnx"
    export_onnx(Net(**options).eval(), torch.zeros(1, 3, 4 * side, 4 * side), path)
    target = [n.output[0] for n in onnx.load(path).graph.node if n.op_type == "Conv"][-1]
    opened = open_onnx(str(path), device="cpu", target=target)
    assert opened.why_no_gradients is None
    found = energy_map(opened.skeleton(), (3, 4 * side, 4 * side))[0]
    line = torch.eye(side, dtype=torch.float64)[:, None, :, None].expand(-1, 1, -1, side)
    rows = F.interpolate(line.contiguous(), **options)[:, 0, :, 0].square().sum(1)
    wanted = torch.outer(rows, rows).repeat_interleave(4, 0).repeat_interleave(4, 1)
    np.testing.assert_allclose(found / found.mean(), wanted / wanted.mean(), 1e-4, 1e-6)
