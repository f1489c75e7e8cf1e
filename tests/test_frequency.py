"""Frequencies of the sensitivity: box filter, Laplacian, planted waves, first strides."""

import numpy as np
import pytest
import torch
from onnx_files import convnet, save
from test_opaque import unknown
from torch import nn

from perimetry import audit
from perimetry.adapters.errors import InputError
from perimetry.adapters.input_spec import InputSpec
from perimetry.adapters.load import load
from perimetry.adapters.pytorch.model import wrap
from perimetry.suites.base import Context
from perimetry.suites.deadpixel.suite import DEADPIXEL
from perimetry.suites.frequency import (
    BANDS,
    FREQUENCY,
    Frequency,
    first_stride,
    frequencies,
    power_spectrum,
)
from perimetry.suites.images import open_images
from perimetry.suites.measuring.gradients import gradient_maps

SIDE = 16
GREY = InputSpec(SIDE, SIDE, channels=1, mean=(0.0,), std=(1.0,))
LAPLACIAN = [[0.0, -1.0, 0.0], [-1.0, 4.0, -1.0], [0.0, -1.0, 0.0]]
BOX = [[1.0] * 3] * 3


def opened(module, spec=GREY, **options):
    return wrap(module.eval(), spec=spec, device="cpu", precision="float64", **options)


def filtered(taps, stride=1):
    """One circular convolution with these taps."""
    conv = nn.Conv2d(1, 1, 3, stride, 1, padding_mode="circular", bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor(taps))
    return conv


def measured(model, count=100, **settings):
    images = open_images("noise", count).load(model.spec)
    suite = Frequency(**settings)
    maps = gradient_maps(model, images, suite.probes(model, "gradient", 0), batch=25).maps
    return suite.measure(model, "gradient", maps, Context(images, draws=60))


def values(found):
    return {name: one.value for name, one in found.metrics.items()}


def response(taps, row, column):
    """|transfer function|^2 of taps at one frequency, tap by tap."""
    total = 0j
    for a in range(3):
        for b in range(3):
            total += taps[a][b] * np.exp(-2j * np.pi * (row * (a - 1) + column * (b - 1)))
    return abs(total) ** 2


def by_hand(taps, inside):
    """Share of the response at the frequencies `inside(q)`, with loops."""
    part = whole = 0.0
    for i in range(SIDE):
        for j in range(SIDE):
            row, column = (k / SIDE if k <= SIDE // 2 else k / SIDE - 1 for k in (i, j))
            power = response(taps, row, column)
            whole += power
            part += power * inside(max(abs(row), abs(column)))
    return part / whole


@pytest.mark.parametrize("taps", [BOX, LAPLACIAN], ids=["box filter", "Laplacian"])
def test_shares_are_those_of_the_transfer_function(taps):
    """Centroid, bands and the share above a Nyquist limit, from the closed form by loops."""
    found = measured(opened(filtered(taps)), count=600, stride=2)
    expected = {
        "centroid": by_hand(taps, lambda q: q),
        "above_nyquist": by_hand(taps, lambda q: q > 1 / 4),
        **{f"band_{p}": by_hand(taps, lambda q, p=p: 1 / (2 * p) < q <= 1 / p) for p in BANDS},
        "band_rest": by_hand(taps, lambda q: q <= 1 / 32),
    }
    for name, value in expected.items():
        assert values(found)[name] == pytest.approx(value, rel=0.07, abs=1e-4), name
    assert sum(values(found)[f"band_{p}"] for p in (*BANDS, "rest")) == pytest.approx(1)


def test_a_box_filter_is_low_and_a_laplacian_high():
    """Of white reactions 3/4 or more lies above the limit of stride 2: the gain is 1 for those."""
    low, high, flat = (
        values(measured(opened(filtered(taps)), stride=2))
        for taps in (BOX, LAPLACIAN, [[0.0] * 3, [0.0, 1.0, 0.0], [0.0] * 3])
    )
    assert low["above_nyquist_gain"] < 0.4
    assert high["above_nyquist_gain"] > 1.2
    assert flat["above_nyquist_gain"] == pytest.approx(1, abs=0.02)
    assert low["centroid"] < flat["centroid"] < high["centroid"]


def test_the_transform_keeps_the_energy_and_finds_a_planted_wave():
    """Parseval, in units of pixel values; a single wave has one pair of frequencies."""
    spec = InputSpec(12, 20, channels=3, std=(0.5, 0.25, 2.0), mean=(0.1,) * 3, value_range=255.0)
    gradient = torch.randn(2, 3, 12, 20, generator=torch.Generator().manual_seed(0))
    scale = 255.0 / torch.tensor([0.5, 0.25, 2.0]).view(1, 3, 1, 1)
    expected = (gradient * scale).square().sum((1, 2, 3))
    torch.testing.assert_close(power_spectrum(gradient, spec).sum((1, 2)), expected)
    place = torch.arange(20)
    wave = torch.cos(2 * torch.pi * 3 * place / 20).expand(1, 1, 12, 20)
    power = power_spectrum(wave, InputSpec(12, 20, channels=1, mean=(0.0,), std=(1.0,)))[0]
    rows, columns = frequencies(12, 20)
    there = (rows == 0) & np.isclose(columns, 3 / 20)
    assert float(power[torch.from_numpy(there)].sum() / power.sum()) == pytest.approx(1)


def test_the_limit_is_that_of_the_first_strided_layer_along_each_axis():
    """A stem of stride 4 x 2 has limits of 1/8 and 1/4; a network without strides has none."""
    stem = nn.Sequential(nn.Conv2d(1, 2, 3, 1, 1), nn.Conv2d(2, 4, (4, 2), (4, 2)))
    assert first_stride(opened(stem)) == (4, 2)
    found = measured(opened(stem), count=8)
    rows, columns = frequencies(SIDE, SIDE)
    beyond = (rows > 1 / 8) | (columns > 1 / 4)
    spectrum = np.fft.ifftshift(found.maps["spectrum"])
    assert values(found)["above_nyquist"] == pytest.approx(spectrum[beyond].sum() / spectrum.sum())
    flat = measured(opened(nn.Conv2d(1, 2, 3, 1, 1)), count=8)
    assert "no layer has a stride" in flat.metrics["above_nyquist"].reason
    assert measured(opened(stem), count=4, stride=1).metrics["above_nyquist_gain"].reason


def test_the_gradient_is_taken_once_for_several_suites():
    """The spectrum's mean is the energy of `deadpixel` at the same seed, from one backward pass."""
    model = opened(filtered(LAPLACIAN, 2))
    calls = []
    images = open_images("dead-leaves", 3).load(GREY)
    probes = [*DEADPIXEL.probes(model, "energy", 0), *FREQUENCY.probes(model, "gradient", 0)]
    original = torch.autograd.grad
    torch.autograd.grad = lambda *a, **k: calls.append(1) or original(*a, **k)
    try:
        maps = gradient_maps(model, images, probes, batch=3).maps
    finally:
        torch.autograd.grad = original
    assert len(calls) == 1
    energy = maps["deadpixel/energy"].sum((1, 2, 3))
    np.testing.assert_allclose(maps["frequency/gradient"].sum((1, 2)), energy, rtol=1e-5)


def test_files_have_gradients_and_black_boxes_a_reason(tmp_path):
    """An ONNX file is measured, one with an operator that has no rule is skipped."""
    model = load(save(convnet(size=32), tmp_path / "m.onnx"), device="cpu")
    assert values(measured(model, count=4))["above_nyquist"] > 0
    black = load(save(unknown(), tmp_path / "u.onnx"), device="cpu")
    assert "no gradient route" in FREQUENCY.skip(black, "gradient")


def test_trained_weights_prefer_lower_frequencies_than_initial_ones():
    """EfficientNet-Lite0: the centroid of the trained network lies below that of initial states."""
    import trained_weights

    name = "tf_efficientnet_lite0"
    trained, initial = (
        values(measured(load(reference, device="cpu", **options), count=4))
        for reference, options in (
            (f"timm:{name}@{trained_weights.LITE0}", {}),
            (f"timm:{name}@init", {"members": 4}),
        )
    )
    assert trained["centroid"] < initial["centroid"]


def test_a_stride_below_one_is_refused():
    """The setting takes whole pixels from 1 on."""
    with pytest.raises(InputError):
        Frequency(stride=0)


def test_the_suite_runs_in_an_audit():
    """An audit records every metric and the spectrum."""
    model = opened(nn.Conv2d(3, 4, 3, 2, 1), InputSpec(32, 32))
    (record,) = audit(model, ("frequency",), count=4, device="cpu")
    assert record.status == "ok", record.error
    assert set(record.metrics) == {metric.name for metric in FREQUENCY.metrics}
    assert record.maps["spectrum"].shape == (32, 32)
