"""Kernel padding of transposed convolutions: the checkerboard before and after, module and file."""

import re
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from perimetry import audit
from perimetry.adapters.export import export_onnx
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.onnx.interpreter import Interpreter
from perimetry.adapters.onnx.kernel_padding.rewrite import pad_graph
from perimetry.adapters.pytorch.kernel_padding.rewrite import pad_module
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.output.suite import OUTPUT

CASES = (
    {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    {"kernel_size": 5, "stride": 3, "padding": 1, "groups": 2},
    {"kernel_size": 5, "stride": 2, "padding": 2, "output_padding": 1, "dilation": 3},
    {"kernel_size": 3, "stride": 4, "output_padding": 1},
)
LAYERS = (nn.ConvTranspose1d, nn.ConvTranspose2d)


def net(layer, case):
    torch.manual_seed(0)
    shape = (2, 4, 9) if layer is nn.ConvTranspose1d else (2, 4, 7, 6)
    return nn.Sequential(layer(4, 8, **case)).double().eval(), torch.randn(shape).double()


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("case", CASES)
def test_zero_keeps_the_function_and_every_fill_the_size(layer, case):
    """New taps of 0 change nothing; kernels are multiples of the stride, or k + s - 1 for box."""
    for fill in ("zero", "box", "fresh"):
        module, x = net(layer, case)
        with torch.no_grad():
            before = module(x)
            (grown,) = pad_module(module, fill, x).layers
            after = module(x)
        k, s = case["kernel_size"], case["stride"]
        assert grown.padded_kernel[1] == (k + s - 1 if fill == "box" else -(-k // s) * s)
        assert after.shape == before.shape
        if fill == "zero":
            torch.testing.assert_close(after, before)


def box_by_hand(x, weight, bias, case):
    """One row: the uncropped output, of which a moving mean over a stride is taken, and cropped."""
    k, s = case["kernel_size"], case["stride"]
    p, d, extra = (
        case.get(n, v) for n, v in (("padding", 0), ("dilation", 1), ("output_padding", 0))
    )
    size = (x.shape[-1] - 1) * s - 2 * p + d * (k - 1) + 1 + extra
    front = d * (s - 1) // 2
    groups = case.get("groups", 1)
    out = torch.zeros(x.shape[0], 8, size, dtype=torch.float64)
    for o in range(size):
        for channel in range(8):
            group = channel // (8 // groups)
            for c in range(group * 4 // groups, (group + 1) * 4 // groups):
                for i in range(x.shape[-1]):
                    for tap in range(k):
                        for j in range(s):
                            if i * s + d * (tap + j) - p - front == o:
                                w = weight[c, channel % (8 // groups), tap]
                                out[:, channel, o] += x[:, c, i] * w / s
    return out + bias[:, None]


@pytest.mark.parametrize("case", CASES)
def test_box_is_a_moving_mean_over_a_stride_of_the_output(case):
    """By loops over units, taps and the box."""
    module, x = net(nn.ConvTranspose1d, case)
    weight, bias = module[0].weight.detach().clone(), module[0].bias.detach()
    pad_module(module, "box", x)
    with torch.no_grad():
        torch.testing.assert_close(module(x), box_by_hand(x, weight, bias, case))


def test_a_constant_becomes_constant_again():
    """Kernel 3 at stride 2 makes a checkerboard of a constant; grown by a box it does not."""
    module, _ = net(nn.ConvTranspose2d, CASES[0])
    x = torch.ones(1, 4, 8, 8).double()
    with torch.no_grad():
        uneven = module(x)[..., 4:-4, 4:-4]
        pad_module(module, "box", x)
        even = module(x)[..., 4:-4, 4:-4]
    assert float(uneven.std((2, 3)).max()) > 0.1
    torch.testing.assert_close(even, even[..., :1, :1].expand_as(even))
    torch.testing.assert_close(even.mean((2, 3)), uneven.mean((2, 3)))


def test_fresh_taps_keep_the_variance_and_have_a_seed():
    """The mean square of the output over many seeds is that of the old layer; one seed repeats."""
    x = torch.randn(1, 4, 24, 24).double()
    before, after = [], []
    for seed in range(40):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.ConvTranspose2d(4, 8, 3, 2, bias=False)).double()
        module.requires_grad_(False)
        before.append(float(module(x).square().mean()))
        pad_module(module, "fresh", x, seed=seed)
        after.append(float(module(x).square().mean()))
    assert np.mean(after) == pytest.approx(np.mean(before), rel=0.1)


class Sized(nn.Module):
    """A layer that is given the size of its output, with weights of its own or computed ones."""

    def __init__(self, computed=False):
        super().__init__()
        self.up, self.computed = nn.ConvTranspose2d(2, 2, 3, 2, 1), computed
        self.taps = nn.Parameter(torch.ones(36))

    def forward(self, x):
        if self.computed:
            weight = (self.taps * x.mean()).view(2, 2, 3, 3)
            return F.conv_transpose2d(x, weight, stride=2)
        return self.up(x, output_size=[2 * n for n in x.shape[2:]])


def test_a_layer_that_is_told_the_size_of_its_output_keeps_it():
    """`output_size` is met as before, since the layer goes on computing with its old kernel."""
    module, x = Sized(), torch.randn(1, 2, 5, 6)
    with torch.no_grad():
        before = module(x)
        (grown,) = pad_module(module, "zero", x).layers
        torch.testing.assert_close(module(x), before)
        assert module(torch.randn(1, 2, 7, 4)).shape == (1, 2, 14, 8)
    assert (grown.kind, grown.padded_kernel) == ("conv_transpose2d", (4, 4))


@pytest.mark.parametrize(("fill", "computed"), [("zero", True), ("kim2023", False)])
def test_what_is_not_grown_has_a_reason(fill, computed):
    """Computed weights, to which zeros would add nothing, and Kim et al.'s own fill."""
    treatment = pad_module(Sized(computed), fill, torch.randn(1, 2, 5, 6))
    assert treatment.layers == ()
    assert len(treatment.refused_layers) == 1


def test_computed_weights_are_convolved_with_a_box():
    """The output for a constant is even where `zero` cannot pad."""
    module, x = Sized(computed=True), torch.ones(1, 2, 6, 6)
    pad_module(module, "box", x)
    with torch.no_grad():
        inner = module(x)[..., 3:-3, 3:-3]
    torch.testing.assert_close(inner, inner[..., :1, :1].expand_as(inner))


@pytest.mark.parametrize("fill", ["zero", "box"])
@pytest.mark.parametrize("case", CASES)
def test_a_file_is_padded_like_its_module(tmp_path, fill, case):
    """The exported graph grows to the same kernels and gives the same output."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 8, **case)).eval()
    spec = InputSpec(8, 8)
    path = export_onnx(module, spec.blank(), tmp_path / "m.onnx", spec=spec)
    ours = wrap(module, spec=spec, device="cpu").padded(fill)
    theirs = load(str(path), device="cpu").padded(fill)
    assert [layer.padded_kernel for layer in ours.treatment.layers] == [
        layer.padded_kernel for layer in theirs.treatment.layers
    ]
    x = torch.randn(1, 3, 8, 8)
    (file,) = theirs.every_output(x).tensors.values()
    (own,) = ours.every_output(x).tensors.values()
    np.testing.assert_allclose(file, own, atol=1e-5)


def graph(rank, kernel, stride, size=7, **attributes):
    """One ConvTranspose over `rank` axes of `size` units."""
    weight = np.random.default_rng(0).standard_normal((4, 8) + (kernel,) * rank).astype("f")
    node = helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], strides=[stride] * rank, **attributes
    )
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4] + [size] * rank)
    out = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    made = helper.make_graph([node], "g", [image], [out], [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 17)]
    return onnx.shape_inference.infer_shapes(
        helper.make_model(made, opset_imports=opset, ir_version=9)
    )


def run(proto, x):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(proto.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


ATTRIBUTES = (
    (3, 2, {"pads": [1, 1], "output_padding": [1]}),
    (5, 3, {"pads": [0, 2]}),
    (3, 2, {"auto_pad": "SAME_UPPER"}),
    (3, 2, {"auto_pad": "SAME_LOWER"}),
    (5, 2, {"auto_pad": "VALID"}),
    (5, 3, {"output_shape": [20]}),
    (5, 3, {"output_shape": [20], "auto_pad": "SAME_UPPER"}),
    (1, 2, {"auto_pad": "SAME_UPPER"}),
)


def per_axis(attributes, rank):
    """The attributes with every number `rank` times."""
    return {
        k: v if isinstance(v, str) else [n for n in v for _ in range(rank)]
        for k, v in attributes.items()
    }


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize(("kernel", "stride", "attributes"), ATTRIBUTES)
def test_every_way_to_state_the_size_of_an_output_is_kept(rank, kernel, stride, attributes):
    """Pads, `auto_pad` and `output_shape`: zeros keep what onnxruntime gives, box its size."""
    proto = graph(rank, kernel, stride, **per_axis(attributes, rank))
    x = np.random.default_rng(1).standard_normal((1, 4) + (7,) * rank).astype("f")
    before = run(proto, x)
    np.testing.assert_allclose(run(pad_graph(proto, "zero").proto, x), before, atol=1e-5)
    assert run(pad_graph(proto, "box").proto, x).shape == before.shape
    found = Interpreter(proto)({"x": torch.from_numpy(x)}, ("y",))["y"]
    np.testing.assert_allclose(found, before, atol=1e-5)


def test_a_size_that_the_file_leaves_open_is_left():
    """Of an `output_shape` for an open input it is not known what is cropped."""
    proto = graph(2, 5, 3, output_shape=[20, 20])
    for axis in proto.graph.input[0].type.tensor_type.shape.dim[2:]:
        axis.ClearField("dim_value")
        axis.dim_param = "n"
    treatment = pad_graph(proto, "box").treatment
    assert treatment.layers == ()
    assert treatment.refused_layers


class Decoder(nn.Module):
    """A stride of 4 by convolutions, undone by transposed ones of uneven kernels."""

    def __init__(self, kernel=3, stride=2):
        super().__init__()
        torch.manual_seed(0)
        self.down = nn.Conv2d(3, 8, stride**2, stride**2)
        output_padding = stride + 2 - kernel  # maps grow by the stride
        self.up = nn.ConvTranspose2d(8, 8, kernel, stride, 1, output_padding)
        self.out = nn.ConvTranspose2d(8, 2, kernel, stride, 1, output_padding)

    def forward(self, x):
        return self.out(self.up(self.down(x)).relu())


@pytest.mark.parametrize("kind", ["torch", "onnx"])
@pytest.mark.parametrize(("kernel", "stride", "grown"), [(3, 2, (4, 4)), (5, 3, (7, 7))])
def test_output_shows_the_checkerboard_before_and_not_after(tmp_path, kind, kernel, stride, grown):
    """Expected imbalance falls to 0, that on noise to less than half, with no remedy left."""
    module, spec = Decoder(kernel, stride).eval(), InputSpec(36, 36)
    model = wrap(module, spec=spec, device="cpu")
    if kind == "onnx":
        path = export_onnx(module, spec.blank(), tmp_path / "m.onnx", spec=spec)
        model = load(str(path), device="cpu")
    before, after = audit(model, ("output",), ("none", "box"), count=8, device="cpu")[:2]
    assert (before.status, after.status) == ("ok", "ok"), (before.error, after.error)
    assert before.metrics["expected_imbalance"].value > 0.1
    assert after.metrics["expected_imbalance"].value == pytest.approx(0, abs=1e-9)
    assert after.metrics["noise_imbalance"].value < 0.5 * before.metrics["noise_imbalance"].value
    assert [tuple(row["kernel"]) for row in after.tables["upsampling"]] == [grown, grown]
    (said,) = OUTPUT.remedies(before, (36, 36))
    assert "box" in said
    assert OUTPUT.remedies(after, (36, 36)) == []


def test_the_readme_has_the_figures_of_the_random_decoder():
    """Expected imbalance, the one on noise and the height of the pattern, before and after."""
    model = wrap(Decoder().eval(), spec=InputSpec(36, 36), device="cpu")
    before, after, _fidelity = audit(model, ("output",), ("none", "box"), count=8, device="cpu")
    figures = [
        f"from {before.metrics[name].value:.2f} to {after.metrics[name].value:.2f}"
        for name in ("expected_imbalance", "noise_imbalance", "grid_amplitude")
    ]
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    told = readme.partition("In a random decoder")[2].partition("The new taps")[0]
    assert re.findall(r"from [\d.]+ to [\d.]+\d", told) == figures


@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 3)])
def test_the_expected_energy_of_a_grown_kernel_is_that_of_random_networks(kernel, stride):
    """The mean over 300 weight sets of the energy by phase, after a box, is flat within noise."""
    total = 0.0
    x = torch.randn(1, 4, 9, 9, generator=torch.Generator().manual_seed(0))
    for seed in range(300):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.ConvTranspose2d(4, 6, kernel, stride, bias=False))
        pad_module(module, "box", x)
        with torch.no_grad():
            total = total + module(torch.randn(1, 4, 9, 9)).square().mean((0, 1))
    cells = total[3 * stride : -3 * stride, 3 * stride : -3 * stride]
    cells = cells[: len(cells) // stride * stride, : len(cells) // stride * stride]
    profile = cells.unflatten(0, (-1, stride)).unflatten(2, (-1, stride)).mean((0, 2))
    assert float((profile / profile.mean() - 1).abs().max()) < 0.08
