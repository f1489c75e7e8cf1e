"""Structure of ONNX files that store masks and filters, which are no weights."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnx_files import model, node, save, weights
from random_weights import mean
from structure_nets import BLUR, Between, squared_jacobian

from perimetry.adapters.errors import NotApplicableError
from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.pytorch.skeleton import light_copy
from perimetry.suites.architecture.expected_maps import NOT_INDEPENDENT
from perimetry.suites.structure import measure_skeleton

SIDE = 12
WINDOW = np.hanning(SIDE + 2)[1:-1].astype(np.float32)
MASK = np.ones((1, 1, SIDE, SIDE), np.float32)
MASK[..., :4, :] = 0


def measured(nodes, held, path, target="map"):
    """Structure of a file of `nodes`, from `image` to `map`."""
    tail = [
        node("GlobalAveragePool", ["map"], ["mean"]),
        node("Flatten", ["mean"], ["out"]),
    ]
    proto = model([*nodes, *tail], held, dims=["batch", 3, SIDE, SIDE], outputs=["out"], opset=17)
    opened = open_onnx(save(proto, path), device="cpu", target=target)
    return measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))


FACTORS = {
    "mask": MASK,
    "of columns": WINDOW,
    "of rows": WINDOW[:, None],
    "of all": weights(3, SIDE, SIDE),
    "of channels": weights(3, 1, 1),
}


@pytest.mark.parametrize("name", FACTORS)
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_a_stored_factor_of_the_map_keeps_its_values(name, op, tmp_path):
    """The map is the mean over channels of the squared factors; those of channels leave it even."""
    factor = FACTORS[name] + (op == "Div")
    nodes = [node(op, ["image", "v"], ["x"]), node("Conv", ["x", "w"], ["map"])]
    found = measured(nodes, {"v": factor, "w": weights(5, 3, 1, 1)}, tmp_path / "m.onnx")
    squares = np.broadcast_to(
        factor.astype(float) ** (2 if op == "Mul" else -2), (1, 3, SIDE, SIDE)
    )
    expected = squares.mean((0, 1))
    np.testing.assert_allclose(
        found.maps["sensitivity"], expected / expected.mean(), rtol=1e-5, atol=1e-6
    )
    assert not any("guess" in note for note in found.notes)


def test_a_stored_mask_ends_the_receptive_field(tmp_path):
    """Of the thirteen rows that the central unit would read, three are left."""
    three = np.zeros((1, 1, SIDE, 1), np.float32)
    three[:, :, 5:8] = 1
    nodes = [
        node("Mul", ["image", "v"], ["x"]),
        node("Conv", ["x", "w"], ["map"], pads=[6, 6, 6, 6]),
    ]
    found = measured(nodes, {"v": three, "w": weights(5, 3, 13, 13)}, tmp_path / "m.onnx")
    assert found.metrics["receptive_field"].value == 3


def test_a_factor_of_unclear_axes_has_a_note(tmp_path):
    """Twelve channels of a map of 12 x 12 units last, or twelve columns: the sizes do not tell."""
    nodes = [
        node("Conv", ["image", "w"], ["x"]),
        node("Mul", ["x", "v"], ["map"]),
    ]
    held = {"v": weights(SIDE, 1, 1), "w": weights(SIDE, 3, 1, 1)}
    found = measured(nodes, held, tmp_path / "m.onnx", target="map")
    assert any("guess" in note for note in found.notes)


def test_a_stored_filter_of_all_channels_is_fixed(tmp_path):
    """Two blurs in a row have the squares of their product, as in torch."""
    taps = (BLUR / BLUR.sum()).expand(3, 1, 3, 3)
    nodes = [
        node("Conv", ["image", "b"], ["x"], group=3, strides=[1, 1], pads=[1, 1, 1, 1]),
        node("Conv", ["x", "b"], ["y"], group=3, strides=[2, 2], pads=[1, 1, 1, 1]),
        node("Conv", ["y", "w"], ["map"]),
    ]
    held = {"b": taps.numpy(), "w": weights(2, 3, 1, 1)}
    found = measured(nodes, held, tmp_path / "m.onnx")

    def blurs(x):
        filters = taps.to(x)
        return F.conv2d(F.conv2d(x, filters, None, 1, 1, 1, 3), filters, None, 2, 1, 1, 3)

    expected = squared_jacobian(blurs, 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-5, atol=1e-6)


def attended(x, *, written):
    """`x` and its tokens' mean by attention, in windows that overlap."""
    tokens = x.flatten(2).mT
    if written:
        out = (tokens @ tokens.mT).softmax(-1) @ tokens
    else:
        out = F.scaled_dot_product_attention(tokens, tokens, tokens)
    return mean(x + out.mT.unflatten(2, x.shape[2:]))


@pytest.mark.parametrize("written", [True, False])
def test_a_pool_behind_attention_has_a_note(written):
    """All queries share each token, so that a mean of several is no mean of independent ones."""
    net = Between(lambda x: attended(x, written=written))
    found = measure_skeleton(light_copy(net), (3, SIDE, SIDE))
    assert any(note.startswith(NOT_INDEPENDENT) for note in found.notes)


def test_large_negative_numbers_that_are_no_mask_have_a_note():
    """Added to the map and not to logits they change no derivative, which sizes do not tell."""
    shift = torch.where(torch.arange(SIDE)[:, None] > torch.arange(SIDE), -100.0, 0.0)
    found = measure_skeleton(light_copy(Between(lambda x: x + shift)), (3, SIDE, SIDE))
    assert found.notes == [
        "the expected sensitivity is a guess: it is assumed that numbers below -30 that are added "
        "are a mask of attention"
    ]


def test_means_of_colours_are_subtracted_whatever_their_size():
    """Pixels from 0 to 255 less means of 103 to 123."""
    means = torch.tensor([-123.0, -116.0, -103.0]).view(1, 3, 1, 1)
    found = measure_skeleton(light_copy(Between(lambda x: x + means)), (3, SIDE, SIDE))
    np.testing.assert_allclose(found.maps["sensitivity"], 1)
    assert not any("guess" in note for note in found.notes)


def test_a_flipped_map_has_the_stride_of_the_map():
    """Rows in reverse order, every third of them read: one phase of three."""
    net = Between(lambda x: x[:, :, ::3].flip(2))
    found = measure_skeleton(light_copy(net), (3, 48, 48))
    assert found.metrics["target_stride"].value == 3
    np.testing.assert_allclose(found.maps["phase_profile"].ravel(), [3, 0, 0])


def test_a_maximum_with_constants_that_differ_between_places_is_refused():
    """It keeps the units of half of the map, or another part of them: only the values tell."""
    limits = torch.where(torch.arange(SIDE) > 5, 1e9, -1e9)
    net = Between(lambda x: torch.maximum(x, limits.to(x)))
    with pytest.raises(NotApplicableError, match="differ between places"):
        measure_skeleton(light_copy(net), (3, SIDE, SIDE))


SLOPES = {
    "one": np.float32([0.2]),
    "of channels": weights(3, 1, 1),
    "of channels and places": weights(3, SIDE, SIDE),
}


@pytest.mark.parametrize("name", SLOPES)
def test_a_prelu_is_a_rectifier_whatever_its_slopes_are(name, tmp_path):
    """Slopes are learned: the map is that of a ReLU, beside the image itself."""
    maps = []
    for op in ("PRelu", "Relu"):
        nodes = [
            node("Mul", ["image", "v"], ["x"]),
            node(op, ["x", "s"] if op == "PRelu" else ["x"], ["y"]),
            node("Conv", ["y", "w"], ["z"]),
            node("Conv", ["image", "w"], ["c"]),
            node("Add", ["z", "c"], ["map"]),
        ]
        held = {"v": MASK, "w": weights(5, 3, 1, 1), "s": SLOPES[name]}
        maps.append(measured(nodes, held, tmp_path / "m.onnx").maps["sensitivity"])
    np.testing.assert_allclose(*maps)


@pytest.mark.parametrize("equation", ["bchw,w->bchw", "hw,bchw->bchw", "bchw,wch->bchw"])
def test_a_factor_of_the_map_in_an_einsum_keeps_its_values(equation, tmp_path):
    """It sums over no axis: the map is that of the product."""
    letters = next(t for t in equation.partition("->")[0].split(",") if t != "bchw")
    factor = weights(*(3 if c == "c" else SIDE for c in letters))
    inputs = ["image", "v"] if equation.startswith("b") else ["v", "image"]
    nodes = [node("Einsum", inputs, ["x"], equation=equation), node("Conv", ["x", "w"], ["map"])]
    found = measured(nodes, {"v": factor, "w": weights(5, 3, 1, 1)}, tmp_path / "m.onnx")

    def product(x):
        terms = (x, torch.tensor(factor).to(x))
        return torch.einsum(equation, *(terms if inputs[0] == "image" else terms[::-1]))

    expected = squared_jacobian(product, 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-5, atol=1e-6)


def test_a_file_whose_map_is_a_statistic_alone_is_refused_for_that(tmp_path):
    """A norm over rows is a constant, also before a convolution whose batch norm was folded."""
    nodes = [
        node("ReduceL2", ["image"], ["x"], axes=[2], keepdims=1),
        node("Expand", ["x", "shape"], ["y"]),
        node("Conv", ["y", "w"], ["map"]),
    ]
    held = {"w": weights(5, 3, 1, 1), "shape": np.array([1, 3, SIDE, SIDE])}
    with pytest.raises(NotApplicableError, match="only through gates"):
        measured(nodes, held, tmp_path / "m.onnx")
