"""Models and comparisons of the acceptance on a GPU."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from perimetry import audit
from perimetry.adapters.input_spec import InputSpec

SPEC = InputSpec(64, 64, mean=(0.5,) * 3, std=(0.25,) * 3)
BY_NAME = ("halo", "output", "shift", "frequency", "position", "objects")
SUITES = ("structure", "erf:all", "deadpixel:all", "perturbation", "padding", *BY_NAME)
FEW = {
    "perturbation": {
        "comb_draws": 2,
        "noise_draws": 2,
        "block": 2,
        "position_images": 1,
        "attack_images": 1,
    },
    "halo": {"overlaps": (0, 8)},
    "shift": {"shifts": 3},
    "position": {"weight_sets": 2},
    "objects": {"phases": 2, "images": 2},
}
"""Settings under which a small model takes a second or two."""

SMOOTH = 1e-4
"""Relative L2 difference allowed between float32 maps of a smooth network.

Rounding to float32 is 6e-8 of a value. Sums of some thousand products, a dozen layers there and
back, and the transforms of Winograd's convolutions multiply that by some hundred. TF32 rounds every
factor by up to 5e-4, and fails.
"""

DOUBLE = 1e-6
"""The same with passes in float64, in which no activation is so near a kink that rounding decides.

Maps are summed over channels in float32: a few roundings of 6e-8 remain.
"""

FITTED = 1e-3
"""The same with kernels that `fit` has solved for: its equations multiply rounding."""

REFERENCE_BATCH = 3
"""Batch size of the CPU's run, so that the rehearsal compares two ways of computing as well."""


def smooth_net(width: int = 8) -> nn.Module:
    """Convolutions without kinks, so that rounding cannot move one; logits of five classes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.BatchNorm2d(width),
        nn.Tanh(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.Tanh(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.Tanh(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 5),
    ).eval()


def dense_net(width: int = 8) -> nn.Module:
    """A decoder whose output has a map of half the image's size, without kinks."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, width, 3, 2, 1),
        nn.Tanh(),
        nn.Conv2d(width, width, 3, 2, 1),
        nn.Tanh(),
        nn.ConvTranspose2d(width, 4, 3, 2, 1, 1),
    ).eval()


def onnx_net() -> onnx.ModelProto:
    """Two convolutions with tanh, pooled to logits of five classes; seeded weights."""
    rng = np.random.default_rng(0)
    weights = {"first": (8, 3, 3, 3), "second": (8, 8, 3, 3), "head": (8, 5)}
    strided = {"strides": [2, 2], "pads": [1, 1, 1, 1]}
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], **strided),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], **strided),
        helper.make_node("Tanh", ["c"], ["map"]),
        helper.make_node("GlobalAveragePool", ["map"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("MatMul", ["flat", "head"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "smooth",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 3, 64, 64])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [
            numpy_helper.from_array((0.3 * rng.standard_normal(s)).astype(np.float32), name)
            for name, s in weights.items()
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def large_net(layers: int = 8, width: int = 64) -> nn.Module:
    """Full resolution: `layers * width` maps of the input's size are kept for the way back."""
    torch.manual_seed(0)
    parts: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1), nn.Tanh()]
    for _ in range(layers - 1):
        parts += [nn.Conv2d(width, width, 3, 1, 1), nn.Tanh()]
    return nn.Sequential(*parts, nn.Conv2d(width, 8, 2, 2)).eval()


def difference(ours, expected) -> float:
    """Relative L2 difference of two arrays; 0 where both are 0 everywhere."""
    ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
    size = float(np.linalg.norm(expected))
    gap = float(np.linalg.norm(ours - expected))
    return gap / size if size else gap


def by_cell(records):
    return {(r.fill, r.suite, r.protocol): r for r in records}


def assert_agreement(ours, expected, limit):
    """The same cells have the same status, and maps that differ by at most `limit`."""
    found = by_cell(ours)
    for place, record in by_cell(expected).items():
        other = found[place]
        why = other.error.trace if other.error else other.reason
        assert other.status == record.status, (place, why)
        assert other.maps.keys() == record.maps.keys()
        for name, array in record.maps.items():
            gap = difference(other.maps[name], array)
            assert gap <= limit, (place, name, gap)


def assert_same_bits(ours, expected):
    """Metrics and maps of two runs are equal, bit for bit."""
    found = by_cell(ours)
    for place, record in by_cell(expected).items():
        assert found[place].metrics == record.metrics, place
        for name, array in record.maps.items():
            assert np.array_equal(found[place].maps[name], array, equal_nan=True), (place, name)


def compare(model, device, suites, limit, **settings):
    """Audit on `device` and on the CPU, where batches are of another size; the maps agree."""
    ours = audit_on(model, device, suites, **settings)
    expected = audit_on(model, "cpu", suites, batch=REFERENCE_BATCH, **settings)
    assert_agreement(ours, expected, limit)
    return ours


def audit_on(model, device, suites=SUITES, fills=("none",), **settings):
    """Audit four images with few draws."""
    chosen = {"count": 4, "options": FEW, **settings}
    return audit(model, suites, fills, device=device, **chosen)
