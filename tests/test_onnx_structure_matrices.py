"""Structure of ONNX files that store matrices which are no weights, or may be none."""

import numpy as np
import pytest
import torch
from onnx_files import model, node, save, weights
from structure_nets import squared_jacobian

from perimetry.adapters.onnx.opening import open_onnx
from perimetry.adapters.onnx.skeleton.stored_matrices import doubtful_weights, fixed_by_design
from perimetry.suites.structure import measure_skeleton

SIDE = 12
PLACES = torch.arange(SIDE, dtype=torch.float64)
BLUR = (3 - (PLACES[:, None] - PLACES).abs()).clamp(min=0)
BLUR = BLUR / BLUR.sum(1, keepdim=True)
POOL = (PLACES[:, None] // 3 == torch.arange(4)).double()
FIXED = {
    "blur": BLUR.T,
    "mean of three": POOL / 3,
    "permutation": torch.eye(SIDE, dtype=torch.float64).roll(5, 0)[:, :7],
    "mean of all": torch.full((SIDE, SIDE), -1 / SIDE, dtype=torch.float64),
}


def measured(nodes, held, path):
    """Structure of a file of `nodes`, from `image` to `map`, and a linear layer behind."""
    tail = [node("GlobalAveragePool", ["map"], ["mean"]), node("Flatten", ["mean"], ["out"])]
    proto = model([*nodes, *tail], held, dims=["batch", 3, SIDE, SIDE], outputs=["out"], opset=17)
    opened = open_onnx(save(proto, path), device="cpu", target="map")
    return measure_skeleton(opened.skeleton(), (3, SIDE, SIDE))


def assumed(found):
    return [n for n in found.notes if "guess" in n]


@pytest.mark.parametrize("name", FIXED)
@pytest.mark.parametrize("op", ["MatMul", "from the left", "Einsum", "com.microsoft:FusedMatMul"])
def test_a_matrix_that_was_never_learned_has_its_coefficients(name, op, tmp_path):
    """Of every second column of a product with it the coefficients are squared; a note says so."""
    matrix = FIXED[name]
    held = {"m": matrix.numpy().astype(np.float32), "w": weights(2, 3, 1, 1)}
    if op == "Einsum":
        made = [node("Einsum", ["image", "m"], ["x"], equation="bchw,wv->bchv")]
    elif op == "from the left":
        held["m"] = held["m"].T.copy()
        made = [node("MatMul", ["m", "image"], ["x"])]
    else:
        domain, _, kind = op.rpartition(":")
        made = [node(kind, ["image", "m"], ["x"], domain=domain)]
    nodes = [*made, node("Conv", ["x", "w"], ["map"])]
    found = measured(nodes, held, tmp_path / "m.onnx")

    def product(x):
        return matrix.T.to(x) @ x if op == "from the left" else x @ matrix.to(x)

    expected = squared_jacobian(product, 3, SIDE, SIDE)
    np.testing.assert_allclose(found.maps["sensitivity"], expected, rtol=1e-5, atol=1e-6)
    assert ["'m'" in n and "is fixed" in n for n in assumed(found)] == [True]


FOURIER = torch.cos(2 * torch.pi / SIDE * PLACES[:, None] * PLACES)
DOUBTFUL = {
    "pruned": torch.tensor(weights(SIDE, SIDE)) * (torch.rand(SIDE, SIDE) > 0.5),
    "triangle": torch.tensor(weights(SIDE, SIDE)).tril(),
    "signs": torch.tensor(weights(SIDE, SIDE)).sign(),
    "Fourier transform": FOURIER,
    "cosine transform": torch.cos(torch.pi / SIDE * (PLACES[:, None] + 0.5) * PLACES),
}


@pytest.mark.parametrize("name", DOUBTFUL)
def test_a_matrix_that_may_be_no_weights_has_a_note(name, tmp_path):
    """It counts as random weights, which the note says."""
    held = {"m": DOUBTFUL[name].numpy().astype(np.float32), "w": weights(2, 3, 1, 1)}
    nodes = [node("MatMul", ["image", "m"], ["x"]), node("Conv", ["x", "w"], ["map"])]
    found = measured(nodes, held, tmp_path / "m.onnx")
    np.testing.assert_allclose(found.maps["sensitivity"], 1)
    assert ["'m'" in n and "is random weights" in n for n in assumed(found)] == [True]


def quantised(levels):
    x = torch.tensor(weights(300, 300))
    step = x.abs().amax() / levels
    return (x / step).round() * step


ORDINARY = {
    "normal": torch.tensor(weights(64, 64)),
    "half precision": torch.tensor(weights(64, 64)).half(),
    "eight bits": quantised(127),
    "positive": torch.tensor(weights(64, 64)).abs(),
    "orthogonal": torch.linalg.qr(torch.tensor(weights(64, 64)))[0],
    "some zeros": torch.tensor(weights(64, 64)).where(torch.rand(64, 64) > 0.05, 0),
    "zeros": torch.zeros(64, 64),
    "a vector": torch.ones(64),
    "integers": torch.eye(8).int(),
}


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_matrix_has_no_note(name):
    """Initial, trained and quantised matrices are random weights."""
    assert fixed_by_design(ORDINARY[name]) is None
    assert doubtful_weights(ORDINARY[name]) is None
