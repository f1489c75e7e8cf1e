"""The gate before gradients: every planted wrong one is refused, and no right one."""

import math

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from onnx_files import convnet, model, node, save, weights

from perimetry.adapters.onnx.gradient_check.finite_differences import gradient, gradient_error
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.operators import elementwise as onnx_ops


def wave(x):
    return (x * torch.arange(1.0, x.numel() + 1).to(x).reshape(x.shape)).sin().sum()


X = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_the_error_of_a_right_gradient_is_rounding():
    """The gradient error of a smooth function is below 1e-6."""
    assert gradient_error(wave, X) < 1e-6


@pytest.mark.parametrize("error", [0.01, 0.05, 0.5])
def test_the_error_of_a_scaled_gradient_is_found_about_its_size(error):
    """Three directions give the root mean square of three normal numbers: a half to twice it."""
    assert error / 3 < gradient_error(wave, X, (1 + error) * gradient(wave, X)) < 3 * error


def test_a_gradient_that_leaves_out_what_is_orthogonal_to_it_is_found():
    """Along itself such a gradient is exact: only directions across it show what is missing."""
    g = gradient(wave, X)
    g[:, :, ::2] = 0
    along = float((gradient(wave, X) * g).sum() / g.square().sum())
    assert along == pytest.approx(1)
    assert gradient_error(wave, X, g) > 0.2


def test_kinks_within_a_coarse_step_do_not_count():
    """A sum of a thousand shifted ReLUs of every pixel, so that any step crosses many kinks."""
    places = torch.linspace(-3, 3, 1000, dtype=torch.float64)

    def kinked(x):
        signs = torch.where(torch.arange(1000) % 2 == 0, 1.0, -1.0)
        return (F.relu(x.reshape(-1, 1) - places) * signs).sum()

    assert gradient_error(kinked, X) < 1e-3


@pytest.mark.parametrize(
    ("function", "expected"),
    [(lambda x: (x * 0).sum(), 0.0), (lambda x: (x - x.frac().detach()).sum() * 0, 0.0)],
)
def test_a_constant_has_no_wrong_gradient(function, expected):
    """Zero gradients of a constant have the error 0."""
    assert gradient_error(function, X) == expected


def test_a_staircase_has_a_zero_gradient_that_is_refused():
    """A zero gradient of a function that changes has an infinite error."""
    assert gradient_error(lambda x: ((x * 50).round().detach() + 0 * x).sum(), X) == math.inf


class Planted(torch.autograd.Function):
    """ReLU whose gradient is `factor` times the right one."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx, gradient):
        (x,) = ctx.saved_tensors
        return gradient * (x > 0) * ctx.factor, None


def opened(proto, folder):
    return open_onnx(save(proto, folder / "a.onnx"), device="cpu")


@pytest.mark.parametrize("factor", [0.0, 0.95, 1.05, 2.0, -1.0])
def test_a_wrong_gradient_of_one_operator_is_refused_and_the_node_named(
    factor, tmp_path, monkeypatch
):
    """A factor of 0.95 to 2 in one rule, or none, is found at the Relu."""
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", lambda _call, x: Planted.apply(x, factor))
    net = opened(convnet(), tmp_path)
    assert "disagrees with finite differences" in net.why_no_gradients
    assert net.why_no_gradients.endswith("it goes wrong at the Relu node 'r1'")


def residual(*, shortcut="Relu"):
    """A residual block of two branches, one of them through a `shortcut` operator."""
    nodes = [
        node("Conv", ["image", "w1"], ["stem"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Relu", ["stem"], ["r1"]),
        node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        node("Sigmoid", ["c2"], ["long"]),
        node(shortcut, ["stem"], ["short"]),
        node("Add", ["long", "short"], ["sum"]),
        node("Conv", ["sum", "w3"], ["map"], strides=[2, 2], pads=[1, 1, 1, 1]),
        node("GlobalAveragePool", ["map"], ["pooled"]),
        node("Flatten", ["pooled"], ["logits"]),
    ]
    constants = {
        "w1": weights(8, 3, 3, 3),
        "w2": weights(8, 8, 3, 3, seed=1) / 8,
        "w3": weights(5, 8, 3, 3, seed=2),
    }
    return model(
        nodes, constants, dims=["n", 3, 32, 32], outputs=["logits"], out_dims=["n", 5], opset=17
    )


@pytest.mark.parametrize("error", [0.05, -0.05, -1.0])
def test_a_wrong_gradient_in_one_of_two_branches_is_refused_and_the_node_named(
    error, tmp_path, monkeypatch
):
    """-1 is a branch whose gradient is left out."""

    def planted(_call, x):
        y = x.sigmoid()
        return y + error * (y - y.detach())

    monkeypatch.setitem(onnx_ops.OPERATORS, "Sigmoid", planted)
    net = opened(residual(), tmp_path)
    assert net.why_no_gradients.endswith("it goes wrong at the Sigmoid node 'long'")


def test_a_gradient_that_is_wrong_in_single_precision_only_is_refused(tmp_path, monkeypatch):
    """A factor in float32 alone is found by comparing both precisions."""

    def planted(_call, x):
        return Planted.apply(x, 1.0 if x.dtype == torch.float64 else 1.3)

    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", planted)
    net = opened(convnet(), tmp_path)
    assert "depends on the precision (relative difference 0.3)" in net.why_no_gradients
    assert net.why_no_gradients.endswith("it goes wrong at the Relu node 'r1'")


def test_a_function_that_is_right_on_the_test_image_alone_is_refused(tmp_path, monkeypatch):
    """Twice as steep as the operator, and its gradient is that of its own slope."""
    seen = {}

    def planted(_call, x):
        y = x.clamp(min=0)
        if not len(x) > 1:
            seen.setdefault("y", y.detach())
        return y if "y" not in seen else 2 * y - seen["y"].to(y)

    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", planted)
    net = opened(convnet(), tmp_path)
    assert "does not change as through onnxruntime beside the test image" in net.why_no_gradients


def tokens_after_norm():
    """A batch norm whose map becomes tokens: its incoming gradient has channels-last strides."""
    nodes = [
        node("Conv", ["image", "w1"], ["c1"], strides=[4, 4]),
        node("BatchNormalization", ["c1", "scale", "shift", "mean", "var"], ["bn"]),
        node("Reshape", ["bn", "rows"], ["flat"]),
        node("Transpose", ["flat"], ["tokens"], perm=[0, 2, 1]),
        node("Mul", ["tokens", "w2"], ["mixed"]),
        node("Flatten", ["mixed"], ["logits"]),
    ]
    constants = {
        "w1": weights(16, 3, 4, 4),
        "scale": np.abs(weights(16, seed=1)) + 0.5,
        "shift": weights(16, seed=2),
        "mean": weights(16, seed=3),
        "var": np.abs(weights(16, seed=4)) + 0.5,
        "rows": np.array([0, 16, -1]),
        "w2": weights(64, 16, seed=5),
    }
    return model(
        nodes, constants, dims=["n", 3, 32, 32], outputs=["logits"], out_dims=["n", 1024], opset=17
    )


def naive_norm(call, x, scale, shift, mean, var):
    return F.batch_norm(x, mean, var, scale, shift, False, 0.0, call.get("epsilon", 1e-5))


def torch_errs_at_batch_one():
    """Whether this torch gives wrong gradients of a batch norm at batch 1."""
    x = torch.randn(1, 16, 8, 8, requires_grad=True)
    one = torch.ones(16)
    y = F.batch_norm(x, one, one, None, None, False, 0.0, 1e-5)
    incoming = torch.randn(1, 64, 16).transpose(1, 2).reshape(1, 16, 8, 8)
    found, right = (
        torch.autograd.grad(y, x, g, retain_graph=True)[0]
        for g in (incoming, incoming.contiguous())
    )
    return not torch.allclose(found, right)


def test_the_batch_norm_of_torch_at_batch_one_is_caught_where_it_errs(tmp_path, monkeypatch):
    """Named is the first node whose output has a wrong gradient: the transposing one behind it."""
    proto = tokens_after_norm()
    assert opened(proto, tmp_path).why_no_gradients is None
    monkeypatch.setitem(onnx_ops.OPERATORS, "BatchNormalization", naive_norm)
    refused = opened(proto, tmp_path).why_no_gradients
    if torch_errs_at_batch_one():
        assert refused.endswith("it goes wrong at the Transpose node 'tokens'")
    else:
        assert refused is None


def quantised():
    """The small network with its image and first map rounded to eight bits."""
    proto = convnet()
    for name, source, at in (("image", "image", 0), ("map", "r1", 2)):
        proto.graph.initializer.extend(
            [
                numpy_helper.from_array(np.float32(0.02), f"s_{name}"),
                numpy_helper.from_array(np.int8(0), f"z_{name}"),
            ]
        )
        extra = 0 if name == "image" else 2
        pair = [f"s_{name}", f"z_{name}"]
        proto.graph.node.insert(at + extra, node("QuantizeLinear", [source, *pair], [f"q_{name}"]))
        proto.graph.node.insert(
            at + extra + 1, node("DequantizeLinear", [f"q_{name}", *pair], [f"d_{name}"])
        )
        proto.graph.node[at + extra + 2].input[0] = f"d_{name}"
    onnx.checker.check_model(proto)
    return proto


def test_a_quantised_file_is_verified_with_its_rounding_left_out(tmp_path, monkeypatch):
    """Its gradient passes; a factor of 1.05 in one rule does not."""
    net = opened(quantised(), tmp_path)
    assert net.why_no_gradients is None
    assert net.verdict.gradient < 1e-6
    assert net.verdict.ratios == ()
    monkeypatch.setitem(onnx_ops.OPERATORS, "Relu", lambda _call, x: Planted.apply(x, 1.05))
    refused = opened(quantised(), tmp_path).why_no_gradients
    assert refused.endswith("it goes wrong at the Relu node 'r1'")


def test_dynamic_ranges_are_verified_with_their_rounding_left_out(tmp_path):
    """The largest value sets the scale, and would be clipped by the rounding of the zero point."""
    proto = convnet()
    proto.graph.node.insert(0, node("DynamicQuantizeLinear", ["image"], ["q", "s", "z"]))
    proto.graph.node.insert(1, node("DequantizeLinear", ["q", "s", "z"], ["dq"]))
    proto.graph.node[2].input[0] = "dq"
    net = opened(proto, tmp_path)
    assert net.why_no_gradients is None
    assert net.verdict.gradient < 1e-6


def test_a_staircase_without_a_straight_through_gradient_is_refused(tmp_path):
    """A Round node is named as the place where the gradient is wrong."""
    proto = convnet()
    proto.graph.node[1].CopyFrom(node("Round", ["c1"], ["r1"]))
    net = opened(proto, tmp_path)
    assert net.why_no_gradients.endswith("it goes wrong at the Round node 'r1'")


def test_a_gradient_is_not_refused_for_kinks_that_lie_within_a_step(tmp_path):
    """Forty ReLU layers: no gradient at a point foretells differences that float32 could show."""
    nodes, constants, name = [], {}, "image"
    for i in range(40):
        constants[f"w{i}"] = weights(24, 3 if i == 0 else 24, 3, 3, seed=i) * (2 / 216) ** 0.5
        nodes.append(node("Conv", [name, f"w{i}"], [f"c{i}"], pads=[1, 1, 1, 1]))
        nodes.append(node("Relu", [f"c{i}"], [f"r{i}"]))
        name = f"r{i}"
    net = opened(model(nodes, constants, dims=["n", 3, 24, 24], outputs=[name]), tmp_path)
    assert net.why_no_gradients is None
    assert net.verdict.gradient < 1e-3


def test_a_dead_network_has_no_wrong_gradient(tmp_path):
    """All ReLUs shut: nothing moves, and the gradient is rightly zero."""
    proto = convnet()
    proto.graph.initializer.append(numpy_helper.from_array(np.full(8, -1e4, np.float32), "b"))
    proto.graph.node[0].input.append("b")
    assert opened(proto, tmp_path).why_no_gradients is None


def saturated(op, gain):
    """`convnet` with its logits times `gain` before the operator `op`."""
    proto = convnet()
    proto.graph.node.extend(
        [node("Mul", ["logits", "gain"], ["sharp"]), node(op, ["sharp"], ["p"])]
    )
    proto.graph.initializer.append(numpy_helper.from_array(np.float32(gain), "gain"))
    proto.graph.output[0].name = "p"
    return proto


def spread(proto, folder):
    """How far the outputs of the test image are from 0 and 1."""
    net = opened(proto, folder)
    p = net.run(net.spec.blank(), logits=True).logits
    return float(torch.minimum(p, 1 - p).max())


GAINS = (1.0, 10.0, 100.0, 1e4)


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("op", ["Softmax", "Sigmoid"])
def test_a_confident_classifier_has_gradients(op, gain, tmp_path):
    """Up to probabilities of exactly 0 and 1, whose derivatives are zero in any precision."""
    net = opened(saturated(op, gain), tmp_path)
    assert net.why_no_gradients is None
    assert net.verdict.gradient < 1e-3
    if gain == GAINS[-1]:
        assert spread(saturated(op, gain), tmp_path) == 0.0


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("factor", [0.0, 0.95, 1.05, -1.0])
def test_a_wrong_gradient_before_a_confident_softmax_is_refused(
    factor, gain, tmp_path, monkeypatch
):
    """Where rounding hides the softmax's derivative, the tensor before it shows the error."""
    monkeypatch.setitem(
        onnx_ops.OPERATORS, "Gemm", lambda _call, x, w: Planted.apply((x @ w) + 1e3, factor) - 1e3
    )
    net = opened(saturated("Softmax", gain), tmp_path)
    assert net.why_no_gradients.endswith("it goes wrong at the Gemm node 'logits'")


@pytest.mark.parametrize("factor", [0.0, 0.95, -1.0])
def test_a_wrong_gradient_of_the_softmax_itself_is_refused(factor, tmp_path, monkeypatch):
    """A wrong gradient of a softmax that is not saturated is refused."""

    def planted(_call, x):
        y = x.softmax(-1)
        return y.detach() + factor * (y - y.detach())

    monkeypatch.setitem(onnx_ops.OPERATORS, "Softmax", planted)
    net = opened(saturated("Softmax", 0.1), tmp_path)
    assert net.why_no_gradients.endswith("it goes wrong at the Softmax node 'p'")


def test_rounding_hides_no_error_that_double_precision_can_show():
    """A wave beside a large constant: where differences are rounding alone, nothing is refused."""

    def raised(height):
        return lambda x: wave(x) + height

    wrong = 1.05 * gradient(wave, X)
    assert gradient_error(raised(1e3), X, wrong) > 0.01
    assert gradient_error(raised(1e14), X, wrong) < 1e-3
    assert gradient_error(raised(1e14), X, 1e6 * wrong) > 0.1


def test_what_was_measured_is_in_the_notes(tmp_path):
    """The note has the difference of the outputs and the error of the gradient."""
    net = opened(convnet(), tmp_path)
    assert net.why_no_gradients is None
    (note,) = (n for n in net.notes if n.startswith("gradient route verified"))
    assert "outputs differ from onnxruntime's by" in note
    assert "estimated error of the gradient" in note
